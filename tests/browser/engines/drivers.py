"""The engines of browsers, each controlled through WebDriver.

``ENGINES=chromium,firefox,webkit`` names those under test; without it, only Chromium is.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selenium import webdriver
from selenium.common.exceptions import WebDriverException

from browser.chromium import ARGUMENTS, find_chromium
from browser.engines.page import EnginePage

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver

_SECONDS = 60
_STOP_SECONDS = 10


class NotInstalled(Exception):
    """A program that an engine needs is not installed."""


class Engine:
    """A running engine, with a profile of its own. Its first window stays empty: some engines end with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._stack = ExitStack()
        self.start()

    def start(self) -> None:
        self._driver = self._stack.enter_context(_ENGINES[self.name]())
        self._driver.set_script_timeout(_SECONDS)
        self._driver.set_page_load_timeout(_SECONDS)
        self._first = self._driver.current_window_handle

    def stop(self) -> None:
        self._stack.close()

    def open(self, url: str) -> EnginePage:
        """Open a page in a new tab, which hides the others."""
        self._driver.switch_to.window(self._first)
        self._driver.switch_to.new_window("tab")
        return EnginePage(self._driver, url)

    def close_pages(self) -> None:
        """Close all pages, without the cookies of their sites: the next site may have the same name.

        An engine that has crashed is started again, so that it fails one test only.
        """
        try:
            for handle in self._driver.window_handles:
                if handle != self._first:
                    self._driver.switch_to.window(handle)
                    self._driver.delete_all_cookies()
                    self._driver.close()
            self._driver.switch_to.window(self._first)
        except WebDriverException:
            self.stop()
            self.start()


def engines_under_test() -> list[str]:
    """Return the names of the engines that the tests run in."""
    names = os.environ.get("ENGINES", "chromium").split(",")
    if unknown := {*names} - {*_ENGINES}:
        raise ValueError(f"ENGINES names unknown engines: {', '.join(unknown)}. Known are: {', '.join(_ENGINES)}")
    return names


def _program(*names: str) -> str:
    """Return the path of the first of these programs that is installed."""
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise NotInstalled(f"{' or '.join(names)} is not installed")
    return path


@contextmanager
def _ending(driver: "WebDriver") -> Iterator["WebDriver"]:
    """End the engine with the context, also one that has crashed."""
    try:
        yield driver
    finally:
        with suppress(WebDriverException):
            driver.quit()


@contextmanager
def _chromium() -> Iterator["WebDriver"]:
    path = find_chromium()
    if path is None:
        raise NotInstalled("Chromium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = path
    for argument in ("--headless=new", *ARGUMENTS):
        options.add_argument(argument)
    service = webdriver.ChromeService(_program("chromedriver"))
    with _ending(webdriver.Chrome(options, service)) as driver:
        yield driver


@contextmanager
def _firefox() -> Iterator["WebDriver"]:
    options = webdriver.FirefoxOptions()
    options.binary_location = _program("firefox-esr", "firefox")
    options.add_argument("-headless")
    service = webdriver.FirefoxService(_program("geckodriver"))
    with _ending(webdriver.Firefox(options, service)) as driver:
        yield driver


@contextmanager
def _webkit() -> Iterator["WebDriver"]:
    # Half a second of imports, which the collection of tests does not need.
    from selenium.webdriver.remote.client_config import ClientConfig  # noqa: PLC0415
    from selenium.webdriver.remote.remote_connection import RemoteConnection  # noqa: PLC0415
    from selenium.webdriver.webkitgtk.options import Options  # noqa: PLC0415
    from selenium.webdriver.webkitgtk.service import Service  # noqa: PLC0415

    options = Options()
    options.binary_location = _mini_browser()
    options.add_argument("--automation")
    with _display() as display:
        service = Service(_program("WebKitWebDriver"), env={**os.environ, "DISPLAY": display})
        service.start()
        try:
            # Not webdriver.WebKitGTK, which uses what selenium itself has deprecated.
            connection = RemoteConnection(client_config=ClientConfig(service.service_url))
            with _ending(webdriver.Remote(connection, options=options)) as driver:
                yield driver
        finally:
            service.stop()


def _mini_browser() -> str:
    """Return the path of WebKitGTK's own browser, which is on no PATH."""
    paths = sorted(Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser"))
    if not paths:
        raise NotInstalled("WebKitGTK's MiniBrowser is not installed")
    return str(paths[-1])


@contextmanager
def _display() -> Iterator[str]:
    """Run an X server without a screen: WebKitGTK has no headless mode."""
    reading, writing = os.pipe()
    command = [_program("Xvfb"), "-displayfd", str(writing), "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL) as process:  # noqa: S603  # Xvfb
        os.close(writing)
        try:
            with os.fdopen(reading) as number:
                yield f":{number.readline().strip()}"
        finally:
            process.terminate()
            process.wait(_STOP_SECONDS)


_ENGINES: dict[str, Callable[[], Any]] = {"chromium": _chromium, "firefox": _firefox, "webkit": _webkit}
