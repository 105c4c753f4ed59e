"""Popen objects."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT
from typing import Any

from faces import Face
from helpers import Task, blocked

from popen_cases.cases import case, piped, raised, timed_out


@case
def args_are_as_given(face: Face, tmp: Path) -> Any:
    with face.Popen("exit 0", shell=True) as one, face.Popen(("true",)) as other:
        return one.args, other.args


@case
def pid_is_the_command_s(face: Face, tmp: Path) -> Any:
    with face.Popen(["sh", "-c", "echo $$"], stdout=PIPE) as process:
        return int(process.stdout.read()) == process.pid


@case
def streams_are_none_unless_piped(face: Face, tmp: Path) -> Any:
    with face.Popen(["true"], stdin=DEVNULL, stderr=STDOUT) as process:
        return process.stdin, process.stdout, process.stderr


@case
def returncode_is_none_until_somebody_looks(face: Face, tmp: Path) -> Any:
    with face.Popen(["true"], stdout=PIPE) as process:
        process.stdout.read()
        before = process.returncode
        process.wait()
        return before, process.returncode


@case
def poll(face: Face, tmp: Path) -> Any:
    with face.Popen(["sh", "-c", "read line; exit 3"], stdin=PIPE) as process:
        before = process.poll()
        process.stdin.close()
        while process.poll() is None:
            time.sleep(0.001)
        return before, process.poll(), process.returncode


@case
def wait(face: Face, tmp: Path) -> Any:
    with face.Popen(["sh", "-c", "exit 3"]) as process:
        return process.wait(), process.wait(), process.wait(timeout=0), process.returncode


@case
def wait_with_a_timeout(face: Face, tmp: Path) -> Any:
    with face.Popen(["cat"], stdin=PIPE) as process:
        expired = [raised(process.wait, timeout) for timeout in (0, 0.01, -1)]
        process.stdin.close()
        return expired, process.wait(timeout=30)


@case
def wait_in_two_threads(face: Face, tmp: Path) -> Any:
    with (
        face.Popen(["sh", "-c", "read line; exit 3"], stdin=PIPE) as process,
        Task(process.wait) as one,
        Task(process.wait, 30) as other,
    ):
        blocked(one)
        process.stdin.close()
        return one.result(), other.result(), process.returncode


@case
def communicate(face: Face, tmp: Path) -> Any:
    with face.Popen(
        ["sh", "-c", "cat; echo err >&2"], stdin=PIPE, stdout=PIPE, stderr=PIPE
    ) as process:
        results = process.communicate(b"in")
        streams = process.stdin, process.stdout, process.stderr
        return results, process.returncode, [stream.closed for stream in streams]


@case
def communicate_with_nothing_piped(face: Face, tmp: Path) -> Any:
    with face.Popen(["sh", "-c", "exit 3"]) as process:
        return process.communicate(), process.returncode


@case
def communicate_with_one_output(face: Face, tmp: Path) -> Any:
    results = []
    for name in ("stdout", "stderr"):
        with face.Popen(["sh", "-c", "echo out; echo err >&2"], **_others(name)) as process:
            results.append(process.communicate())
    return results


def _others(name: str) -> dict[str, int]:
    return {"stdout": DEVNULL, "stderr": DEVNULL, name: PIPE}


@case
def communicate_with_input_alone(face: Face, tmp: Path) -> Any:
    with face.Popen(["sh", "-c", "exit $(wc -c)"], stdin=PIPE) as process:
        return process.communicate(b"abc"), process.returncode


@case
def communicate_without_input(face: Face, tmp: Path) -> Any:
    with face.Popen(["cat"], stdin=PIPE, stdout=PIPE) as process:
        return process.communicate()


@case
def communicate_text(face: Face, tmp: Path) -> Any:
    with face.Popen(["cat"], stdin=PIPE, stdout=PIPE, text=True) as process:
        return process.communicate("a\né\n")


@case
def communicate_a_lot_both_ways(face: Face, tmp: Path) -> Any:
    data = os.urandom(1 << 16) * 64
    with face.Popen(["sh", "-c", "tee /dev/stderr"], **piped()) as process:
        out, err = process.communicate(data)
        return len(out), out == data, err == data


@case
def communicate_input_that_nobody_reads(face: Face, tmp: Path) -> Any:
    with face.Popen(["sh", "-c", "exit 5"], **piped()) as process:
        return process.communicate(bytes(1 << 22)), process.returncode


@case
def communicate_after_writing(face: Face, tmp: Path) -> Any:
    with face.Popen(["cat"], stdin=PIPE, stdout=PIPE, text=True) as process:
        process.stdin.write("first ")
        return process.communicate("second")


@case
def communicate_input_of_the_wrong_type(face: Face, tmp: Path) -> Any:
    results = []
    for text, data in ((False, "str"), (True, b"bytes"), (False, 5)):
        with face.Popen(["cat"], stdin=PIPE, text=text) as process:
            results.append(raised(process.communicate, data))
    return results


@case
def communicate_again_after_a_timeout(face: Face, tmp: Path) -> Any:
    script = "cat > /dev/null; echo one; read line < fifo; echo two"
    os.mkfifo(tmp / "fifo")
    with face.Popen(["sh", "-c", script], **piped(), cwd=tmp) as process:
        expired = [type(timed_out(process, b"in")), raised(process.communicate, b"more")]
        expired.append(type(timed_out(process)))
        (tmp / "fifo").write_text("go on\n")
        return expired, process.communicate(timeout=30)


@case
def communicate_again_after_killing(face: Face, tmp: Path) -> Any:
    with face.Popen(["sh", "-c", "echo a; exec sleep 1000"], stdout=PIPE, text=True) as process:
        while not timed_out(process).output:
            pass
        process.kill()
        return process.communicate(), process.returncode


@case
def communicate_leaves_the_block_unfinished(face: Face, tmp: Path) -> Any:
    os.mkfifo(tmp / "fifo")
    script = "echo a; echo b >&2; read line < fifo; exit 6"
    with face.Popen(["sh", "-c", script], **piped(), cwd=tmp) as process:
        expired = timed_out(process)
        (tmp / "fifo").write_text("go on\n")
    return type(expired), process.returncode


@case
def send_signal(face: Face, tmp: Path) -> Any:
    codes = []
    for number in (signal.SIGTERM, signal.SIGINT, 1, signal.SIGUSR1):
        with face.Popen(["sleep", "1000"]) as process:
            process.send_signal(number)
            codes.append(process.wait())
    return codes


@case
def send_signal_that_is_caught(face: Face, tmp: Path) -> Any:
    script = 'trap "echo caught; exit 4" USR1; echo ready; read line < fifo'
    os.mkfifo(tmp / "fifo")
    # The fifo's other end, lest opening it block; a shell acts when a read is interrupted.
    keep = os.open(tmp / "fifo", os.O_RDWR)
    try:
        with face.Popen(["sh", "-c", script], stdout=PIPE, cwd=tmp) as process:
            ready = process.stdout.readline()
            process.send_signal(signal.SIGUSR1)
            return ready, process.communicate(), process.returncode
    finally:
        os.close(keep)


@case
def send_signal_that_is_no_number(face: Face, tmp: Path) -> Any:
    with face.Popen(["cat"], stdin=PIPE) as process:
        return process.send_signal("15")


@case
def send_signal_after_the_end(face: Face, tmp: Path) -> Any:
    with face.Popen(["true"]) as process:
        process.wait()
        return process.send_signal(signal.SIGTERM), process.terminate(), process.kill()


@case
def send_signal_0_asks_only(face: Face, tmp: Path) -> Any:
    with face.Popen(["cat"], stdin=PIPE) as process:
        process.send_signal(0)
    return process.returncode


@case
def terminate(face: Face, tmp: Path) -> Any:
    with face.Popen(["sleep", "1000"], stdout=PIPE) as process:
        process.terminate()
        return process.communicate(), process.returncode


@case
def kill(face: Face, tmp: Path) -> Any:
    script = "trap '' TERM; echo ready; exec sleep 1000"
    with face.Popen(["sh", "-c", script], stdout=PIPE) as process:
        process.stdout.readline()
        process.terminate()
        process.kill()
        return process.wait()


@case
def subclasses_are_asked(face: Face, tmp: Path) -> Any:
    asked: set[Any] = set()

    class Asked(face.Popen.func):  # type: ignore[misc, name-defined]
        def wait(self, timeout: float | None = None) -> Any:
            asked.add("wait")
            return super().wait(timeout)

        def send_signal(self, sig: int) -> None:
            asked.add(int(sig))
            super().send_signal(sig)

    seen = []
    for options in ({}, {"stdout": PIPE}, piped()):
        with Asked(["cat"], **{"stdin": PIPE, **options}, **face.options) as process:
            asked.clear()
            process.communicate(timeout=30)
            seen.append(sorted(asked))
    for end in ("kill", "terminate"):
        with Asked(["cat"], stdin=PIPE, **face.options) as process:
            asked.clear()
            getattr(process, end)()
            seen.append(sorted(asked))
            seen.append([process.wait()])
    return seen


@case
def send_signal_that_is_none(face: Face, tmp: Path) -> Any:
    with face.Popen(["cat"], stdin=PIPE) as process:
        return [raised(process.send_signal, number) for number in (65, 999, -1)]


@case
def classes_have_parameters(face: Face, tmp: Path) -> Any:
    alias = face.Popen.func[bytes]
    return type(alias), alias.__args__, alias.__origin__ is face.Popen.func
