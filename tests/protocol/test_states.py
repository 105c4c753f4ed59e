"""What docs/protocol.md says of the states: that it is what the tables say."""

from __future__ import annotations

from state_tables import PAGE, states, written


def test_the_states_are_those_of_the_tables() -> None:
    expected = states()
    assert written(PAGE.read_text()) == expected, f"it should be:\n\n{expected}"


def test_the_tables_name_every_state() -> None:
    server, _, client = states().partition("The client:")
    assert "| | open | starting | running | ended | finished |\n" in server
    assert "| `start`, `attach` | starting | | | | |\n" in server
    assert "| | asked | running | ended |\n" in client
    assert "- lost: the connection ended before that\n" in client
