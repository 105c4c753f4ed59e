"""run(), what it returns, and what stands for an output."""

from __future__ import annotations

import contextlib
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, CompletedProcess, TimeoutExpired
from typing import Any

from faces import Face
from helpers import gone

from popen_cases.cases import case

# run()


@case
def run_a_list(face: Face, tmp: Path) -> Any:
    return face.run(["echo", "a  b", "c"], stdout=PIPE)


@case
def run_a_string(face: Face, tmp: Path) -> Any:
    return face.run("true", stdout=PIPE)


@case
def run_a_string_with_spaces_is_one_name(face: Face, tmp: Path) -> Any:
    return face.run("echo a", stdout=PIPE)


@case
def run_a_tuple(face: Face, tmp: Path) -> Any:
    return face.run(("echo", "a"), stdout=PIPE)


@case
def run_bytes(face: Face, tmp: Path) -> Any:
    return face.run([b"echo", b"\xff\xfe"], stdout=PIPE)


@case
def run_a_path(face: Face, tmp: Path) -> Any:
    (tmp / "script").write_text('#!/bin/sh\necho "$0" "$@"\n')
    (tmp / "script").chmod(0o700)
    return face.run([tmp / "script", tmp], stdout=PIPE), face.run(tmp / "script", stdout=PIPE)


@case
def run_with_odd_arguments(face: Face, tmp: Path) -> Any:
    arguments = ["", " ", "'", '"', "\\", "$x", "\n", "*", "é", "-n", "--"]
    return face.run(["printf", "<%s>", *arguments], stdout=PIPE)


@case
def run_without_capturing(face: Face, tmp: Path) -> Any:
    return face.run(["sh", "-c", "exit 3"])


@case
def run_with_check(face: Face, tmp: Path) -> Any:
    return face.run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=True, capture_output=True)


@case
def run_with_check_and_success(face: Face, tmp: Path) -> Any:
    return face.run(["true"], check=True)


@case
def run_with_capture_output(face: Face, tmp: Path) -> Any:
    return face.run(["sh", "-c", "echo out; echo err >&2"], capture_output=True)


@case
def run_with_capture_output_and_stdout(face: Face, tmp: Path) -> Any:
    return face.run(["true"], capture_output=True, stdout=PIPE)


@case
def run_with_capture_output_and_stderr(face: Face, tmp: Path) -> Any:
    return face.run(["true"], capture_output=True, stderr=DEVNULL)


@case
def run_with_input(face: Face, tmp: Path) -> Any:
    return face.run(["cat"], input=b"a\0b\r\n", stdout=PIPE)


@case
def run_with_input_of_other_types(face: Face, tmp: Path) -> Any:
    return [face.run(["cat"], input=kind(b"abc"), stdout=PIPE) for kind in (bytearray, memoryview)]


@case
def run_with_text_input(face: Face, tmp: Path) -> Any:
    return face.run(["cat"], input="aé\n", stdout=PIPE, text=True)


@case
def run_with_empty_input(face: Face, tmp: Path) -> Any:
    return face.run(["cat"], input=b"", stdout=PIPE)


@case
def run_with_input_and_stdin(face: Face, tmp: Path) -> Any:
    return face.run(["cat"], input=b"", stdin=PIPE)


@case
def run_with_input_nobody_reads(face: Face, tmp: Path) -> Any:
    return face.run(["true"], input=bytes(1 << 20), stdout=PIPE)


@case
def run_with_input_half_read(face: Face, tmp: Path) -> Any:
    return face.run(["head", "-c", "5"], input=b"0123456789" * 100_000, stdout=PIPE)


@case
def run_in_time(face: Face, tmp: Path) -> Any:
    return face.run(["echo", "a"], stdout=PIPE, timeout=30)


@case
def run_out_of_time(face: Face, tmp: Path) -> Any:
    return face.run(["sleep", "1000"], timeout=0.05)


def _until_told(face: Face, tmp: Path, **options: Any) -> Any:
    """Run something that writes and then sleeps, with a timeout that it reaches for sure."""
    for timeout in (0.2, 1, 5):  # a slow machine may not get to writing
        script = "echo out; printf errö >&2; exec sleep 1000"
        with contextlib.suppress(FileNotFoundError):
            (tmp / "pid").unlink()
        try:
            face.run(["sh", "-c", f"echo $$ > {tmp / 'pid'}; {script}"], timeout=timeout, **options)
        except TimeoutExpired as error:
            pid = (tmp / "pid").read_text() if (tmp / "pid").exists() else ""
            if error.stderr or (not options and pid):
                gone(int(pid))
                error.cmd, error.timeout = "", 0
                return error
    return "never wrote anything"


@case
def run_out_of_time_has_the_output_so_far(face: Face, tmp: Path) -> Any:
    return _until_told(face, tmp, capture_output=True)


@case
def run_out_of_time_has_bytes_even_of_text(face: Face, tmp: Path) -> Any:
    return _until_told(face, tmp, capture_output=True, text=True)


@case
def run_out_of_time_ends_the_command(face: Face, tmp: Path) -> Any:
    return _until_told(face, tmp, stderr=PIPE)


@case
def run_out_of_time_with_input(face: Face, tmp: Path) -> Any:
    return face.run(["sleep", "1000"], input=bytes(1 << 22), stdout=PIPE, timeout=0.05)


# CompletedProcess


@case
def completed_process_is_subprocess_s(face: Face, tmp: Path) -> Any:
    return type(face.run(["true"])) is CompletedProcess


@case
def completed_process_has_the_args(face: Face, tmp: Path) -> Any:
    return face.run(["echo", "a"], stdout=PIPE).args, face.run("exit 1", shell=True).args


@case
def completed_process_of_a_signal(face: Face, tmp: Path) -> Any:
    return [face.run(["sh", "-c", f"kill -{n} $$"]).returncode for n in ("KILL", "TERM", "HUP")]


@case
def completed_process_with_both_in_one(face: Face, tmp: Path) -> Any:
    done = face.run(["sh", "-c", "echo out; echo err >&2"], stdout=PIPE, stderr=STDOUT)
    return done.stdout, done.stderr


@case
def completed_process_check_returncode(face: Face, tmp: Path) -> Any:
    return face.run(["true"]).check_returncode(), face.run(["false"]).check_returncode()


@case
def completed_process_every_status(face: Face, tmp: Path) -> Any:
    return [face.run(["sh", "-c", f"exit {n}"]).returncode for n in (0, 1, 2, 126, 127, 255)]


# DEVNULL, PIPE, STDOUT


@case
def devnull_as_stdin(face: Face, tmp: Path) -> Any:
    return face.run(["cat"], stdin=DEVNULL, stdout=PIPE)


@case
def devnull_as_outputs(face: Face, tmp: Path) -> Any:
    script = "echo out; echo err >&2; exit 4"
    return face.run(["sh", "-c", script], stdout=DEVNULL, stderr=DEVNULL)


@case
def devnull_takes_any_amount(face: Face, tmp: Path) -> Any:
    script = "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 4"
    return face.run(["sh", "-c", script], stdout=DEVNULL, stderr=DEVNULL)


@case
def devnull_as_one_output(face: Face, tmp: Path) -> Any:
    script = "head -c 300000 /dev/zero >&2; echo out"
    return face.run(["sh", "-c", script], stdout=PIPE, stderr=DEVNULL)


@case
def stdout_as_stderr_keeps_the_order(face: Face, tmp: Path) -> Any:
    script = "for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done"
    return face.run(["sh", "-c", script], stdout=PIPE, stderr=STDOUT)


@case
def stdout_as_stderr_in_a_file(face: Face, tmp: Path) -> Any:
    with open(tmp / "both", "wb") as both:
        done = face.run(["sh", "-c", "echo out; echo err >&2"], stdout=both, stderr=STDOUT)
    return done, (tmp / "both").read_bytes()


@case
def stdout_as_stderr_to_nowhere(face: Face, tmp: Path) -> Any:
    return face.run(["sh", "-c", "echo out; echo err >&2"], stdout=DEVNULL, stderr=STDOUT)


@case
def stdout_as_stderr_of_a_missing_command(face: Face, tmp: Path) -> Any:
    return face.run(["no-such-command", "x"], stdout=PIPE, stderr=STDOUT)


@case
def stdout_as_stderr_of_a_missing_file(face: Face, tmp: Path) -> Any:
    return face.run(["./missing"], stdout=PIPE, stderr=STDOUT, cwd=tmp)


@case
def stdout_as_stderr_of_a_file_without_permission(face: Face, tmp: Path) -> Any:
    (tmp / "plain").write_text("#!/bin/sh\n")
    return face.run([tmp / "plain"], stdout=PIPE, stderr=STDOUT)


@case
def stdout_as_stderr_in_a_missing_directory(face: Face, tmp: Path) -> Any:
    return face.run(["true"], stdout=PIPE, stderr=STDOUT, cwd=tmp / "missing")


@case
def stdout_as_stderr_keeps_the_status(face: Face, tmp: Path) -> Any:
    codes = ["exit 0", "exit 7", "exit 127", "kill -TERM $$"]
    return [face.run(["sh", "-c", c], stdout=PIPE, stderr=STDOUT).returncode for c in codes]


@case
def stdout_as_stderr_keeps_the_pid_and_the_arguments(face: Face, tmp: Path) -> Any:
    script = 'echo $$ >&2; printf "<%s>" "$@"'
    arguments = ["", "a b", "*", "-x", "$y"]
    with face.Popen(["sh", "-c", script, "sh", *arguments], stdout=PIPE, stderr=STDOUT) as process:
        out, _ = process.communicate()
    pid, _, rest = out.partition(b"\n")
    return int(pid) == process.pid, rest


@case
def stdout_cannot_be_stdin(face: Face, tmp: Path) -> Any:
    try:
        face.Popen(["true"], stdin=STDOUT)
    except (ValueError, OSError):
        return "refused"
