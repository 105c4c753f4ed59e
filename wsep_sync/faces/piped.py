"""The files that people get for a command's piped streams: :class:`Piped`."""

from __future__ import annotations

import codecs
import io
import subprocess
import sys
from typing import IO, Any, cast

from ..lazy import importing
from ..streams.files import Reader, TextFile, Writer
from .copying import WatchedReader

__all__ = [
    "Piped",
]

# As the streams of a process have it.
_READ_BUFFER = 1 << 16


class Piped:
    """How the piped streams are buffered and coded; the arguments are Popen's.

    The files are our own: when its last user drops one, nobody reads any more, while a process
    holds its own files for as long as it runs.
    """

    def __init__(
        self,
        bufsize: int | None,
        text: bool | None,
        universal_newlines: bool | None,
        encoding: str | None,
        errors: str | None,
    ) -> None:
        if bufsize is None:
            bufsize = -1
        if not isinstance(bufsize, int):
            raise TypeError("bufsize must be an integer")
        if bufsize > sys.maxsize:
            raise OverflowError(f"bufsize is too large: {bufsize}")
        if text is not None and universal_newlines is not None and text != universal_newlines:
            raise subprocess.SubprocessError("text and universal_newlines contradict each other")
        self._bufsize = bufsize
        self.text = bool(text or universal_newlines or encoding or errors)
        self._encoding = encoding or (_locale_encoding() if self.text else None)
        self._errors = errors
        if self._encoding is not None:
            codecs.lookup(self._encoding)  # raises LookupError before anything runs

    def writer(self, file: io.BufferedWriter) -> IO[Any]:
        """Return what writes to a process's input, in place of its own file."""
        raw = file.detach()
        size = self._bufsize if self._bufsize > 1 else io.DEFAULT_BUFFER_SIZE
        binary: Any = raw if self._bufsize == 0 else Writer(raw, size)
        if not self.text:
            return cast("IO[Any]", binary)
        return TextFile(
            binary,
            self._encoding,
            self._errors,
            line_buffering=self._bufsize == 1,
            write_through=True,
        )

    def reader(self, file: io.BufferedReader) -> IO[Any]:
        """Return what reads a process's output, in place of its own file."""
        raw = file.detach()
        if self._bufsize == 0 and not self.text:
            return cast("IO[Any]", raw)
        size = self._bufsize if self._bufsize > 1 else _READ_BUFFER
        if self.text:
            return TextFile(WatchedReader(raw, size), self._encoding, self._errors)
        return Reader(raw, size)


def _locale_encoding() -> str:
    with importing:
        import locale  # takes its time

    # Named, because a TextIOWrapper without a name may ask for the file's descriptor.
    return locale.getpreferredencoding(False)
