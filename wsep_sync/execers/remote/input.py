"""The input of a remote command: :class:`RemoteInput`."""

from __future__ import annotations

import contextlib
import errno
import threading

from ... import streams
from ...errors import TransportClosed
from ...protocol.dialogue import CLIENT, ClientDialogue
from ...protocol.messages import (
    MAX_BODY,
    STDIN_HEADER,
    Buffer,
    CloseStdin,
    Echo,
    EchoIs,
    ExitCode,
    ServerMessage,
    StdinTaken,
)
from ...streams.sent_input import SentInput
from ...transports.base import Transport

__all__ = [
    "RemoteInput",
]


class RemoteInput(SentInput):
    """The raw, writable end of a remote command's input.

    It does not refer to its process, so that no cycle keeps a connection's descriptors until the
    garbage collector comes by.

    Args:
        transport: What is written is sent over it.
        dialogue: Knows how much may be.
    """

    _most = MAX_BODY

    def __init__(self, transport: Transport, dialogue: ClientDialogue) -> None:
        self._transport = transport
        self._dialogue = dialogue
        # Guards what the dialogue knows of the input. What else it knows is the receiver's, and for
        # others to read once the process has ended.
        self._changed = threading.Condition()
        self._asking = threading.RLock()  # held by who asks for the echo, until the answer
        self._asked = 0  # how often that was done

    def _send(self, piece: memoryview) -> None:
        dialogue = self._dialogue
        with self._changed:
            while not (dialogue.input_room() or dialogue.input_over):
                streams.wait_a_while(self._changed)
            if dialogue.input_over:
                raise BrokenPipeError(errno.EPIPE, dialogue.input_over)
            dialogue.sent(len(piece))
        try:
            self._transport.send(STDIN_HEADER, piece)
        except TransportClosed as error:
            raise BrokenPipeError(errno.EPIPE, str(error)) from error

    def receive(self, data: Buffer) -> ServerMessage | None:
        """Give the dialogue a message; wake who writes, if more may be sent by it, or no more."""
        with self._changed:
            message = self._dialogue.receive(data)
        if isinstance(message, (StdinTaken, EchoIs, ExitCode)):
            self.wake()
        return message

    def ask_echo(self, on: bool | None) -> bool:
        """Ask whether the terminal shows what is typed, having it do so or not; block till told.

        Raises:
            BrokenPipeError: Nobody tells any more.
        """
        with self._asking:
            try:
                self._transport.send(Echo(on).encode())
            except TransportClosed as error:
                raise BrokenPipeError(errno.EPIPE, str(error)) from error
            # Now: one that was interrupted before it was sent will not be answered.
            self._asked += 1
            with self._changed:
                while self._dialogue.echo.answers < self._asked:
                    if not CLIENT[self._dialogue.state]:
                        raise BrokenPipeError(errno.EPIPE, self._dialogue.input_over)
                    streams.wait_a_while(self._changed)
                return self._dialogue.echo.on

    def lose(self, reason: str) -> None:
        """Tell the dialogue that the connection has ended; wake who writes."""
        with self._changed:
            self._dialogue.lost(reason)
        self.wake()

    def wake(self) -> None:
        """Let who writes look again."""
        with self._changed:
            self._changed.notify_all()
        if self._dialogue.input_over:
            self._end_thread()

    def is_broken(self) -> bool:
        """Whether the command is known to have closed its input, or to have ended."""
        return bool(self._dialogue.input_over)

    def _is_over(self) -> bool:
        # It may be asked by a finalizer, of one whose making was interrupted.
        dialogue = getattr(self, "_dialogue", None)
        return dialogue is None or bool(dialogue.input_over)

    def _thread_died(self, error: Exception) -> None:
        with self._changed:
            self._dialogue.end_input(f"internal error: {type(error).__name__}")
        self.wake()

    def leave_to_parent(self, reason: str) -> None:
        """End this, in a process that was forked: the lock may be held by a thread left behind."""
        self._changed = threading.Condition()
        self._asking = threading.RLock()
        self._dialogue.end_input(reason)
        self.lose(reason)

    def send_eof(self) -> None:
        """Tell the command that its input has ended; a terminal sends its character for that."""
        if not self._is_over():
            with contextlib.suppress(TransportClosed):
                self._transport.send(CloseStdin().encode())
