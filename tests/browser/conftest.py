"""The browser of these tests."""

import pytest

from browser.chromium import find_chromium


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Return the path of a Chromium, or skip the test."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    path = find_chromium()
    if path is None:
        pytest.skip("Chromium is not installed: install it, or set CHROMIUM to its path")
    return path
