"""The tables of protocol/dialogue.py, as docs/protocol.md shows them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from wsep_sync.protocol.dialogue import CLIENT, SERVER

__all__ = ["PAGE", "states", "written"]

PAGE = Path(__file__).parent.parent.parent / "docs" / "protocol.md"

_BEGIN, _END = "<!-- states -->\n", "<!-- /states -->\n"


def states() -> str:
    """Return what is to stand in the page."""
    return f"The server:\n\n{_states(SERVER)}\nThe client:\n\n{_states(CLIENT)}"


def written(page: str) -> str:
    """Return what stands there."""
    return page.partition(_BEGIN)[2].partition(_END)[0].strip("\n") + "\n"


def _states(table: Mapping[Any, Mapping[str, Enum]]) -> str:
    words = [word for row in table.values() for word in row]

    def order(word: str) -> int:  # messages, and then first what happens in one state alone
        return 0 if word.islower() else words.count(word)

    # Those that lead to the same everywhere share a line.
    lines: dict[tuple[str, ...], list[str]] = {}
    for word in sorted(dict.fromkeys(words), key=order):
        fields = tuple(_field(state, row.get(word)) for state, row in table.items() if row)
        lines.setdefault(fields, []).append(f"`{word}`" if word.islower() else word)
    shown = [state for state, row in table.items() if row]
    rows = [("", *map(_name, shown)), ("---",) * (len(shown) + 1)]
    rows += [(", ".join(same), *fields) for fields, same in lines.items()]
    text = "".join(f"|{'|'.join(f' {field} ' for field in row)}|\n" for row in rows)
    text = text.replace(" --- ", "---").replace("|  |", "| |").replace("|  |", "| |")
    meanings = "".join(f"- {_name(state)}: {state.value}\n" for state in table)
    return f"{text}\n{meanings}"


def _name(state: Enum) -> str:
    return state.name.lower()


def _field(state: Enum, following: Enum | None) -> str:
    if following is None:
        return ""
    return "stays" if following is state else _name(following)
