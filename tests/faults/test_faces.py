"""A connection that breaks under the faces of subprocess and of pexpect."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pexpect
import pytest
from faults import Site, Step, name
from helpers import SECONDS
from tcp_proxy import BODY, CUTS, DOWN, UP, Fault

import wsep_sync
from wsep_sync.errors import ConnectError, ExitMissing, TransportClosed
from wsep_sync.faces import expect

# It is the kernel that decides here, or another program, and no version of Python.
pytestmark = pytest.mark.long

# Where the connection breaks, and what that raises: nothing, when all is known by then.
BREAKS: dict[Step, type[Exception] | None] = {
    (UP, "request", 1): ConnectError,
    (DOWN, "answer", 1): ConnectError,
    (UP, "start", 1): TransportClosed,
    (DOWN, "pid", 1): TransportClosed,
    (UP, "stdin", 1): ExitMissing,
    (DOWN, "stdout", 1): ExitMissing,
    (DOWN, "exit_code", 1): ExitMissing,
    (UP, "close", 1): None,
}


def raising(error: type[Exception] | None) -> contextlib.AbstractContextManager[Any]:
    return pytest.raises(error) if error else contextlib.nullcontext()


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("step", BREAKS, ids=name)
def test_run(place: Site, step: Step, how: str) -> None:
    with place.proxy(Fault(how, *step, BODY)) as proxy:
        with raising(BREAKS[step]):
            done = wsep_sync.run(
                ["sh", "-c", "cat; exit 3"], input=b"text", capture_output=True, url=proxy.url
            )
            assert (done.returncode, done.stdout) == (3, b"text")
        assert proxy.struck.wait(SECONDS)
        place.settled()


@pytest.mark.parametrize("how", CUTS)
def test_an_output_into_a_file(place: Site, how: str, tmp_path: Path) -> None:
    with place.proxy(Fault(how, DOWN, "stdout", 50, BODY)) as proxy:
        with (tmp_path / "out").open("wb") as out, pytest.raises(ExitMissing):
            wsep_sync.run(["yes"], stdout=out, url=proxy.url)
        place.settled()
        # All that had arrived was written.
        assert (tmp_path / "out").read_bytes() == proxy.passed(DOWN, "stdout")


@pytest.mark.parametrize("how", CUTS)
def test_popen(place: Site, how: str) -> None:
    def client() -> None:
        with wsep_sync.Popen(
            ["sh", "-c", "echo one; read -r line"],
            stdin=wsep_sync.PIPE,
            stdout=wsep_sync.PIPE,
            text=True,
            url=proxy.url,
        ) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "one\n"
            proxy.strike(how)
            with pytest.raises(ExitMissing):
                process.stdout.read()
            for _ in range(2):
                with pytest.raises(ExitMissing):
                    process.wait()
            with pytest.raises(ExitMissing):
                process.poll()
            assert process.returncode is None
            process.kill()
            with pytest.raises(BrokenPipeError):
                print("anybody?", file=process.stdin, flush=True)
            with pytest.raises(ExitMissing):
                process.communicate()
            done.append(True)

    done: list[bool] = []
    with place.proxy() as proxy:
        with contextlib.suppress(ExitMissing):  # of the end of the block, which waits
            client()
        assert done
        place.settled()


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("step", BREAKS, ids=name)
def test_spawn(place: Site, step: Step, how: str) -> None:
    def client() -> None:
        script = "stty -echo; echo ready; read -r line; echo got $line; exit 3"
        child = expect.spawn("sh", ["-c", script], timeout=SECONDS, url=proxy.url)
        try:
            child.expect("ready")
            child.sendline("text")
            child.expect("got text")
            child.expect(pexpect.EOF)
        finally:
            child.close()
        assert child.exitstatus == 3

    with place.proxy(Fault(how, *step, BODY)) as proxy:
        with raising(BREAKS[step]):
            client()
        assert proxy.struck.wait(SECONDS)
        place.settled()
