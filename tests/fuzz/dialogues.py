"""A client's messages that run commands, against a server in a process of its own."""

from __future__ import annotations

import json
import random
import struct

from peers import BINARY, CLOSE, PING, PONG, Frame
from watched import WatchedServer

from fuzz import grammar
from fuzz.campaign import Case, Check
from fuzz.frames import handshake
from fuzz.peer import CLOSE_CODES, Peer, check_answer, check_server_frames

# How the scripts end when nobody disturbs them: the exit code, and the two outputs.
_ENDS = {
    ("sh", "-c", "exit 3"): (3, b"", b""),
    ("sh", "-c", "echo out; echo err >&2"): (0, b"out\n", b"err\n"),
    ("sh", "-c", "kill -9 $$"): (-1, b"", b""),
    ("head", "-c", "200000", "/dev/zero"): (0, bytes(200_000), b""),
    ("cat",): (0, b"input\n" * 100, b""),
}


def check(server: WatchedServer) -> Check:
    def one(case: Case) -> None:
        with Peer(server.address) as peer:
            peer.send([handshake(server)])
            assert check_answer(peer.read_head()) == 101
            if case.chance.random() < 0.2:
                _undisturbed(case, peer)
            else:
                _anything(case, peer)
        server.check()

    return one


def _undisturbed(case: Case, peer: Peer) -> None:
    """Run a command whose end is known, and see that it is that."""
    argv = case.chance.choice(tuple(_ENDS))
    case.note("runs", argv)
    command = {"command": argv[0], "args": argv[1:], "stdin": True}
    _send(case, peer, json.dumps({"type": "start", "command": command}).encode())
    for _ in range(100 if argv == ("cat",) else 0):
        _send(case, peer, b'{"type":"stdin"}\ninput\n')
    _send(case, peer, b'{"type":"close_stdin"}\n')
    frames: list[Frame] = []
    while True:
        frame = peer.read_frame()
        assert frame is not None, frames
        frames.append(frame)
        if frame.opcode == CLOSE or b'"exit_code"' in frame.payload[:30]:
            break
    _send_close(case, peer, 1000)
    peer.finish()
    frames += check_server_frames(peer.read_to_end(), peer.broken)
    code, out, err = _check_order(frames)
    assert (code, out, err) == _ENDS[argv]
    assert frames[-1].opcode == CLOSE, frames
    assert frames[-1].code == 1000


def _anything(case: Case, peer: Peer) -> None:
    """Say this and that, in any order, and leave in any way."""
    chance = case.chance
    frames: list[Frame] = []
    if chance.random() < 0.85:
        scripts = chance.random() < 0.4
        _send(case, peer, grammar.start_message(chance, 0.6, scripts))
    for number in range(chance.randrange(8)):
        if chance.random() < 0.3:
            # What is answered to this has seen all that was said before.
            token = struct.pack("!I", number)
            case.note("waits for", token)
            peer.send([grammar.frame(chance, PING, token, masked=True)])
            while (frame := peer.read_frame()) is not None:
                frames.append(frame)
                if frame.opcode == CLOSE or (frame.opcode, frame.payload) == (PONG, token):
                    break
        _send(case, peer, grammar.client_message(chance))
    ending = chance.choice(("close", "close", "finish", "finish", "reset", "leave"))
    case.note("then", ending)
    if ending == "close":
        _send_close(case, peer, chance.choice((1000, 1001, 1011, 4000)))
    if ending == "reset":
        peer.reset()
    elif ending != "leave":
        peer.finish()
        frames += check_server_frames(peer.read_to_end(), peer.broken)
        _check_order(frames)


def _send(case: Case, peer: Peer, message: bytes) -> None:
    case.note("sends", message)
    peer.send([grammar.frames(case.chance, message, masked=True, right=True)])


def _send_close(case: Case, peer: Peer, code: int) -> None:
    case.note("closes with", code)
    payload = struct.pack("!H", code)
    peer.send([grammar.frame(random.Random(0), CLOSE, payload, masked=True)])


def _check_order(frames: list[Frame]) -> tuple[int | None, bytes, bytes]:
    """See that the messages came in an order that the protocol allows.

    Returns:
        The exit code, if there was one, and the two outputs.
    """
    code = None
    outputs = {"stdout": b"", "stderr": b""}
    started = False
    for frame in frames:
        if frame.opcode == CLOSE:
            assert frame.code in CLOSE_CODES | {4000}, frame
        if frame.opcode != BINARY:
            continue
        head, _, body = frame.payload.partition(b"\n")
        header = json.loads(head)
        kind = header["type"]
        assert started == (kind != "pid"), frames
        # Input that comes too late is answered as any other.
        assert code is None or kind == "taken", frames
        started = True
        if kind in outputs:
            outputs[kind] += body
        elif kind == "exit_code":
            code = header["exit_code"]
    return code, outputs["stdout"], outputs["stderr"]
