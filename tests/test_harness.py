"""The rules of conftest.py hold: tests that break them fail, and only those."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import hypothesis
import pytest

pytestmark = pytest.mark.thorough

HERE = Path(__file__).parent

LEAKING = '''
import os, subprocess, sys, threading, time, _thread, warnings
import pytest

kept = []
forever = threading.Event()

def background(command):
    """Start a command whose parent is gone when this returns."""
    subprocess.run(["sh", "-c", f"{command} & echo started"], check=True, stdout=subprocess.DEVNULL)

def wait_with_a_name():
    forever.wait()

def test_nothing():
    pass

def test_thread():
    threading.Thread(target=wait_with_a_name, name="the-forgotten", daemon=True).start()

def test_thread_that_keeps_the_interpreter():
    released = threading.Event()
    kept.append(released)
    threading.Thread(target=released.wait, name="the-keeper").start()

def test_nothing_after_threads():
    kept.pop().set()

def test_thread_unknown_to_threading():
    _thread.start_new_thread(forever.wait, ())

def test_child():
    kept.append(subprocess.Popen(["sleep", "1001"]))

def test_zombie():
    pid = os.posix_spawn("/bin/true", ["true"], os.environ)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

def test_orphan():
    background("sleep 1002")

def test_orphan_in_its_own_session():
    background("setsid sleep 1003")

def test_nothing_after_processes():
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)

def test_descriptor():
    kept.append(os.pipe())

def test_descriptor_with_a_used_number():
    fd = os.dup(reused)
    os.close(reused)
    os.dup2(os.pipe()[1], reused)
    os.close(fd)

reused = os.open("/dev/null", os.O_RDONLY)

def test_unclosed_file():
    open(__file__)

def test_unclosed_file_in_a_cycle():
    cycle = [open(__file__)]
    cycle.append(cycle)

def test_unclosed_file_in_a_failed_test():
    file = open(__file__)
    assert file.closed

def test_nothing_after_files():
    pass

def test_warning():
    warnings.warn("oh", UserWarning)

def test_exception_in_a_thread():
    thread = threading.Thread(target=divmod, args=(1, 0))
    thread.start()
    thread.join()
'''

CLEAN = """
import os, subprocess, threading
import pytest
from hypothesis import given, strategies

@pytest.fixture(scope="module")
def server():
    with subprocess.Popen(["sleep", "1004"]) as process:
        yield process
        process.kill()

def test_uses_a_process_of_the_module(server):
    assert server.poll() is None

def test_cleans_up(tmp_path, capfd):
    thread = threading.Thread(target=print, args=("ran",))
    thread.start()
    subprocess.run(["true"], check=True)
    (tmp_path / "file").write_text("x")
    thread.join()
    assert capfd.readouterr().out == "ran\\n"

def test_ends_a_little_later():
    threading.Timer(0.2, print).start()
    subprocess.run(["sh", "-c", "sleep 0.2 &"], check=True)
    fd = os.open("/dev/null", os.O_RDONLY)
    threading.Timer(0.2, os.close, [fd]).start()

@given(strategies.binary())
def test_of_many_examples(data):
    assert bytes(data) == data
"""

LEAKS = {
    "test_thread": ["the-forgotten", "in wait_with_a_name"],
    "test_thread_that_keeps_the_interpreter": ["the-keeper"],
    "test_thread_unknown_to_threading": ["the threading module doesn't know"],
    "test_child": ["sleep 1001"],
    "test_zombie": ["zombie", "(true)"],
    "test_orphan": ["sleep 1002"],
    "test_orphan_in_its_own_session": ["sleep 1003"],
    "test_descriptor": ["pipe:["],
    "test_descriptor_with_a_used_number": ["pipe:["],
    "test_unclosed_file": ["ResourceWarning: unclosed file"],
    "test_unclosed_file_in_a_cycle": ["ResourceWarning: unclosed file"],
    "test_unclosed_file_in_a_failed_test": ["ResourceWarning: unclosed file"],
    "test_warning": ["UserWarning: oh"],
    "test_exception_in_a_thread": ["ZeroDivisionError"],
}


def run(source: str, directory: Path, *options: str) -> dict[str, str]:
    """Run tests in a pytest of their own: what each was blamed for, by its name."""
    return run_and_show(source, directory, *options)[0]


def run_and_show(source: str, directory: Path, *options: str) -> tuple[dict[str, str], str]:
    """Run them likewise: also what was printed."""
    shutil.copy(HERE / "conftest.py", directory)
    (directory / "test_inner.py").write_text(source)
    report = directory / "report.xml"
    command = [sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider"]
    command += [f"--config-file={HERE.parent / 'pyproject.toml'}", f"--rootdir={directory}"]
    command += [f"--junitxml={report}", *options, str(directory)]
    ran = subprocess.run(
        command,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=50,
        check=False,
    )
    assert ran.returncode in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), ran.stdout
    blamed: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        faults = [*case.iter("failure"), *case.iter("error")]
        text = "\n".join(f"{fault.get('message')}\n{fault.text}" for fault in faults)
        name = case.attrib["name"]
        blamed[name] = blamed.get(name, "") + text
    return blamed, ran.stdout


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    # Without a grace: what stays for good is as visible at once as it is after five seconds.
    return run(LEAKING, tmp_path_factory.mktemp("leaking"), "-o", "leak_grace=0")


@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_is_found_and_named(leaking: dict[str, str], name: str) -> None:
    for clue in LEAKS[name]:
        assert clue in leaking[name]


def test_only_the_leaking_tests_are_blamed(leaking: dict[str, str]) -> None:
    assert {name for name, faults in leaking.items() if faults} == set(LEAKS)
    assert len(leaking) == len(LEAKS) + 4


def test_what_a_test_left_is_ended(tmp_path: Path) -> None:
    # If it weren't, this test would be blamed by its own fixture: the mark is the same.
    blamed = run(LEAKING, tmp_path, "-o", "leak_grace=0", "-k", "child or orphan")
    assert all(blamed.values())
    assert len(blamed) == 3


def test_a_clean_test_passes(tmp_path: Path) -> None:
    blamed = run(CLEAN, tmp_path)
    assert len(blamed) == 4
    assert not any(blamed.values()), blamed


def test_a_thread_that_was_left_does_not_hang_the_run(tmp_path: Path) -> None:
    blamed = run(LEAKING, tmp_path, "-o", "leak_grace=0", "-k", "keeps_the_interpreter")
    assert "the-keeper" in blamed["test_thread_that_keeps_the_interpreter"]


def test_hypothesis_judges_no_speed() -> None:
    assert hypothesis.settings().deadline is None
    assert hypothesis.settings().print_blob
    assert not hypothesis.settings().derandomize


# What needs a program that is missing

NEEDING = """
import pytest
from parts import need

@pytest.fixture(scope="module")
def editor():
    return need("no-such-editor")

def test_nothing():
    assert need("sh").endswith("/sh")

def test_edits(editor):
    pass

def test_edits_more(editor):
    pass

def test_watches():
    need("no-such-browser")
"""
LACKING = {"test_edits", "test_edits_more", "test_watches"}


@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_is_missing_is_skipped_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    monkeypatch.delenv("CI", raising=False)
    blamed, shown = run_and_show(NEEDING, tmp_path, "-n", workers)
    assert not any(blamed.values()), blamed
    assert "1 passed, 3 skipped" in shown
    _, _, summary = shown.partition(" programs that are missing here ")
    assert "\nno-such-browser: 1 skipped\nno-such-editor: 2 skipped\n" in summary
    assert "apt install no-such-browser no-such-editor\n" in summary


@pytest.mark.parametrize(
    ("option", "variable"), [(["--all-parts"], ""), ([], "true"), (["-n", "2", "--all-parts"], "")]
)
def test_what_is_missing_fails_where_all_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: list[str], variable: str
) -> None:
    monkeypatch.setenv("CI", variable)
    blamed = run(NEEDING, tmp_path, *option)
    assert {name for name, faults in blamed.items() if faults} == LACKING
    assert "no-such-editor" in blamed["test_edits"]
