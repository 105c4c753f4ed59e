"""What every test has to keep to: it leaves no thread, no process and no file descriptor.

The fixture `no_leaks` takes stock before each test and again after it, when all fixtures of the
test itself are gone. What a module's or a session's fixture started is older than the stock, and
so is theirs; such a fixture must not be asked for with `getfixturevalue` in the midst of a test.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import parts
import pytest

if not sys.platform.startswith("linux"):
    raise pytest.UsageError("the tests look for leaks in Linux's /proc")

# Every process started from here on carries this mark in its environment, so that one whose
# parent is gone is known as ours. (The other way, PR_SET_CHILD_SUBREAPER, makes pytest the new
# parent, and then the zombie of an orphan can't be told from one that the code under test forgot
# to reap. What the mark misses is an orphan that was started with an environment of its own.)
# A pytest that a test runs keeps the outer one's mark, so the outer one sees its leaks too.
# A worker of pytest-xdist adds its name: what the others start is not its own.
_run = os.environ.get("WSEP_SYNC_TEST_RUN") or f"{os.getpid()}-{time.time_ns()}"
_worker = os.environ.get("PYTEST_XDIST_WORKER", "")
os.environ["WSEP_SYNC_TEST_RUN"] = _run if _run.endswith(_worker) else f"{_run}-{_worker}"
MARK = b"WSEP_SYNC_TEST_RUN=" + os.environ["WSEP_SYNC_TEST_RUN"].encode()

# A shell starts background jobs with SIGINT and SIGQUIT ignored, nohup(1) ignores SIGHUP, and the
# commands would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Correctness doesn't depend on how fast the machine is today.
hypothesis.settings.register_profile(
    "wsep_sync",
    deadline=None,
    derandomize=False,  # which it is where CI=true, for others' convenience
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("wsep_sync")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "leak_grace",
        "seconds that what a test ended may take to be gone (a joined thread, a killed orphan)",
        default="5",
    )
    parser.addoption(
        "--all-parts",
        action="store_true",
        help="fail, rather than skip, what needs a program that is missing; so does CI=true",
    )


def pytest_configure(config: pytest.Config) -> None:
    parts.set_all_parts(config.getoption("--all-parts"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if lines := parts.summary(str(report.longrepr) for report in skipped):
        terminalreporter.section("programs that are missing here")
        for line in lines:
            terminalreporter.line(line)


def pytest_unconfigure() -> None:
    # A thread that was left, and reported, must not hang the run: Python would wait for it after
    # this hook. This shows all stacks and exits with 1.
    if any(
        not thread.daemon
        for thread in threading.enumerate()
        if thread is not threading.main_thread()
    ):
        faulthandler.dump_traceback_later(1, exit=True, file=sys.__stderr__)


@dataclass(frozen=True)
class Task:
    """A process or a native thread; the start time tells it from a later one with its number."""

    id: int
    start_time: int


@dataclass(frozen=True)
class Stat:
    """The fields of a /proc/.../stat that matter here, see proc_pid_stat(5)."""

    state: str
    parent: int
    start_time: int


def read_stat(directory: Path) -> Stat | None:
    try:
        content = (directory / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name before the last parenthesis may hold spaces and parentheses.
    fields = content.rpartition(b")")[2].split()
    return Stat(state=fields[0].decode(), parent=int(fields[1]), start_time=int(fields[19]))


def numbered(directory: str) -> list[Path]:
    return [Path(directory, name) for name in os.listdir(directory) if name.isdecimal()]


def marked(process: Path) -> bool:
    path = process / "environ"
    try:
        while not (environment := path.read_bytes()) and executing(process):
            time.sleep(0.001)  # nothing tells when it is over
        # Where that was just over, it has an environment by now.
        return MARK in (environment or path.read_bytes()).split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False  # gone, a zombie, or another user's


# Linux's PF_KTHREAD: a thread of the kernel's own.
KERNEL_THREAD = 0x200000


def executing(process: Path) -> bool:
    """Whether it is in the midst of execve(2), or of ending, and so has no environment just now."""
    fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
    state, flags, environment_end = fields[0], int(fields[6]), int(fields[48])
    return state not in (b"Z", b"X") and not flags & KERNEL_THREAD and not environment_end


# The processes of others that were there last time. None of them becomes ours: a child has its
# parent's environment from the start, and who loses its parent becomes the child of process 1.
# Looking at all of them before and after each test took half of the time of all tests.
_strangers: set[int] = set()


def processes() -> set[Task]:
    """Our descendants, zombies included, and those we started that have lost their parent."""
    there = {int(path.name): path for path in numbered("/proc")}
    _strangers.intersection_update(there)
    new = there.keys() - _strangers
    stats = {pid: stat for pid in new if (stat := read_stat(there[pid]))}
    ours = {pid for pid in stats if marked(there[pid])}
    generation = {os.getpid()}
    while generation:
        generation = {pid for pid in stats if stats[pid].parent in generation}
        ours |= generation
    _strangers.update(stats.keys() - ours - {os.getpid()})
    # A nested pytest bears its parent's mark.
    ours.discard(os.getpid())
    return {Task(pid, stats[pid].start_time) for pid in ours}


def threads() -> set[Task]:
    """All threads of this process, those that the threading module doesn't know included."""
    return {
        Task(int(path.name), stat.start_time)
        for path in numbered("/proc/self/task")
        if (stat := read_stat(path))
    }


def descriptors() -> dict[int, tuple[int, int]]:
    """The device and inode behind each open file descriptor."""
    found = {}
    for path in numbered("/proc/self/fd"):
        try:
            stat = os.fstat(int(path.name))
        except OSError:
            continue  # the one that listed the directory
        found[int(path.name)] = (stat.st_dev, stat.st_ino)
    return found


@dataclass(frozen=True)
class Stock:
    threads: set[Task]
    processes: set[Task]
    descriptors: dict[int, tuple[int, int]]

    @classmethod
    def take(cls) -> Stock:
        return cls(threads(), processes(), descriptors())

    def __sub__(self, older: Stock) -> Stock:
        return Stock(
            self.threads - older.threads,
            self.processes - older.processes,
            dict(self.descriptors.items() - older.descriptors.items()),
        )

    def __bool__(self) -> bool:
        return bool(self.threads or self.processes or self.descriptors)

    def describe(self) -> str:
        return "\n".join(
            [
                "the test left behind:",
                *(describe_thread(task) for task in sorted(self.threads, key=lambda t: t.id)),
                *(describe_process(task) for task in sorted(self.processes, key=lambda t: t.id)),
                *(describe_descriptor(fd) for fd in sorted(self.descriptors)),
            ]
        )


def describe_thread(task: Task) -> str:
    frames = sys._current_frames()
    for thread in threading.enumerate():
        if thread.native_id == task.id:
            stack = traceback.format_stack(frames[thread.ident]) if thread.ident in frames else []
            return f"thread {thread!r}:\n{''.join(stack)}".rstrip()
    # Its stack can't be found: only the threading module ties a native id to Python's own.
    return f"thread {task.id} that the threading module doesn't know"


def describe_process(task: Task) -> str:
    path = Path("/proc", str(task.id))
    stat = read_stat(path)
    try:
        name = (path / "comm").read_text().strip()
        command = (path / "cmdline").read_text(errors="replace").replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        stat = None
    if stat is None:
        return f"process {task.id}, gone by now"
    if stat.state == "Z":
        return f"zombie {task.id} ({name}), which process {stat.parent} has not reaped"
    return f"process {task.id}, child of {stat.parent}: {command or name}"


def describe_descriptor(fd: int) -> str:
    try:
        return f"file descriptor {fd}: {os.readlink(f'/proc/self/fd/{fd}')}"
    except FileNotFoundError:
        return f"file descriptor {fd}, closed by now"


def end(leaked: set[Task]) -> None:
    """Kill the processes that a test left and reap our children among them."""
    for task in leaked:
        try:
            os.kill(task.id, signal.SIGKILL)
        except ProcessLookupError:
            continue
    for task in leaked:
        try:
            os.waitpid(task.id, 0)
        except ChildProcessError:
            continue  # not a child of ours, or reaped since


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test when it leaves a thread, a process, a zombie or a file descriptor behind."""
    before = Stock.take()
    yield
    # A failed test's frames, and all that hangs on them, live on in the interpreter's last
    # exception until the next test; by now it is reported, and what it kept is this test's.
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):
        vars(sys).pop(name, None)
    # Unclosed files warn when they are collected: here, and not in a later test.
    gc.collect()
    # What is left lives on. Looking through it again after each test would take most of the time.
    gc.freeze()
    # What the test ended may lag: join() returns before the kernel has taken the thread down,
    # and nobody tells when an orphan is gone, so poll.
    deadline = time.monotonic() + float(request.config.getini("leak_grace"))
    while left := Stock.take() - before:
        if time.monotonic() > deadline:
            description = left.describe()
            end(left.processes)
            pytest.fail(description, pytrace=False)
        time.sleep(0.01)
