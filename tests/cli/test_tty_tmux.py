"""`wsep-sync tty` in tmux: a terminal within a terminal."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

from helpers import SECONDS, children, eventually, gone, read_past
from parts import need
from programs import WSEP_SYNC, environment
from terminal_windows import BASH

from wsep_sync import Command, connect

# A terminal within a terminal


class Tmux:
    """A tmux of its own, with one window of 80 x 24 that runs a shell's script."""

    def __init__(self, directory: Path, script: str) -> None:
        self._socket = directory / "socket"
        self("new-session", "-d", "-x", "80", "-y", "24", script)
        self._server = int(self.get("#{pid}"))

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            [need("tmux"), "-S", str(self._socket), "-f", "/dev/null", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment(TERM="xterm-256color"),
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, format: str) -> str:
        return self("display-message", "-p", format).rstrip("\n")

    def rows(self) -> list[str]:
        return self("capture-pane", "-p").splitlines()

    def modes(self) -> str:
        """What programs have switched on; "00000-1" when it is a new window's."""
        names = ("mouse_any", "mouse_standard", "mouse_sgr", "keypad_cursor", "keypad")
        return self.get("".join(f"#{{{name}_flag}}" for name in names) + "-#{wrap_flag}")

    def __enter__(self) -> Tmux:
        return self

    def __exit__(self, *_: object) -> None:
        self("kill-server")
        gone(self._server)


SET_MODES = r"printf '\033[?1h\033[?1000h\033[?1006h\033=\033[?7l'"


def test_in_tmux(tmp_path: Path) -> None:
    command = shlex.join([*WSEP_SYNC, "tty", "--", *BASH])
    with Tmux(tmp_path, f"{command}; echo status $?; exec cat") as tmux:
        eventually(lambda: tmux.rows()[:1] == ["$"], "the prompt")
        tmux("send-keys", "echo $((6*7)); stty size", "Enter")
        eventually(lambda: tmux.rows()[1:4] == ["42", "24 80", "$"], "the answer")
        tmux("resize-window", "-x", "100", "-y", "30")
        until = "clear; until [ \"$(stty size)\" = '30 100' ]; do :; done; stty size"
        tmux("send-keys", until, "Enter")
        eventually(lambda: "30 100" in tmux.rows(), "the new size")
        tmux("send-keys", "clear; vim -u NONE -N", "Enter")
        eventually(lambda: tmux.rows()[1:3] == ["~", "~"], "vim")
        tmux("send-keys", "ihello", "Escape")
        eventually(lambda: tmux.rows()[0] == "hello", "what was typed")
        tmux("send-keys", ":q!", "Enter")
        eventually(lambda: tmux.rows()[0].startswith("$"), "the prompt again")
        tmux("send-keys", "exit 9", "Enter")
        eventually(lambda: "status 9" in tmux.rows(), "the end")


def test_no_origin_mode_stays_in_tmux_after_leaving(server: str, tmp_path: Path) -> None:
    program = ["sh", "-c", r"printf 'top\n\n\n\033[2;20r\033[?6h'; exec cat"]
    command = shlex.join([*WSEP_SYNC, "tty", "--url", server, "--id", "s", "--", *program])
    with Tmux(tmp_path, f"{command}; echo status $?; exec cat") as tmux:
        eventually(lambda: tmux.get("#{origin_flag}") == "1", "origin mode")
        [client] = children(int(tmux.get("#{pane_pid}")))
        os.kill(client, signal.SIGTERM)
        eventually(lambda: "status 143" in tmux.rows(), "the end")
        assert tmux.get("#{origin_flag} #{scroll_region_upper} #{scroll_region_lower}") == "0 0 23"
        # Nothing of what is shown is written over.
        assert "top" in tmux("capture-pane", "-p", "-S", "-10").splitlines()


def test_no_modes_stay_in_tmux_after_leaving(server: str, tmp_path: Path) -> None:
    program = ["sh", "-c", f"{SET_MODES}; exec cat"]
    command = shlex.join([*WSEP_SYNC, "tty", "--url", server, "--id", "s", "--", *program])
    with Tmux(tmp_path, f"{command}; echo status $?; exec cat") as tmux:
        eventually(lambda: tmux.modes() == "11111-0", "the program's modes")
        [client] = children(int(tmux.get("#{pane_pid}")))
        os.kill(client, signal.SIGTERM)
        eventually(lambda: f"status {128 + signal.SIGTERM}" in tmux.rows(), "the end")
        assert tmux.modes() == "00000-1"


def test_a_redraw_in_tmux_undoes_what_was_left_on(server: str, tmp_path: Path) -> None:
    start = Command("sh", ["-c", "echo ready; exec cat"], tty=True, id="s", rows=24, cols=80)
    # Nothing has undone what an earlier client left that was killed.
    command = shlex.join([*WSEP_SYNC, "tty", "--url", server, "--id", "s", "--", "true"])
    with connect(server) as execer, execer.start(start) as process:
        read_past(process.stdout, b"ready")
        with Tmux(tmp_path, f"{SET_MODES}; exec {command}") as tmux:
            eventually(lambda: "ready" in tmux.rows(), "the redraw")
            assert tmux.modes() == "00000-1"


def test_a_redraw_in_tmux_has_all_attributes(server: str, tmp_path: Path) -> None:
    attributes = "".join(rf"\033[{code}m" for code in (1, 3, 5, 7, 9, 53))
    colours = "".join(rf"\033[{n};2;101;102;103m" for n in (38, 48, 58))
    # On the alternate screen the attributes of before are written anew.
    script = f"printf '{attributes}{colours}\\033[?1049hready\\n'; exec cat"
    start = Command("sh", ["-c", script], tty=True, id="s", rows=24, cols=80)
    command = shlex.join([*WSEP_SYNC, "tty", "--url", server, "--id", "s", "--", "true"])
    with connect(server) as execer, execer.start(start) as process:
        read_past(process.stdout, b"ready")
        with Tmux(tmp_path, f"exec {command}") as tmux:
            eventually(lambda: "ready" in tmux.rows(), "the redraw")
            shown = tmux("capture-pane", "-p", "-e").splitlines()[0]
    codes = set(re.split(r"[;m]", "".join(re.findall(r"\x1b\[([\d;:]*m)", shown))))
    assert {"1", "3", "5", "7", "9"} <= codes, shown
    assert codes & {"53", "5:3"}, shown  # the latter is what tmux 3.3 writes for an overline
    assert "38;2;101;102;103" in shown.replace(":", ";"), shown
    assert "48;2;101;102;103" in shown.replace(":", ";"), shown
