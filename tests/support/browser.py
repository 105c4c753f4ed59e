"""A headless Chromium, Debian's, that a test drives; and npm, which fetches what pages need."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from helpers import SECONDS, descendants, gone
from parts import need
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

_Result = TypeVar("_Result")

_ARGUMENTS = """
--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run
--disable-background-networking --disable-component-update --disable-sync --no-proxy-server
--disable-crash-reporter --window-size=900,600
"""


@contextlib.contextmanager
def chromium(directory: Path) -> Iterator[Chrome]:
    """Run a browser, with an empty profile in the directory, and end it with all its processes."""
    options = ChromeOptions()
    options.binary_location = need("chromium")
    for argument in [*_ARGUMENTS.split(), f"--user-data-dir={directory / 'profile'}"]:
        options.add_argument(argument)
    # Told where the driver is, selenium looks for none elsewhere.
    service = Service(need("chromedriver"))
    left: set[int] = set()
    try:
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(service.stop)
            driver = Chrome(options, service)
            cleanup.callback(driver.quit)
            cleanup.callback(lambda: left.update(descendants(service.process.pid)))
            driver.set_page_load_timeout(SECONDS)
            driver.set_script_timeout(SECONDS)
            yield driver
    finally:
        # Some of its processes have no parent any more by now, and end when they notice.
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        gone(*left)


def waited(driver: Chrome, condition: Callable[[], _Result], what: str) -> _Result:
    """Wait until the condition is truthy and return what it is."""
    wait: Any = WebDriverWait(driver, SECONDS, poll_frequency=0.05)
    return wait.until(lambda _: condition(), what)  # type: ignore[no-any-return]


def npm_install(directory: Path) -> None:
    """Install what the lock file in a directory names."""
    options = "--no-audit --no-fund --ignore-scripts --prefer-offline --fetch-retries=5"
    subprocess.run(
        [need("npm"), "ci", *options.split()],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=2 * SECONDS,
        check=True,
    )
