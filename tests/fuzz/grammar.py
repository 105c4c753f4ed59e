"""What a peer might say, from quite right to quite wrong: made from a random number generator."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

from peers import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, mask_bytes

# Where parsers change their minds.
_SIZES = (0, 1, 2, 124, 125, 126, 127, 128, 1000, 63_982, 63_983, 64_000)
_BIG_SIZES = (63_999, 64_001, 65_535, 65_536, 131_072, 200_000)

_BYTES = (0x00, 0x0A, 0x0D, 0x20, 0x22, 0x2C, 0x3A, 0x5B, 0x5C, 0x7B, 0x7D, 0x7F, 0x80, 0xC0, 0xFF)


def mutate(chance: random.Random, data: bytes, most: int = 4) -> bytes:
    """Change some bytes: flipped, replaced, removed, repeated, put in; or cut off."""
    out = bytearray(data)
    for _ in range(chance.randint(1, most)):
        at = chance.randrange(len(out) + 1)
        kind = chance.randrange(7)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << chance.randrange(8)
        elif kind == 1 and at < len(out):
            out[at] = chance.choice(_BYTES)
        elif kind == 2:
            del out[at : at + chance.choice((1, 1, 2, 4, 16))]
        elif kind == 3:
            out[at:at] = out[at : at + chance.choice((1, 2, 8, 32))]
        elif kind == 4:
            out[at:at] = chance.randbytes(chance.choice((1, 1, 2, 4)))
        elif kind == 5:
            out[at:at] = bytes([chance.choice(_BYTES)]) * chance.choice((1, 1, 3, 100))
        elif kind == 6 and chance.random() < 0.3:
            del out[at:]
    return bytes(out)


def text(chance: random.Random) -> str:
    """A string that somebody may not have thought of."""
    kind = chance.randrange(12)
    if kind < 4:
        return chance.choice(("", "x", "a b", "-", "--", "/", "..", "../../etc/passwd", "~", "*"))
    if kind < 6:
        return "".join(chance.choice("abcxyz019_-./ ") for _ in range(chance.randrange(20)))
    if kind == 6:
        return "".join(chr(chance.randrange(1, 0x250)) for _ in range(chance.randrange(10)))
    if kind == 7:
        return chance.choice(("\ud800", "\udc80\udcff", "\U0001f600", "\ufeff", "\u202e", "é" * 70))
    if kind == 8:
        return chance.choice(("\0", "a\0b", "\x1b[2J\x07", "a\r\nb", "\x7f", "%00", "$(true)", "`"))
    if kind == 9:
        return "x" * chance.choice((255, 256, 4096, 5000, 30_000))
    if kind == 10:
        return chance.choice(("=", "A=", "A=B", "=B", "A", "A=B=C", "A\0=B", "PATH=", "PATH=/bin"))
    return chr(chance.randrange(0x10FFFF))


def number(chance: random.Random) -> Any:
    """A number that does for rows, a signal, a user; mostly."""
    kind = chance.randrange(8)
    if kind < 4:
        return chance.randrange(300)
    if kind == 4:
        return chance.choice((-1, 0, 15, 64, 65, 65_535, 65_536, 70_000, 2**31, 2**32 - 1, 2**32))
    if kind == 5:
        return chance.choice((2**63, -(2**63), 2**64, 10**100, -(10**4000)))
    if kind == 6:
        return chance.choice((0.0, 1.5, -0.0, 1e308, float("nan"), float("inf"), -float("inf")))
    return chance.choice((None, True, "24", [24], {}))


def odd(chance: random.Random, depth: int = 3) -> Any:
    """Any value that JSON has."""
    kind = chance.randrange(9)
    if kind < 2:
        return number(chance)
    if kind < 4:
        return text(chance)
    if kind == 4:
        return chance.choice((None, True, False))
    if kind < 7 and depth:
        return [odd(chance, depth - 1) for _ in range(chance.randrange(4))]
    if depth:
        return {text(chance): odd(chance, depth - 1) for _ in range(chance.randrange(4))}
    return ""


def write_json(chance: random.Random, value: Any) -> str:
    """Write JSON, in one of the ways in which it can be, or nearly can be, written."""
    if chance.random() < 0.6:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=chance.random() < 0.5)
    if isinstance(value, dict):
        pairs = []
        for key, item in value.items():
            if chance.random() < 0.2:
                key = chance.choice((key.upper(), key.title(), key.swapcase()))
            pairs.append(f"{json.dumps(key)}{_space(chance)}:{write_json(chance, item)}")
            if chance.random() < 0.1:
                pairs.append(f"{json.dumps(key)}:{write_json(chance, odd(chance))}")
        if chance.random() < 0.1:
            chance.shuffle(pairs)
        if chance.random() < 0.05:
            pairs.append("")  # a comma too many
        return "{" + f"{_space(chance)},".join(pairs) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + f",{_space(chance)}".join(write_json(chance, item) for item in value) + "]"
    if isinstance(value, str):
        return '"' + "".join(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else c for c in value) + '"'
    if isinstance(value, int) and not isinstance(value, bool) and chance.random() < 0.3:
        return chance.choice((f"{value}.0", f"{value}e0", f"0{value}", f"+{value}", f"{value}E400"))
    if chance.random() < 0.02:
        deep = chance.choice((10, 500, 990, 20_000))
        return "[" * deep + "]" * (deep if chance.random() < 0.7 else 0)
    return json.dumps(value)


def _space(chance: random.Random) -> str:
    return chance.choice(("", "", "", " ", "\t", " \r ", "\n", "\f", "\xa0"))


def encode(chance: random.Random, header: Any, body: bytes = b"") -> bytes:
    """Write a message, with its newline or without."""
    newline = "" if not body and chance.random() < 0.3 else "\n"
    text = write_json(chance, header) + newline
    return text.encode(errors="surrogatepass") + body


# Commands that do no harm, whatever becomes of their letters.
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("true",),
    ("true",),
    ("cat",),
    ("cat",),
    ("sleep", "1000"),
    ("/nonexistent/x",),
    ("/",),
    ("/etc/passwd",),
    ("",),
)

# Those that might, if a byte of them were changed, or if they read what is meant for another.
SCRIPTS: tuple[tuple[str, ...], ...] = (
    ("sh", "-c", "exit 3"),
    ("sh", "-c", "echo out; echo err >&2"),
    ("sh", "-c", "kill -9 $$"),
    ("sh", "-c", "printf '\\033[?1049h\\033[2J\\033[31mx'; cat"),
    ("head", "-c", "200000", "/dev/zero"),
)


def start_message(chance: random.Random, right: float = 0.7, scripts: bool = False) -> bytes:
    """A start.

    Args:
        chance: Where everything random comes from.
        right: How probably all values are right ones.
        scripts: Take one of :data:`SCRIPTS`. The bytes must not be mutated.
    """
    command, *args = chance.choice(SCRIPTS if scripts else COMMANDS)
    fields: dict[str, Any] = {"command": command, "args": args}
    header: dict[str, Any] = {"type": "start", "command": fields}
    if chance.random() < 0.6:
        fields["stdin"] = chance.random() < 0.7
    if chance.random() < 0.3:
        fields["tty"] = True
        if chance.random() < 0.5:
            header["id"] = f"s{chance.randrange(4)}"
        if chance.random() < 0.5:
            fields["rows"], fields["cols"] = chance.randrange(500), chance.randrange(500)
    if chance.random() > right:
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            _spoil(chance, header, fields, 5 if scripts else 8)
    if scripts:
        return json.dumps(header).encode()
    return encode(chance, header)


def _spoil(
    chance: random.Random, header: dict[str, Any], fields: dict[str, Any], kinds: int
) -> None:
    kind = chance.randrange(kinds)
    if kind == 0:
        header["id"] = odd(chance) if chance.random() < 0.3 else text(chance)
    elif kind == 1:
        fields[chance.choice(("rows", "cols"))] = number(chance)
    elif kind == 2:
        fields[chance.choice(("uid", "gid"))] = chance.choice((0, 65_534, number(chance)))
    elif kind == 3:
        fields["env"] = [text(chance) for _ in range(chance.randrange(4))]
    elif kind == 4:
        fields["working_dir"] = text(chance)
        # An id of a user's choice on a terminal, too.
        header["id"], fields["tty"] = text(chance), True
    elif kind == 5:
        fields[chance.choice(tuple(fields))] = odd(chance)
    elif kind == 6:
        if fields["command"] == "true":  # which takes any arguments
            fields["args"] = [text(chance) for _ in range(chance.randrange(5))]
    else:
        header[text(chance)] = fields[text(chance)] = odd(chance)


def client_message(chance: random.Random) -> bytes:
    """A message of a client's, mostly a right one."""
    kind = chance.randrange(10)
    if kind < 2:
        return start_message(chance)
    if kind < 5:
        size = chance.choice((0, 1, 5, 100, 5000, chance.choice(_SIZES)))
        body = chance.choice((chance.randbytes(min(size, 100)), b"\x03\x04\x1a", b"ls\r" * size))
        if chance.random() < 0.8:
            return b'{"type":"stdin"}\n' + body[:63_983]
        return encode(chance, {"type": "stdin"}, body)
    if kind == 5:
        return encode(chance, {"type": "close_stdin"})
    if kind == 6:
        return encode(chance, {"type": "resize", "rows": number(chance), "cols": number(chance)})
    if kind == 7:
        signal = chance.choice((0, 1, 9, 15, 28, 64, 65, 999, number(chance)))
        return encode(chance, {"type": "signal", "signal": signal})
    if kind == 8:
        if chance.random() < 0.3:
            stream = chance.choice(("stdout", "stderr", odd(chance)))
            return encode(chance, {"type": "close_output", "stream": stream})
        taken = {"type": "taken", "stdout": number(chance), "stderr": chance.choice((0, None))}
        if chance.random() < 0.3:
            taken["window"] = number(chance)
        return encode(chance, taken)
    return encode(chance, {"type": text(chance), text(chance): odd(chance)})


def server_message(chance: random.Random) -> bytes:
    """A message of a server's, mostly a right one."""
    kind = chance.randrange(9)
    if kind < 2:
        header: dict[str, Any] = {"type": "pid", "pid": chance.choice((1, 4711, number(chance)))}
        if chance.random() < 0.3:
            header["features"] = chance.choice(
                (["signal", "taken", "ended", "close_output"], [], odd(chance))
            )
        if chance.random() < 0.2:
            header["reattached"] = odd(chance)
        return encode(chance, header)
    if kind < 5:
        name = chance.choice(("stdout", "stderr"))
        body = chance.randbytes(chance.choice((0, 1, 80, 1000, chance.choice(_SIZES))))
        return encode(chance, {"type": name}, body[:63_980])
    if kind < 7:
        kind_of_end = chance.choice(("ended", "exit_code", "exit_code"))
        header = {"type": kind_of_end, "exit_code": chance.choice((0, 0, 1, -1, number(chance)))}
        if chance.random() < 0.7:
            header["error"] = chance.choice(("", "exit status 1", "signal: killed", text(chance)))
        if chance.random() < 0.2:
            header["signal"] = number(chance)
        return encode(chance, header)
    if kind == 7:
        return encode(chance, {"type": "taken", "stdin": number(chance), "closed": odd(chance)})
    return encode(chance, {"type": text(chance), text(chance): odd(chance)})


def frame(
    chance: random.Random,
    opcode: int,
    payload: bytes,
    *,
    masked: bool,
    final: bool = True,
    right: bool = True,
) -> bytes:
    """A WebSocket frame (RFC 6455, section 5.2); if not ``right``, one thing may be wrong with it.

    Args:
        chance: Where everything random comes from.
        opcode: 0 to 15.
        payload: Goes in unmasked.
        masked: Whether it should be.
        final: Whether the message ends here.
        right: Leave it as it should be.
    """
    fault = -1 if right else chance.randrange(8)
    reserved = chance.randrange(1, 8) if fault == 0 else 0
    if fault == 1:
        masked = not masked
    length = len(payload)
    if fault == 2:  # a lie
        length = chance.choice((0, 1, length + 1, length - 1, 64_001, 2**31, 2**63 - 1, 2**63))
        length = max(0, length)
    if fault == 3:
        final = not final
    first = (0x80 if final else 0) | reserved << 4 | opcode
    second = 0x80 if masked else 0
    # A fault of 4: the longer forms, for lengths that have a shorter one.
    form = chance.choice((126, 127)) if fault == 4 else length
    if form < 126:
        head = struct.pack("!BB", first, second | length)
    elif (form == 126 or length < 1 << 16) and form != 127:
        head = struct.pack("!BBH", first, second | 126, length & 0xFFFF)
    else:
        head = struct.pack("!BBQ", first, second | 127, length & 0xFFFF_FFFF_FFFF_FFFF)
    if masked:
        key = chance.choice((bytes(4), chance.randbytes(4)))
        head += key
        payload = mask_bytes(payload, key)
    whole = head + payload
    return mutate(chance, whole) if fault >= 6 else whole


def frames(chance: random.Random, message: bytes, *, masked: bool, right: bool) -> bytes:
    """One message as frames: one or several, with control frames in between."""
    opcode = BINARY if chance.random() < 0.9 else TEXT
    out = b""
    pieces = 1 if chance.random() < 0.8 else chance.randint(2, 5)
    step = len(message) // pieces + 1
    for i in range(pieces):
        last = i == pieces - 1
        faulty = not right and chance.random() < 1 / pieces
        out += frame(
            chance,
            opcode if i == 0 else CONTINUATION,
            message[i * step : None if last else (i + 1) * step],
            masked=masked,
            final=last,
            right=not faulty,
        )
        if chance.random() < 0.1:
            out += control(chance, masked=masked, right=right)
    return out


def control(chance: random.Random, *, masked: bool, right: bool) -> bytes:
    """A ping or a pong; if not ``right``, any control frame, and perhaps a bad one."""
    payload = chance.randbytes(chance.choice((0, 0, 1, 8, 125)))
    if right:
        return frame(chance, chance.choice((PING, PONG)), payload, masked=masked)
    opcode = chance.choice((PING, PONG, CLOSE, *range(3, 8), *range(11, 16)))
    if opcode == CLOSE:
        return close(chance, masked=masked)
    if chance.random() < 0.2:
        payload = chance.randbytes(chance.choice((126, 127, 1000)))
    return frame(chance, opcode, payload, masked=masked, right=chance.random() < 0.5)


def close(chance: random.Random, *, masked: bool) -> bytes:
    """A close frame with any code and reason, or none, or half of one."""
    code = chance.choice(
        (
            *(1000, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1011, 1014, 1015, 1016),
            *(0, 999, 2999, 3000, 4999, 5000, 65_535, chance.randrange(65_536)),
        )
    )
    reason = chance.choice((b"", b"", b"bye", b"\xff", b"\xed\xa0\x80", "é".encode() * 61, b"\0"))
    payload = struct.pack("!H", code) + reason
    if chance.random() < 0.2:
        payload = chance.choice((b"", b"\x03", payload + bytes(130)))
    return frame(chance, CLOSE, payload, masked=masked, right=chance.random() < 0.9)


def conversation(chance: random.Random, messages: list[bytes], *, masked: bool) -> bytes:
    """Messages as frames, most of which are right, then one that may not be, then some more."""
    if chance.random() < 0.05:
        return chance.randbytes(chance.choice((1, 2, 10, 100, 1000)))
    wrong_at = chance.randrange(len(messages) + 1) if chance.random() < 0.7 else -1
    out = b""
    for i, message in enumerate(messages):
        if i == wrong_at and chance.random() < 0.3:
            message = b"x" * chance.choice(_BIG_SIZES)
        out += frames(chance, message, masked=masked, right=i != wrong_at)
    if wrong_at == len(messages):
        out += control(chance, masked=masked, right=False)
    elif chance.random() < 0.3:
        out += close(chance, masked=masked)
    if chance.random() < 0.2:
        out = mutate(chance, out)
    return out


def pieces(chance: random.Random, data: bytes) -> list[bytes]:
    """Cut into what is sent at once: mostly all of it, else in some places, or everywhere."""
    kind = chance.random()
    if kind < 0.7 or not data:
        return [data]
    if kind < 0.75 and len(data) < 300:
        return [data[i : i + 1] for i in range(len(data))]
    cuts = sorted(chance.randrange(len(data)) for _ in range(chance.randint(1, 4)))
    return [data[i:j] for i, j in zip([0, *cuts], [*cuts, len(data)], strict=True) if i < j]
