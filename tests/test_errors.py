"""The exception tree: what callers can catch, and what the exceptions tell them."""

from __future__ import annotations

import builtins
import errno
import pickle
import re
from collections.abc import Iterator

import pytest

from wsep_sync import errors

INSTANCES = [
    errors.WsepError("anything"),
    errors.ProtocolError("no such message", 1002),
    errors.ConnectError("ws://host", "refused", 403),
    errors.TransportClosed(1011, "start command: no command"),
    errors.StartError("no command"),
    errors.StartOSError(errno.ENOEXEC, "Exec format error", "/etc/hostname"),
    errors.StartNotFoundError(errno.ENOENT, "No such file or directory", "nope"),
    errors.StartPermissionError(errno.EACCES, "Permission denied", "secret"),
    errors.StartNotADirectoryError(errno.ENOTDIR, "Not a directory", "/etc/passwd"),
    errors.ExitError(-1, "signal: killed", 9),
    errors.ExitMissing("no exit status"),
    errors.OutputUnread("stderr", 1024),
    errors.SessionClosed("gone"),
    errors.SessionNotFound("build"),
]
DATA = ("close_code", "url", "status", "code", "reason", "exit_code", "signal", "message")
DATA += ("errno", "strerror", "filename", "stream", "limit")


def drawn() -> Iterator[tuple[str, str, list[str]]]:
    """Each exception that the docstring draws, its parent, and what it says it "also" is."""
    parents: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^ {4}((?:[│├└─ ]{4})*)([A-Z]\w+)(.*)$", line)
        if found:
            depth = len(found[1]) // 4
            parents[depth:] = [found[2]]
            also = re.findall(r"also an? (\w+)", found[3])
            yield found[2], parents[depth - 1] if depth else "", also


def data(error: Exception) -> dict[str, object]:
    return {name: getattr(error, name) for name in DATA if hasattr(error, name)}


def test_the_tree_is_as_drawn() -> None:
    tree = list(drawn())
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert {name for name, _, _ in tree} == defined | {"Exception"}
    for name, parent, also in tree[1:]:
        bases = getattr(errors, name).__bases__
        expected = getattr(errors, parent, None) or getattr(builtins, parent)
        assert expected in bases, f"{name} is no {parent}"
        for other in also:
            assert issubclass(getattr(errors, name), getattr(builtins, other))


def test_all_have_an_instance_here() -> None:
    # So that the tests below speak of every exception there is.
    assert {type(error).__name__ for error in INSTANCES} == {name for name, _, _ in drawn()} - {
        "Exception"
    }


@pytest.mark.parametrize("error", INSTANCES, ids=lambda error: type(error).__name__)
def test_survives_pickling(error: errors.WsepError) -> None:
    # concurrent.futures and multiprocessing do that to what a worker raised.
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert data(again) == data(error)


@pytest.mark.parametrize("error", INSTANCES, ids=lambda error: type(error).__name__)
def test_a_copy_is_the_same_without_the_traceback(error: errors.WsepError) -> None:
    try:
        raise error
    except errors.WsepError as caught:
        copy = errors.copy_error(caught)
        assert copy is not error
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert data(copy) == data(error)
        assert copy.__traceback__ is None


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, FileNotFoundError),
        (errno.EACCES, PermissionError),
        (errno.EPERM, PermissionError),
        (errno.ENOTDIR, NotADirectoryError),
        (errno.ENOEXEC, OSError),
        (errno.E2BIG, OSError),
        (errno.ENOMEM, OSError),
    ],
)
def test_a_start_error_is_the_os_error_it_stands_for(number: int, kind: type[OSError]) -> None:
    error = errors.start_error(number, "prog")
    assert isinstance(error, errors.StartError)
    assert isinstance(error, kind)
    assert isinstance(error, OSError)
    assert (error.errno, error.filename) == (number, "prog")
    assert str(error) == str(OSError(number, error.strerror, "prog"))
    assert "'prog'" in str(error)


def test_messages_for_people() -> None:
    assert str(errors.ConnectError("ws://h", "refused")) == "cannot connect to ws://h: refused"
    assert str(errors.TransportClosed(1005)) == "connection closed (1005)"
    assert str(errors.TransportClosed(1011, "why")) == "connection closed (1011): why"
    assert str(errors.ExitError(3)) == "exit status 3"
    assert str(errors.ExitError(-1, "signal: killed", 9)) == "signal: killed"
    assert str(errors.ProtocolError("what", 1009)) == "what"
    assert "stderr" in str(errors.OutputUnread("stderr", 7))


def test_connect_error_is_a_connection_error_without_an_errno() -> None:
    error = errors.ConnectError("ws://host", "refused", 403)
    assert isinstance(error, ConnectionError)
    assert error.status == 403
    # OSError would take its first two arguments for an errno and its words.
    assert error.errno is None
