"""Popen's constructor: everything but the streams."""

from __future__ import annotations

import gc
import os
import warnings
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT
from typing import Any

import pytest
from faces import Face

from popen_cases.cases import case, raised, reap


@case
def cwd(face: Face, tmp: Path) -> Any:
    kinds = (tmp, str(tmp), os.fsencode(tmp))
    return [face.run(["pwd", "-P"], cwd=kind, stdout=PIPE) for kind in kinds]


@case
def cwd_that_is_missing(face: Face, tmp: Path) -> Any:
    return face.run(["true"], cwd=str(tmp / "missing"))


@case
def cwd_that_is_empty(face: Face, tmp: Path) -> Any:
    return face.run(["true"], cwd="")


@case
def cwd_that_is_a_file(face: Face, tmp: Path) -> Any:
    (tmp / "file").write_text("")
    return face.run(["true"], cwd=str(tmp / "file"))


@case
def cwd_and_a_relative_program(face: Face, tmp: Path) -> Any:
    (tmp / "script").write_text("#!/bin/sh\necho here\n")
    (tmp / "script").chmod(0o700)
    return face.run(["./script"], cwd=tmp, stdout=PIPE)


@case
def env(face: Face, tmp: Path) -> Any:
    options = face.more(A="1", B="a b\nc", C="")
    return face.run(["sh", "-c", 'echo "$A|$B|$C|${HOME:+home}"'], stdout=PIPE, **options)


@case
def env_of_bytes(face: Face, tmp: Path) -> Any:
    options = face.only(A=b"\xff", PATH=os.environ["PATH"])
    return face.run(["printenv", "A"], stdout=PIPE, **options)


@case
def env_alone(face: Face, tmp: Path) -> Any:
    done = face.run(["/usr/bin/env"], stdout=PIPE, **face.only(A="1", B="x y", HOME="é"))
    return sorted(done.stdout.splitlines())


@case
def env_of_nothing(face: Face, tmp: Path) -> Any:
    return face.run(["/usr/bin/env"], stdout=PIPE, **face.only())


@case
def env_alone_and_the_search_for_a_program(face: Face, tmp: Path) -> Any:
    (tmp / "program").write_text("#!/bin/sh\necho found\n")
    (tmp / "program").chmod(0o700)
    return [
        face.run(["program"], stdout=PIPE, **face.only(PATH=f"/none:{tmp}")),
        raised(face.run, ["program"], stdout=PIPE, **face.only(PATH="/none")),
        raised(face.run, ["program"], stdout=PIPE, **face.only()),
    ]


@case
def env_alone_with_both_in_one(face: Face, tmp: Path) -> Any:
    options = face.only(A="1")
    return face.run(["/usr/bin/env"], stdout=PIPE, stderr=STDOUT, **options)


@case
def env_with_names_that_are_none(face: Face, tmp: Path) -> Any:
    return raised(face.run, ["true"], env={"a=b": "1"}), raised(face.run, ["true"], env={"a": "\0"})


@case
def executable_is_the_program(face: Face, tmp: Path) -> Any:
    return face.run(["/bin/echo", "a"], executable="/bin/echo", stdout=PIPE)


@case
def umask(face: Face, tmp: Path) -> Any:
    done = face.run(["sh", "-c", "umask; : > file"], umask=0o027, cwd=tmp, stdout=PIPE)
    return done, oct((tmp / "file").stat().st_mode)


@case
def umask_of_a_missing_command(face: Face, tmp: Path) -> Any:
    return face.run(["no-such-command"], umask=0o027, capture_output=True)


@case
def umask_leaves_the_streams_alone(face: Face, tmp: Path) -> Any:
    options = {"umask": 0o077, "capture_output": True, "input": b"in"}
    return [face.run(["sh", "-c", "cat; echo e >&2"], bufsize=n, **options) for n in (-1, 0, 100)]


@case
def start_new_session(face: Face, tmp: Path) -> Any:
    with face.Popen(["cat"], start_new_session=True, stdin=PIPE) as process:
        return os.getsid(process.pid) == process.pid, os.getpgid(process.pid) == process.pid


@case
def group_and_user(face: Face, tmp: Path) -> Any:
    script = "id -u; id -g"
    with_both = {"user": 65534, "group": 65533, "extra_groups": []}
    if not face.is_subprocess:
        del with_both["extra_groups"]
    return [
        face.run(["sh", "-c", script], user=65534, stdout=PIPE),
        face.run(["sh", "-c", script], group=65533, stdout=PIPE),
        face.run(["sh", "-c", script], stdout=PIPE, **with_both),
    ]


@case
def group_and_user_that_are_none(face: Face, tmp: Path) -> Any:
    return [
        raised(face.run, ["true"], **{name: who})
        for name in ("user", "group")
        for who in (-1, 1.5, b"root")
    ]


@case
def children_do_not_ignore_sigpipe(face: Face, tmp: Path) -> Any:
    script = "grep SigIgn /proc/self/status; ls /proc/self/fd"
    return face.run(["sh", "-c", script], stdin=DEVNULL, capture_output=True, text=True)


@case
def popen_is_a_context_manager(face: Face, tmp: Path) -> Any:
    with face.Popen(["cat"], stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        before = process.returncode
    streams = process.stdin, process.stdout, process.stderr
    return before, process.returncode, [stream.closed for stream in streams]


@case
def popen_leaves_its_block_by_an_exception(face: Face, tmp: Path) -> Any:
    with pytest.raises(ZeroDivisionError), face.Popen(["cat"], stdin=PIPE) as process:
        raise ZeroDivisionError
    return process.returncode


@case
def popen_leaves_its_block_with_output_unread(face: Face, tmp: Path) -> Any:
    # Closing the output is what ends this.
    with face.Popen(["yes"], stdout=PIPE) as process:
        process.stdout.readline()
    return process.returncode


@case
def popen_leaves_its_block_with_input_unread(face: Face, tmp: Path) -> Any:
    with face.Popen(["sh", "-c", "exec 0<&-; echo closed"], stdin=PIPE, stdout=PIPE) as process:
        process.stdout.readline()
        process.wait()
        process.stdin.write(b"x")
        return raised(process.stdin.close)


@case
def popen_in_words(face: Face, tmp: Path) -> Any:
    with face.Popen(["cat"], stdin=PIPE) as process:
        before = repr(process)
    return before, repr(process)


@case
def popen_in_words_is_not_too_long(face: Face, tmp: Path) -> Any:
    with face.Popen(["true", *map(str, range(100))]) as process:
        pass
    return repr(process)


@case
def popen_that_is_dropped(face: Face, tmp: Path) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        process = face.Popen(["cat"], stdin=PIPE, stdout=PIPE)
        pid, stdin, stdout = process.pid, process.stdin, process.stdout
        del process
        gc.collect()
        categories = {w.category for w in caught}
        caught.clear()  # a warning has its source
        with stdin, stdout:
            # The command runs on, and so do the streams.
            stdin.write(b"still there")
            stdin.close()
            out = stdout.read()
        reap(face, pid)
        return categories, out


@case
def popen_that_is_dropped_at_once(face: Face, tmp: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with face.Popen(["sh", "-c", "echo $$; seq 100000"], stdout=PIPE, text=True).stdout as out:
            pid = int(out.readline())
            lines = list(out)
        gc.collect()
        reap(face, pid)
        return len(lines)


@case
def popen_that_has_ended_can_be_dropped(face: Face, tmp: Path) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        process = face.Popen(["true"], stdin=PIPE)
        process.wait()
        process.stdin.close()
        del process
        gc.collect()
    return caught
