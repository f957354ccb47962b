"""The Chromium that opens pages in tests. Its path is in ``CHROMIUM``, or it is found among the installed programs."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

REMOTE_HOST = "console.test"
"""A name of this machine that browsers treat as one of another machine."""

ARGUMENTS = [
    f"--host-resolver-rules=MAP {REMOTE_HOST} 127.0.0.1",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_chromium() -> str | None:
    """Return the path of a Chromium, or None."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@contextmanager
def launched(path: str) -> Iterator["Browser"]:
    """Run a Chromium without a window."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  # tests are skipped without it

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()
