"""Every regular expression of the package takes time that is linear in its input.

Peers and programs decide what they are given, and Python's engine holds the interpreter's lock. So
each is found wherever it stands, is fed with the worst inputs that can be made of its own language,
in the ways in which the package uses it, and must not take longer than in proportion.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import wsep_sync

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    try:
        from re import _constants as sre
        from re import _parser as sre_parse
    except ImportError:  # before Python 3.11
        import sre_constants as sre
        import sre_parse

pytestmark = pytest.mark.thorough

ROOT = Path(wsep_sync.__file__).parent
# What is made of patterns of the user's own, and applied to names that the user gives.
MOST_INPUTS = 300  # for each pattern
OWN = {("known_hosts", "fullmatch")}

USES: dict[str, Callable[[Any, Any], object]] = {
    "match": lambda pattern, data: pattern.match(data),
    "fullmatch": lambda pattern, data: pattern.fullmatch(data),
    "search": lambda pattern, data: pattern.search(data),
    "findall": lambda pattern, data: pattern.findall(data),
    "finditer": lambda pattern, data: deque(pattern.finditer(data), 0),
    "sub": lambda pattern, data: pattern.sub(data[:0], data),
    "split": lambda pattern, data: pattern.split(data),
}


def module_names() -> list[str]:
    found = pkgutil.walk_packages(wsep_sync.__path__, "wsep_sync.")
    return ["wsep_sync", *(m.name for m in found if not m.name.endswith("__main__"))]


def patterns_in(value: object, depth: int = 3) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, dict) and depth:
        for item in (*value, *value.values()):
            yield from patterns_in(item, depth - 1)
    elif isinstance(value, (tuple, list, set, frozenset)) and depth:
        for item in value:
            yield from patterns_in(item, depth - 1)
    elif isinstance(value, type) and value.__module__.startswith("wsep_sync") and depth:
        for item in vars(value).values():
            yield from patterns_in(item, depth - 1)


def all_patterns() -> dict[str, re.Pattern[Any]]:
    """Every pattern by the name of the module and of the variable that has it."""
    found: dict[re.Pattern[Any], str] = {}
    for name in module_names():
        for variable, value in vars(importlib.import_module(name)).items():
            for i, pattern in enumerate(patterns_in(value)):
                found.setdefault(pattern, f"{name}.{variable}" + (f"-{i}" if i else ""))
    return {name: pattern for pattern, name in found.items()}


def uses() -> dict[str, set[str]]:
    """The methods that are called on variables, by their names."""
    found: dict[str, set[str]] = {}
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in USES:
                owner = node.value
                name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
                found.setdefault(name, set()).add(node.attr)
    return found


PATTERNS = all_patterns()
METHODS = uses()


def test_all_are_found() -> None:
    """A pattern that is made where it is used would be found by nobody."""
    compiled = 0
    for path in ROOT.rglob("*.py"):
        tree = ast.parse(path.read_text())
        within = {n for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "re"):
                continue
            name = node.func.attr
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            if name == "compile":
                assert node not in within, f"{where}: compile it once, in the module"
                compiled += 1
            elif (path.stem, name) not in OWN:
                assert name == "escape", f"{where}: give the pattern a name, in the module"
    assert len(PATTERNS) >= compiled - 2, "some stand where they are not looked for"


# Worst inputs


def samples(tree: Any, most: int = 12) -> list[list[int]]:
    """Some of what a parsed pattern matches, as codes of characters, each part in several forms."""
    results: list[list[int]] = [[]]
    for op, argument in tree:
        options = alternatives(op, argument)
        results = [[*left, *right] for right in options for left in results]
        # Of too many, those that differ most: from the beginning, the end, and between.
        step = max(len(results) / most, 1)
        results = [results[int(i * step)] for i in range(min(len(results), most))]
    return results


def alternatives(op: Any, argument: Any) -> list[list[int]]:
    if op is sre.LITERAL:
        return [[argument]]
    if op is sre.NOT_LITERAL:
        return [[code] for code in (ord("a"), ord("0"), ord(";")) if code != argument][:1]
    if op is sre.ANY:
        return [[ord("a")], [ord(";")]]
    if op is sre.IN:
        return [[code] for code in members(argument)]
    if op is sre.BRANCH:
        return [sample for branch in argument[1] for sample in samples(branch, 4)]
    if op is sre.SUBPATTERN:
        return samples(argument[3])
    if op in (sre.MAX_REPEAT, sre.MIN_REPEAT) or op is getattr(sre, "POSSESSIVE_REPEAT", None):
        least, most, tree = argument
        inner = samples(tree, 4)
        counts = {least, min(max(least, 1), most), min(least + 2, most)}
        return [sample * count for count in sorted(counts) for sample in inner]
    if op is sre.ASSERT and argument[0] > 0:
        return [[], *samples(argument[1], 3)]
    if op is getattr(sre, "ATOMIC_GROUP", None):
        return samples(argument)
    assert op in (sre.AT, sre.ASSERT, sre.ASSERT_NOT, sre.GROUPREF), op
    return [[]]


def members(items: Any) -> list[int]:
    negated, codes = False, []
    for op, argument in items:
        if op is sre.NEGATE:
            negated = True
        elif op is sre.LITERAL:
            codes.append(argument)
        elif op is sre.RANGE:
            codes += argument if not negated else range(argument[0], argument[1] + 1)
        elif op is sre.CATEGORY:
            codes += b"1" if argument is sre.CATEGORY_DIGIT else b"a " * (not negated)
    if negated:
        return [code for code in b"a0;\x1b\xc2" if code not in codes][:3]
    return sorted(set(codes))[:: max(len(set(codes)) // 3, 1)]


def worst_inputs(pattern: re.Pattern[Any]) -> dict[Any, None]:
    """Beginnings of inputs, what is repeated after them, and their ends."""
    found: dict[Any, None] = {}
    for sample in samples(sre_parse.parse(pattern.pattern, pattern.flags & ~re.DEBUG)):
        text: Any = "".join(map(chr, sample))
        if isinstance(pattern.pattern, bytes):
            text = text.encode("latin-1", "replace")
        text = text[:24]
        # "!": what ends no sequence; nothing, and the rest of the sample.
        strange = text[:0] + ("!" if isinstance(text, str) else b"!")
        for i in range(len(text) + 1):
            for j in range(i + 1, min(len(text), i + 8) + 1):
                for end in (text[:0], strange, text[j:]):
                    found[text[:i], text[i:j], end] = None
    # Of too many, as many, evenly.
    return dict.fromkeys(list(found)[:: len(found) // MOST_INPUTS + 1])


def made(parts: Any, size: int) -> Any:
    before, repeated, after = parts
    return before + repeated * (size // len(repeated)) + after


def seconds(use: Callable[[Any, Any], object], pattern: Any, data: Any, rounds: int = 1) -> float:
    best = float("inf")
    for _ in range(rounds):
        began = time.thread_time()
        use(pattern, data)
        best = min(best, time.thread_time() - began)
    return best


def grows(use: Callable[[Any, Any], object], pattern: Any, parts: Any, small: int, k: int) -> bool:
    """Whether `k` times the input takes a good deal more than `k` times as long."""
    large = seconds(use, pattern, made(parts, small * k))
    # What takes no time to speak of is told from nothing by noise only.
    if large < 0.01 * small * k / 65536:
        return False
    one = seconds(use, pattern, made(parts, small), 3)
    return min(large, seconds(use, pattern, made(parts, small * k), 2)) > 2.5 * k * one


@pytest.mark.parametrize("name", PATTERNS)
def test_time_is_linear(name: str) -> None:
    pattern = PATTERNS[name]
    variable = name.rpartition(".")[2].partition("-")[0]
    inputs = worst_inputs(pattern)
    for method in METHODS.get(variable, {"search", "fullmatch"}):
        use = USES[method]
        took: list[tuple[float, Any]] = []
        for parts in inputs:
            assert not grows(use, pattern, parts, 2048, 4), f"{method} of {parts!r}, repeated"
            took.append((seconds(use, pattern, made(parts, 4096)), parts))
        took.sort(key=lambda entry: -entry[0])
        for _, parts in took[:2]:
            assert not grows(use, pattern, parts, 16384, 4), f"{method} of {parts!r}, to 64 KiB"
            assert not grows(use, pattern, parts, 65536, 16), f"{method} of {parts!r}, to 1 MiB"


@pytest.mark.parametrize(
    ("pattern", "method"),
    [
        (rb"\xc2+(?=[\x90\x98\x9a\x9b\x9d-\x9f])", "sub"),
        (rb"\x1b\[\?((?:[0-9;]*;)?0*(?:47|1047|1049)(?:;[0-9;]*)?)([hl])", "search"),
        (r"(a+)+$", "match"),
        (r"a.*b", "search"),
        (r"\s+$", "search"),
    ],
)
def test_what_is_not_linear_is_found(pattern, method) -> None:
    compiled = re.compile(pattern)
    quadratic = (p for p in worst_inputs(compiled) if grows(USES[method], compiled, p, 2048, 4))
    if "+)+" in str(pattern):  # exponential: not to be tried at that size
        quadratic = (p for p in worst_inputs(compiled) if grows(USES[method], compiled, p, 10, 2))
    assert next(quadratic, None) is not None
