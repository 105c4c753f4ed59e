"""Both sides of a connection joined in memory, over schedules that hypothesis makes and shortens.

fuzz/dialogue.py tries a hundred thousand times as many, faster, and shortens none.
"""

from __future__ import annotations

import pytest
from fuzz.joined import CLIENTS, FEATURE_SETS, NONSENSE, STATUSES, Joined, Setup
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from wsep_sync.protocol.messages import ExitCode

pytestmark = pytest.mark.thorough

_names = st.sampled_from(("stdout", "stderr"))
_few = st.integers(1, 5)
_output = st.integers(1, 300)
_input = st.sampled_from((1, 100, 64_000, 300_000, 2_000_000))


class Schedule(RuleBasedStateMachine):
    """Each rule is something that may happen next, or does nothing if it cannot."""

    joined: Joined

    @initialize(
        setup=st.builds(
            Setup,
            client=st.sampled_from(CLIENTS),
            window=st.sampled_from((100, 1)),
            features=st.sampled_from(FEATURE_SETS),
            stdin=st.booleans(),
            tty=st.booleans(),
            attach=st.booleans(),
            eager=st.booleans(),
            greedy=st.booleans(),
            capacity=st.sampled_from((1 << 22, 1)),
        ),
        starts=st.sampled_from((True, True, True, False)),
    )
    def begin(self, setup: Setup, starts: bool) -> None:
        self.joined = Joined(setup)
        if starts:
            self.joined.client_starts()

    # The client

    @rule(count=_few)
    def client_receives(self, count: int) -> None:
        self.joined.client_receives(count)

    @rule(name=_names, size=_output)
    def client_reads(self, name: str, size: int) -> None:
        self.joined.client_reads(name, size)

    @rule(size=_input)
    def client_writes(self, size: int) -> None:
        self.joined.client_writes(size)

    @rule()
    def client_ends_input(self) -> None:
        self.joined.client_ends_input()

    @rule()
    def client_resizes(self) -> None:
        self.joined.client_resizes()

    @rule()
    def client_signals(self) -> None:
        self.joined.client_signals()

    @rule()
    def client_says_nothing_new(self) -> None:
        self.joined.client_says_nothing_new()

    @rule(name=_names)
    def client_closes_output(self, name: str) -> None:
        self.joined.client_closes_output(name)

    @rule(how=st.sampled_from(NONSENSE))
    def client_errs(self, how: str) -> None:
        self.joined.client_errs(how)

    @rule()
    def client_leaves(self) -> None:
        self.joined.client_leaves()

    # The server

    @rule(count=_few)
    def server_receives(self, count: int) -> None:
        self.joined.server_receives(count)

    @rule()
    def server_starts(self) -> None:
        self.joined.server_starts()

    @rule()
    def server_cannot_start(self) -> None:
        self.joined.server_cannot_start()

    @rule()
    def server_says(self) -> None:
        self.joined.server_says()

    @rule(name=_names, size=_output)
    def server_prints(self, name: str, size: int) -> None:
        self.joined.server_prints(name, size)

    @rule(name=_names)
    def server_notes_closing(self, name: str) -> None:
        self.joined.server_notes_closing(name)

    @rule()
    def server_goes_away(self) -> None:
        self.joined.server_goes_away()

    @rule()
    def server_has_waited(self) -> None:
        self.joined.server_has_waited()

    # The command

    @rule(name=_names, size=_output)
    def command_prints(self, name: str, size: int) -> None:
        self.joined.command_prints(name, size)

    @rule(name=_names, error=st.sampled_from((None, None, "lost", "")))
    def command_ends_output(self, name: str, error: str | None) -> None:
        self.joined.command_ends_output(name, error)

    @rule(size=_input)
    def command_reads(self, size: int) -> None:
        self.joined.command_reads(size)

    @rule()
    def command_closes_input(self) -> None:
        self.joined.command_closes_input()

    @rule(status=st.sampled_from(STATUSES), deaf=st.booleans())
    def command_ends(self, status: ExitCode, deaf: bool) -> None:
        self.joined.command_ends(status, deaf)

    # The connection

    @rule(kept_by_server=st.integers(0, 3), kept_by_client=st.integers(0, 3))
    def cut(self, kept_by_server: int, kept_by_client: int) -> None:
        self.joined.cut(kept_by_server, kept_by_client)

    def teardown(self) -> None:
        self.joined.run_on()


TestSchedules = Schedule.TestCase
TestSchedules.settings = settings(max_examples=150, stateful_step_count=50)
