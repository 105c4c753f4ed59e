"""Both sides of a connection joined in memory, over schedules that hypothesis makes and shortens.

fuzz/dialogue.py tries hundreds of times as many, faster, and shortens none. Besides, each side
alone, against one that says anything.
"""

from __future__ import annotations

import pytest
from fuzz.joined import CLIENTS, FEATURE_SETS, NONSENSE, STATUSES, Joined, Setup
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from wsep_sync.errors import ProtocolError
from wsep_sync.protocol.command import Command
from wsep_sync.protocol.dialogue import (
    EVERYTHING,
    ClientDialogue,
    ClientState,
    ServerDialogue,
    ServerState,
)
from wsep_sync.protocol.messages import (
    STDIN_HEADER,
    STDOUT_HEADER,
    Attach,
    ClientMessage,
    CloseOutput,
    CloseStdin,
    Ended,
    Eof,
    ExitCode,
    Pid,
    Resize,
    Signal,
    Start,
    StdinTaken,
    Taken,
    decode_server_message,
)

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


# A server that says anything

_statuses = st.sampled_from(STATUSES)
_server_says = st.one_of(
    st.sampled_from((Pid(1), Pid(2, ("taken", "ended")), Eof("stdout"))).map(lambda m: m.encode()),
    st.sampled_from((STDOUT_HEADER + b"x", b'{"type":"stderr"}\n', b"{}", b"no message")),
    st.builds(StdinTaken, st.integers(0, 100), st.booleans()).map(lambda m: m.encode()),
    st.builds(Ended, _statuses).map(lambda m: m.encode()),
    _statuses.map(lambda m: m.encode()),
)


@given(st.lists(_server_says, max_size=12), st.booleans())
def test_a_client_is_told_of_no_success_that_is_none(said: list[bytes], begins: bool) -> None:
    client = ClientDialogue()
    client.sent(50)
    statuses: list[ExitCode] = []
    for data in [Pid(1).encode()] * begins + said:
        over = client.state is ClientState.FINISHED
        try:
            message = client.receive(data)
        except ProtocolError:
            refused = _status(data)
            if client.state is not ClientState.ASKED and refused is not None:
                statuses.append(refused)
            break
        assert message is None or not over
        if message is not None and (status := _status(data)) is not None:
            statuses.append(status)
            if isinstance(message, ExitCode):
                assert client.state is ClientState.FINISHED
    client.lost("the server has gone")
    assert client.state in (ClientState.FINISHED, ClientState.LOST)
    assert client.input_over
    if client.status is not None:
        assert set(statuses) == {client.status}
        assert client.missing is None
        assert client.status != STATUSES[3]
    else:
        assert client.missing


def _status(data: bytes) -> ExitCode | None:
    try:
        message = decode_server_message(data)
    except ProtocolError:
        return None
    if isinstance(message, Ended):
        return message.status
    return message if isinstance(message, ExitCode) else None


# A client that says anything, to a command that does

_windows = st.sampled_from((None, 1, 100))
_client_says = st.one_of(
    st.builds(Start, st.builds(Command, st.just("x"), stdin=st.booleans()), window=_windows),
    st.builds(Attach, st.just("x"), window=_windows),
    st.sampled_from((CloseStdin(), Resize(1, 2), Signal(15), Taken())),
    st.builds(Taken, st.sampled_from((None, 0, 1, 200)), st.sampled_from((None, 0)), _windows),
    st.builds(CloseOutput, st.sampled_from(("stdout", "stderr"))),
).map(lambda message: message.encode())
_happens = st.sampled_from(("starts", "prints", "an end", "an error", "ends", "is deaf", "takes"))


@given(
    st.lists(
        st.one_of(
            _client_says,
            st.sampled_from((STDIN_HEADER, STDIN_HEADER + b"x", b"no message", b"{}")),
            _happens,
        ),
        max_size=25,
    ),
    _windows,
    st.booleans(),
)
def test_a_server_refuses_or_does_what_a_client_says(
    steps: list[bytes | str], window: int | None, begins: bool
) -> None:
    server = ServerDialogue()
    start = Start(Command("x", stdin=True), window=window).encode()
    first: list[bytes | str] = [start, "starts"] if begins else []
    said: list[bytes] = []
    order = list(ServerState)
    for step in [*first, *steps]:
        before, refused = order.index(server.state), ""
        try:
            if isinstance(step, str):
                _let(server, step, said)
            else:
                server.receive(step)
        except ProtocolError as error:
            refused = str(error)
        assert order.index(server.state) >= before
        if refused:
            assert server.state is ServerState.CLOSED
            assert str(server.failure) == refused
        said += server.messages()
        if server.state is ServerState.CLOSED:
            break
    server.fail(None)
    kinds = [type(decode_server_message(message)).__name__ for message in said]
    assert kinds[:1] in ([], ["Pid"])
    for kind in ("Pid", "Ended", "ExitCode"):
        assert kinds.count(kind) <= 1
    assert "ExitCode" not in kinds[:-1]
    assert kinds.count("Eof") <= 1  # that of the other shows by the exit status
    assert "Eof" not in kinds[: kinds.index("Ended")] if "Ended" in kinds else "Eof" not in kinds


def _let(server: ServerDialogue, step: str, said: list[bytes]) -> None:
    if step == "starts":
        if server.state is ServerState.STARTING:
            server.started(1, Command("x", stdin=True), FEATURE_SETS[0], False)
            said += server.messages()
            wanted: list[ClientMessage] = list(server.early())
            assert not any(isinstance(message, Signal) for message in wanted)
        return
    if not server.outputs:
        return
    stdout = server.outputs["stdout"]
    if step == "prints":
        room = server.room(stdout)
        assert 0 <= room <= EVERYTHING
        stdout.sent += min(room, 10)
    elif step == "an end":
        server.output_ended(stdout)
    elif step == "an error":
        server.output_ended(server.outputs["stderr"], "")
    elif step == "ends":
        if server.state is ServerState.RUNNING:
            server.ended(STATUSES[1], deaf=True)
    elif step == "is deaf":
        server.input_broken()
    else:
        server.given(1 << 18)
