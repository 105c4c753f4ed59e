"""The older functions: of the high-level API, and those that it replaces."""

from __future__ import annotations

import subprocess
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Any

from faces import Face

from popen_cases.cases import case, raised

# Older high-level API


@case
def call(face: Face, tmp: Path) -> Any:
    return face.call(["true"]), face.call(["sh", "-c", "exit 3"]), face.call("exit 4", shell=True)


@case
def call_in_time(face: Face, tmp: Path) -> Any:
    return face.call(["true"], timeout=30), raised(face.call, ["sleep", "1000"], timeout=0.01)


@case
def call_of_a_missing_command(face: Face, tmp: Path) -> Any:
    return face.call(["no-such-command"])


@case
def check_call(face: Face, tmp: Path) -> Any:
    return face.check_call(["true"]), raised(face.check_call, ["sh", "-c", "exit 3"])


@case
def check_call_in_time(face: Face, tmp: Path) -> Any:
    return raised(face.check_call, ["sleep", "1000"], timeout=0.01)


@case
def check_output(face: Face, tmp: Path) -> Any:
    return face.check_output(["echo", "a"]), face.check_output("echo é", shell=True, text=True)


@case
def check_output_of_a_failure(face: Face, tmp: Path) -> Any:
    return face.check_output("echo out; exit 3", shell=True)


@case
def check_output_with_the_errors(face: Face, tmp: Path) -> Any:
    return face.check_output("echo out; echo err >&2", shell=True, stderr=STDOUT)


@case
def check_output_with_input(face: Face, tmp: Path) -> Any:
    return face.check_output(["cat"], input=b"abc"), face.check_output(
        ["cat"], input="é", text=True
    )


@case
def check_output_with_input_none(face: Face, tmp: Path) -> Any:
    return [
        face.check_output(["cat"], input=None, **options)
        for options in ({}, {"text": True}, {"encoding": "utf-8"})
    ]


@case
def check_output_with_stdout(face: Face, tmp: Path) -> Any:
    return face.check_output(["true"], stdout=PIPE)


@case
def check_output_out_of_time(face: Face, tmp: Path) -> Any:
    return face.check_output(["sleep", "1000"], timeout=0.01)


# Legacy shell invocation


@case
def getstatusoutput(face: Face, tmp: Path) -> Any:
    return [face.getstatusoutput(f"echo out; echo err >&2; {end}") for end in ("exit 3", "true")]


@case
def getstatusoutput_of_a_signal(face: Face, tmp: Path) -> Any:
    return face.getstatusoutput("echo a; kill -KILL $$")


@case
def getstatusoutput_of_a_missing_command(face: Face, tmp: Path) -> Any:
    return face.getstatusoutput("no-such-command")[0]


@case
def getoutput(face: Face, tmp: Path) -> Any:
    return [face.getoutput(c) for c in ("echo a", "printf a", "printf 'a\\n\\n'", "printf '\\n'")]


@case
def getoutput_in_an_encoding(face: Face, tmp: Path) -> Any:
    # Keyword arguments since Python 3.11.
    if face.is_subprocess:
        text = subprocess.check_output("printf '\\351'", shell=True, encoding="latin-1")
        return text, text
    return (
        face.getoutput("printf '\\351'", encoding="latin-1"),
        face.getstatusoutput("printf '\\351'", encoding="latin-1")[1],
    )


# Replacing older functions with the subprocess module


@case
def replacing_backquotes(face: Face, tmp: Path) -> Any:
    return face.check_output(["basename", "/a/b"])


@case
def replacing_a_pipeline(face: Face, tmp: Path) -> Any:
    with face.Popen(["seq", "50000"], stdout=PIPE) as one:
        with face.Popen(["grep", "9"], stdin=one.stdout, stdout=PIPE) as other:
            one.stdout.close()
            out, _ = other.communicate()
        return len(out), one.wait(), other.wait()


@case
def replacing_a_pipeline_whose_end_has_had_enough(face: Face, tmp: Path) -> Any:
    with face.Popen(["yes"], stdout=PIPE) as one:
        with face.Popen(["head", "-n", "2"], stdin=one.stdout, stdout=PIPE) as other:
            one.stdout.close()  # lets it have SIGPIPE
            out, _ = other.communicate()
        return out, one.wait(), other.wait()


@case
def replacing_a_pipeline_of_text(face: Face, tmp: Path) -> Any:
    with (
        face.Popen(["echo", "é"], stdout=PIPE, text=True) as one,
        face.Popen(["cat"], stdin=one.stdout, stdout=PIPE, text=True) as other,
    ):
        one.stdout.close()
        return other.communicate()


@case
def replacing_os_system(face: Face, tmp: Path) -> Any:
    return face.call("exit 3", shell=True), face.call("kill -TERM $$", shell=True)


@case
def replacing_os_spawn(face: Face, tmp: Path) -> Any:
    process = face.Popen(["sh", "-c", "exit 3"])
    return process.wait()


@case
def replacing_os_popen(face: Face, tmp: Path) -> Any:
    with face.Popen("tr a b", shell=True, stdin=PIPE, stdout=PIPE, text=True) as process:
        process.stdin.write("abc")
        process.stdin.close()
        return process.stdout.read(), process.wait()
