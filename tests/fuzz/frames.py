"""A client's WebSocket frames, against a server in a process of its own."""

from __future__ import annotations

import base64

from peers import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame
from watched import WatchedServer

from fuzz import grammar
from fuzz.campaign import Case, Check
from fuzz.peer import CLOSE_CODES, Peer, check_answer, check_server_frames, parse_frames


def check(server: WatchedServer) -> Check:
    def one(case: Case) -> None:
        chance = case.chance
        messages = [grammar.client_message(chance) for _ in range(chance.randrange(4))]
        if chance.random() < 0.4:
            messages.insert(0, grammar.start_message(chance))
        data = grammar.conversation(chance, messages, masked=True)
        pieces = grammar.pieces(chance, data)
        ending = chance.choice(("finish",) * 8 + ("reset", "leave"))
        case.note("frames", data)
        case.note("in pieces of", [len(piece) for piece in pieces])
        case.note("then", ending)
        # Now and then without waiting for the upgrade, which RFC 6455, section 4.1, forbids: the
        # server may refuse that, or not.
        early = chance.random() < 0.1
        with Peer(server.address) as peer:
            peer.send([handshake(server)])
            if not early:
                assert check_answer(peer.read_head()) == 101
            peer.send(pieces)
            if ending == "reset":
                peer.reset()
            elif ending == "finish":
                peer.finish()
                if not early:
                    _check_close(data, check_server_frames(peer.read_to_end(), peer.broken))
                elif check_answer(peer.read_head()) == 101:
                    check_server_frames(peer.read_to_end(), peer.broken)
        server.check()

    return one


def handshake(server: WatchedServer) -> bytes:
    host, port = server.address
    key = base64.b64encode(bytes(16)).decode()
    return (
        f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    ).encode()


def _check_close(data: bytes, frames: list[Frame]) -> None:
    closed = next((frame.code for frame in frames if frame.opcode == CLOSE), None)
    violation, ours = judge(data)
    # Messages that came before may have been reason enough to close.
    if violation:
        assert closed in CLOSE_CODES, f"{violation}, and it closed with {closed}"
    elif ours is not None:
        assert closed in CLOSE_CODES | {ours}, f"{ours} answered with {closed}"
    else:
        assert closed in CLOSE_CODES | {None}


def judge(data: bytes) -> tuple[str, int | None]:
    """Judge a client's frames by RFC 6455, section 5.

    Returns:
        What is the first thing wrong with them, if anything is; and the code with which a close
        frame before that is to be answered.
    """
    message: bytes | None = None  # of a message that has begun
    is_text = False
    while len(data) >= 2:
        if wrong := _wrong_head(data):
            # What a server sees, it need not see before the head is whole.
            return (wrong if len(data) >= 14 else ""), None
        parsed = next(parse_frames(data), None)
        if parsed is None:
            return "", None
        frame, size = parsed
        data = data[size:]
        if frame.opcode == CLOSE:
            return _judge_close(frame)
        if frame.opcode in (PING, PONG):
            continue
        if (frame.opcode == CONTINUATION) == (message is None):
            return "a fragment out of place", None
        if message is None:
            message, is_text = b"", frame.opcode == TEXT
        message += frame.payload
        if len(message) > 64_000:
            return "a long message", None
        if frame.final:
            if is_text and not _is_utf8(message):
                return "text that is none", None
            message = None
    return "", None


def _wrong_head(data: bytes) -> str:
    first, second = data[:2]
    opcode, short = first & 0xF, second & 0x7F
    if first & 0x70:
        return "a reserved bit"
    if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        return "a reserved opcode"
    if not second & 0x80:
        return "no mask"
    if opcode >= CLOSE and not first & 0x80:
        return "a fragment of a control frame"
    if opcode >= CLOSE and short > 125:
        return "a long control frame"
    if short == 126 and len(data) >= 4 and int.from_bytes(data[2:4], "big") < 126:
        return "a length in a longer form"
    if short == 127 and len(data) >= 10:
        length = int.from_bytes(data[2:10], "big")
        if length < 1 << 16 or length >= 1 << 63:
            return "a length in a longer form, or too long for any"
    return ""


def _judge_close(frame: Frame) -> tuple[str, int | None]:
    if not frame.payload:
        return "", 1000
    code = int.from_bytes(frame.payload[:2], "big")
    if len(frame.payload) == 1 or code < 1000 or code in (1005, 1006, 1015) or code > 4999:
        return "a close code that must not be sent", None
    if not _is_utf8(frame.payload[2:]):
        return "a close reason that is no text", None
    # Others below 3000 are for a later RFC to define.
    return "", code


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
