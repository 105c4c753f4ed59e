"""pexpect's :func:`run`: a command, its output, and answers to what it asks on the way."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from .expect import EOF, TIMEOUT, spawn

__all__ = [
    "run",
    "runu",
]

# What is expected, and what is sent then: text, or what a function returns. It is called with the
# local variables of run(), as in pexpect; True ends the run.
_Answer: TypeAlias = "str | bytes | Callable[[dict[str, Any]], Any]"


def run(
    command: str,
    timeout: float | None = 30,
    withexitstatus: bool = False,
    events: Mapping[Any, _Answer] | Sequence[tuple[Any, _Answer]] | None = None,
    extra_args: Any = None,
    logfile: Any = None,
    cwd: Any = None,
    env: Mapping[str, str] | None = None,
    **kwargs: Any,
) -> Any:
    """Run a command on a terminal and return its output; as :func:`pexpect.run`.

    It is closed then, and so ended if it was not: by a timeout, or by a function that said so.

    Args:
        command: A command line, split without a shell.
        timeout: Seconds without an event until it is over; -1 is 30, ``None`` is for ever.
        withexitstatus: Return (output, exit status) instead.
        events: What is answered when the output has which pattern: text that is sent, or a
            function of a dictionary (``child``, ``event_count``, ``extra_args``, …) that returns
            text to be sent, or True to end it.
        extra_args: For those functions.
        logfile, cwd, env, kwargs: As for :class:`.spawn`; ``url`` and ``execer`` among them.

    Raises:
        TypeError: An event has something else for an answer.
        ExitMissing: The connection ended before the exit status came.
        As :class:`.spawn`.
    """
    if timeout != -1:
        kwargs["timeout"] = timeout
    pairs = list(events.items() if isinstance(events, Mapping) else events or ())
    patterns = [pattern for pattern, _ in pairs]
    responses = [response for _, response in pairs]
    child_result_list: list[Any] = []
    event_count = 0
    with spawn(command, logfile=logfile, cwd=cwd, env=env, **kwargs) as child:
        while True:
            try:
                index = child.expect(patterns or None)
            except (EOF, TIMEOUT):
                child_result_list.append(child.before)
                break
            is_text = isinstance(child.after, child.allowed_string_types)  # or it is EOF, say
            child_result_list.append(child.before + child.after if is_text else child.before)
            answer: Any = responses[index]
            if callable(answer):
                answer = answer(locals())
                sys.stdout.flush()
            elif not isinstance(answer, child.allowed_string_types):
                raise TypeError(f"event {patterns[index]!r} needs text or a function: {answer!r}")
            if isinstance(answer, child.allowed_string_types):
                child.send(answer)
            elif answer:
                break
            event_count += 1
    output = child.string_type().join(child_result_list)
    return (output, child.exitstatus) if withexitstatus else output


def runu(command: str, *args: Any, **kwargs: Any) -> Any:
    """Run a command and return its output as text; pexpect's older name for an ``encoding``."""
    kwargs.setdefault("encoding", "utf-8")
    return run(command, *args, **kwargs)
