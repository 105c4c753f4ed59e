"""The example of a terminal in the browser, used in a real one."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from browser import chromium, npm_install, waited
from helpers import SECONDS
from parts import need
from programs import Relay, environment
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

# A browser takes its time to start, and the first test to fetch the page's packages.
pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "web_terminal"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example with its packages, the same for all the processes of this run."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    directory = base / "web_terminal"
    with open(base / "web_terminal.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "installed").exists():
            shutil.copytree(EXAMPLE, directory, ignore=shutil.ignore_patterns("node_modules"))
            npm_install(directory)
            (directory / "installed").touch()
    return directory


@contextlib.contextmanager
def serving(example: Path, home: Path, **variables: str) -> Iterator[str]:
    """Run the example's server; yields the address of its page."""
    (home / ".bashrc").write_text("PS1='$ '\nunset HISTFILE PROMPT_COMMAND\n")
    shell = {"HOME": str(home), "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(
        [sys.executable, "-W", "error", str(example / "server.py"), "0"],
        cwd=home,
        env=environment(**shell, **variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            listening = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+)\n", line)
            assert listening, line
            yield listening[1]
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()


@pytest.fixture
def url(example: Path, tmp_path: Path) -> Iterator[str]:
    with serving(example, tmp_path) as url:
        yield url


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Chrome]:
    with chromium(tmp_path) as driver:
        yield driver


class Page:
    """What somebody sees of the page, and does there."""

    def __init__(self, driver: Chrome, url: str, id: str = "") -> None:
        self.driver = driver
        driver.get(f"{url}/#id={quote(id)}" if id else url)

    def rows(self) -> list[str]:
        """What the terminal shows, row by row."""
        rows = self.driver.execute_script(
            "return [...document.querySelectorAll('.xterm-rows > div')].map(r => r.textContent)"
        )
        return [row.replace("\xa0", " ").rstrip() for row in rows]

    def type(self, text: str) -> None:
        area = self.driver.find_element(By.CSS_SELECTOR, ".xterm-helper-textarea")
        area.send_keys(text.replace("\n", Keys.ENTER))

    def shows(self, row: str) -> re.Match[str]:
        """Wait for a row that matches."""
        return self.waits(
            lambda: next(filter(None, map(re.compile(row).fullmatch, self.rows())), None), row
        )

    def says(self, text: str) -> None:
        """Wait for a line beside the terminal."""
        self.waits(lambda: re.fullmatch(text, self._status()), text)

    def lists(self, count: int) -> list[str]:
        """Wait until that many sessions are listed, and return their ids."""

        def ids() -> list[str]:
            return list(
                self.driver.execute_script(
                    "return [...document.querySelectorAll('nav a')].map(link => link.textContent)"
                )
            )

        self.waits(lambda: len(ids()) == count, f"{count} sessions")
        return ids()

    def listen(self) -> None:
        """Note from now on what is said beside the terminal, however short it stands there."""
        self.driver.execute_script(
            """
            const status = document.getElementById("status");
            const said = window.said = [];
            new MutationObserver(() => said.push(status.textContent))
                .observe(status, { childList: true });
            """
        )

    def said(self) -> list[str]:
        return list(self.driver.execute_script("return window.said"))

    def click(self, text: str) -> None:
        """Click on a link; at once, for the list of sessions may change at any time."""
        self.driver.execute_script(
            "[...document.links].find(link => link.textContent === arguments[0]).click()", text
        )

    def _status(self) -> str:
        return str(self.driver.find_element(By.ID, "status").text)

    def waits(self, condition: Any, what: str) -> Any:
        try:
            return waited(self.driver, condition, what)
        except Exception as error:
            shown = "\n".join(self.rows())
            raise AssertionError(f"no {what}; {self._status()!r}\n{shown}") from error

    def prompt(self) -> None:
        self.shows(r"\$")


def test_a_shell(driver: Chrome, url: str) -> None:
    page = Page(driver, url)
    page.prompt()
    page.type("echo it is $((6 * 7))\n")
    page.shows("it is 42")
    page.type("exit 3\n")
    page.says("Ended: exit status 3.")
    page.lists(0)


def size(page: Page) -> tuple[int, int]:
    """What the shell takes for the size of its terminal."""
    page.type("clear\n")
    page.waits(lambda: page.rows()[0] == "$" and not any(page.rows()[1:]), "empty screen")
    page.type("stty size\n")
    rows, columns = page.shows(r"\d+ \d+")[0].split()
    return int(rows), int(columns)


def test_the_size(driver: Chrome, url: str) -> None:
    page = Page(driver, url)
    page.prompt()
    rows, columns = size(page)
    assert rows == len(page.rows())
    driver.set_window_size(600, 400)
    page.waits(lambda: len(page.rows()) < rows, "a smaller terminal")
    page.waits(lambda: size(page)[0] == len(page.rows()), "the shell's terminal, too")
    assert size(page)[1] < columns


def test_a_reload(driver: Chrome, url: str) -> None:
    page = Page(driver, url)
    page.prompt()
    page.type("echo pid $$\n")
    pid = page.shows(r"pid (\d+)")[1]
    driver.refresh()
    page.shows(f"pid {pid}")
    page.type("echo still $$\n")
    assert page.shows(r"still (\d+)")[1] == pid


def test_vim(driver: Chrome, url: str, tmp_path: Path) -> None:
    need("vim")
    file = tmp_path / "file"
    file.write_text("a line of the file\n")
    page = Page(driver, url)
    page.prompt()
    page.type("vim -u NONE -i NONE -n file\n")
    page.shows('"file" .*19.*')  # comes last
    drawn = page.rows()
    assert drawn[:2] == ["a line of the file", "~"]
    assert drawn[-2] == "~"
    driver.refresh()
    page.waits(lambda: page.rows() == drawn, "the same screen")
    page.type(f"ix{Keys.ESCAPE}:wq\n")
    page.shows(r"\$ vim .*")
    page.prompt()
    assert file.read_text() == "xa line of the file\n"
    assert "~" not in page.rows()


def test_the_list_of_sessions(driver: Chrome, url: str) -> None:
    page = Page(driver, url, "first")
    page.prompt()
    page.type("echo this is $((0 + 1))\n")
    page.shows("this is 1")
    page = Page(driver, url, "second & <last>")
    page.waits(lambda: "this is 1" not in page.rows(), "another terminal")
    page.prompt()
    assert page.lists(2) == ["first", "second & <last>"]
    page.click("first")
    page.shows("this is 1")
    page.click("New terminal")
    assert page.lists(3)[:2] == ["first", "second & <last>"]
    page.waits(lambda: "this is 1" not in page.rows(), "another terminal")
    page.prompt()


def test_a_long_paste(driver: Chrome, url: str) -> None:
    page = Page(driver, url)
    page.prompt()
    page.type("stty -icanon -echo; echo ready; head -c 300000 | md5sum; stty sane\n")
    page.shows("ready")
    paste = """
        const [text] = arguments, data = new DataTransfer();
        data.setData("text/plain", text);
        const event = new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
        document.querySelector(".xterm-helper-textarea").dispatchEvent(event);
    """
    text = "".join(chr(0xA1 + i % 100) for i in range(150_000))
    driver.execute_script(paste, text)
    page.shows(f"{hashlib.md5(text.encode()).hexdigest()}  -")


# Stop showing what comes, until release() is called.
HOLD = """
const terminal = window.terminal, write = terminal.write.bind(terminal), held = [];
terminal.write = (...all) => held.push(all);
window.release = () => {
    terminal.write = write;
    held.splice(0).forEach(all => write(...all));
};
"""


def test_a_flood(driver: Chrome, example: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(example, copy)
    script = (copy / "terminal.js").read_text()
    (made,) = re.findall(r"^const terminal = new Terminal\(.*\n", script, re.MULTILINE)
    script = script.replace(made, f"{made}window.terminal = terminal;\n")
    assert script.count("16 << 20") == 1  # what may wait
    (copy / "terminal.js").write_text(script.replace("16 << 20", "2 << 20"))
    with serving(copy, tmp_path) as url:
        page = Page(driver, url)
        page.prompt()
        driver.execute_script(HOLD)
        page.type("seq 1000000; echo that was $((1 + 1))\n")  # 8 MB

        def clients() -> int:
            with urllib.request.urlopen(f"{url}/sessions", timeout=SECONDS) as answer:
                (session,) = json.load(answer)
            return int(session["clients"])

        page.waits(lambda: clients() == 0, "the page to leave")
        page.type("echo and $((1 + 2))\n")
        assert clients() == 0
        driver.execute_script("release()")
        page.shows("1000000")
        page.shows("that was 2")
        page.shows("and 3")
        assert clients() == 1


def test_a_connection_that_is_lost(driver: Chrome, url: str) -> None:
    def lost(seconds: str) -> str:
        return f"The connection is lost. Next attempt in {seconds} s."

    with Relay(url.replace("http", "ws")) as relay:
        page = Page(driver, relay.url.replace("ws", "http"))
        page.prompt()
        page.type("echo pid $$\n")
        pid = page.shows(r"pid (\d+)")[1]
        page.listen()
        relay.cut(refuse=True)
        page.waits(lambda: lost("2") in page.said(), "a third attempt")
        relay.cut()
        page.waits(lambda: page.said()[-1] == "", "the connection")
        assert page.said()[:3] == [lost("0.5"), lost("1"), lost("2")]
        page.type("echo still $$\n")
        assert page.shows(r"still (\d+)")[1] == pid
        page.listen()
        relay.cut()
        page.waits(lambda: page.said() == [lost("0.5"), ""], "the connection at once")
        page.type("echo and $$\n")
        assert page.shows(r"and (\d+)")[1] == pid
        driver.get("about:blank")


def test_a_token(example: Path, driver: Chrome, tmp_path: Path) -> None:
    wanted = "This server wants a token."
    with serving(example, tmp_path, WSEP_TOKEN="s3cret") as url:
        page = Page(driver, url)
        page.says(wanted)
        page.listen()
        token = driver.find_element(By.ID, "token")
        token.send_keys("wrong" + Keys.ENTER)
        page.waits(lambda: page.said() == ["", wanted], "a refusal")
        token.clear()
        token.send_keys("s3cret" + Keys.ENTER)
        page.prompt()
        assert not token.is_displayed()
        page.type("echo [$WSEP_TOKEN]\n")
        page.shows(r"\[\]")
        driver.refresh()  # without being asked again
        page.shows(r"\[\]")


# From within the page that is open: run a command, and ask for the sessions.
RUN = """
const [url, done] = arguments;
import("./wire.js").then(({ RemoteProcess }) => {
    const remote = new RemoteProcess(url, { id: "", command: { command: "true", tty: true } });
    remote.onstart = () => done("started");
    remote.onclose = ({ code }) => done(code);
}, done);
"""
LIST = """
const [url, done] = arguments;
fetch(url).then(response => done(response.status), () => done("refused"));
"""


@contextlib.contextmanager
def other_server(directory: Path) -> Iterator[str]:
    """A server that has nothing to do with the other, with files to show."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_page_of_another_origin(driver: Chrome, url: str, example: Path) -> None:
    socket = url.replace("http", "ws")
    driver.get(url)
    assert driver.execute_async_script(RUN, socket) == "started"
    assert driver.execute_async_script(LIST, f"{url}/sessions") == 200
    with other_server(example) as other:
        driver.get(other)
        assert driver.execute_async_script(RUN, socket) == 1006
        assert driver.execute_async_script(LIST, f"{url}/sessions") == "refused"
