"""A Chromium that is controlled through its DevTools protocol.

Its default profile is as a user's: playwright would keep all pages visible, and a visible page cannot be frozen.
"""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING

from browser.chromium import ARGUMENTS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_STOP_SECONDS = 10
_ADDRESS = re.compile(r"listening on ws://([\d.:]+)/")


@contextmanager
def debugged(path: str) -> Iterator["Browser"]:
    """Run a Chromium without a window."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  # tests are skipped without it

    with (
        TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        _running(path, profile) as url,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.connect_over_cdp(url, no_defaults=True)
        yield browser
        browser.close()


def crash(page: "Page") -> None:
    """Crash the process of this page."""
    from playwright.sync_api import Error  # noqa: PLC0415  # tests are skipped without it

    with suppress(Error):
        page.goto("chrome://crash")


@contextmanager
def asleep(browser: "Browser") -> Iterator[None]:
    """Stop the processes of all pages, which are told neither before nor after."""
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    renderers = [each["id"] for each in processes if each["type"] == "renderer"]
    try:
        _signal(renderers, signal.SIGSTOP)
        yield
    finally:
        _signal(renderers, signal.SIGCONT)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        # Chromium may have ended the process of a page that was closed.
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@contextmanager
def _running(path: str, profile: str) -> Iterator[str]:
    """Run the program, and return the address of its protocol."""
    command = [path, "--headless", "--remote-debugging-port=0", f"--user-data-dir={profile}", *ARGUMENTS]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603  # Chromium
        assert process.stderr is not None
        # The rest must be read, too, or Chromium would wait when the pipe is full.
        address = next(found[1] for line in process.stderr if (found := _ADDRESS.search(line)))
        Thread(target=process.stderr.read, daemon=True).start()
        try:
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(_STOP_SECONDS)
