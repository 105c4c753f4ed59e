"""Many sessions at once: clients that drop at random moments, and what sessions cost."""

from __future__ import annotations

import contextlib
import random

import pytest
from held_sessions import ENGINES, ask, children, memory, server_process, threads
from helpers import SECONDS, RawClient, Task, eventually, gone
from session_clients import Client, attach_message, hub, session

pytestmark = pytest.mark.thorough

IDS = 10
ROUNDS = 20
HELD = 300


def test_ten_ids_that_are_dropped_at_random_moments_and_reattached() -> None:
    with hub() as sessions, contextlib.ExitStack() as stack:

        def rounds(id: str, chance: random.Random) -> None:
            first = sessions.start(session(id))
            pid = first.pid
            first.close()
            for number in range(ROUNDS):
                raw = RawClient(sessions.url)
                raw.send(attach_message(id))
                # From before the pid to the midst of the output.
                left = chance.choice([0, 1, chance.randrange(10_000)])
                if left:
                    header, _ = raw.receive()
                    assert header["pid"] == pid
                    assert header["reattached"]
                    raw.send({"type": "stdin"}, b"seq 1000; seq 1000\r")
                while left > 1:
                    left -= len(raw.receive()[1])
                getattr(raw, chance.choice(["reset", "finish", "hang_up"]))()
                client = Client(sessions.start(session(id)))
                try:
                    assert client.process.pid == pid
                    client.run(b"echo round$((%d + 0))" % number, b"round%d" % number)
                finally:
                    client.leave()

        tasks = [
            stack.enter_context(Task(rounds, f"id {i}", random.Random(random.random())))
            for i in range(IDS)
        ]
        for task in tasks:
            task.result(2 * SECONDS)
        assert sessions.server.session_count() == IDS
        sessions.left()


@pytest.mark.parametrize("engine", list(ENGINES))
def test_three_hundred_sessions_held_at_once(engine: str) -> None:
    with server_process(engine) as (pid, url):
        # What a first session needs is not what each one does.
        warm = {ask(url, f"warm {i}", "0") for i in range(10)}
        held = len(warm)
        eventually(lambda: threads(pid) <= 2 + 2 * held, "what is not needed has ended")
        before = memory(pid)
        pids = [ask(url, str(i), "1") for i in range(HELD)]
        assert len(set(pids)) == HELD
        held += HELD
        eventually(lambda: threads(pid) <= 2 + 2 * held, "what is not needed has ended")
        each = (memory(pid) - before) / HELD
        # The commands are its only children, but for the one helper that emulates terminals for
        # all of them.
        others = children(pid) - warm - set(pids)
        assert len(others) <= 1
        assert children(pid) - others == warm | set(pids)
        # All of them are there yet.
        assert [ask(url, str(i), "2") for i in range(HELD)] == pids
        assert each <= 100 * 1024
    gone(*pids, *warm)
