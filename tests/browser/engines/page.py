"""The client in a page of any engine."""

import json
import time
from typing import TYPE_CHECKING, Any, Self

from selenium.common.exceptions import WebDriverException

from browser.client_page import StreamPage

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver

_POLL_SECONDS = 0.02
_PATIENCE_SECONDS = 60.0
_STATE = """globalThis.seen && {
  status: stream.status, transport: stream.transport, position: stream.position, statuses: seen.statuses.slice(-12),
  codes: seen.codes.slice(-12), messages: seen.messages.length, events: seen.events, errors: seen.errors.slice(0, 5)
}"""


class EnginePage(StreamPage):
    """A page in a tab of its own. What waits does so with a limit that is only against hanging."""

    def __init__(self, driver: "WebDriver", url: str) -> None:
        self._driver = driver
        self._tab = driver.current_window_handle
        driver.get(url)

    def connect_with(self, token: str, **options: Any) -> Self:
        """Open the stream with what a JavaScript expression has as its token: a promise of it, too."""
        self.evaluate(f"begin({token}, {json.dumps(options)})")
        return self

    def evaluate(self, expression: str) -> Any:
        # As JSON: drivers differ in what they make of large numbers and of undefined.
        source = f"(async () => JSON.stringify([await ({expression})]))()"
        [value] = json.loads(self._selected().execute_script("return window.eval(arguments[0])", source))
        return value

    def wait_until(self, condition: str) -> Self:
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while not self.evaluate(f"Boolean({condition})"):
            if time.monotonic() > give_up:
                raise TimeoutError(f"{condition} did not become true: {self.evaluate(_STATE)}")
            time.sleep(_POLL_SECONDS)
        return self

    def hurry(self) -> Self:
        """Make the pauses of the client short, which are random."""
        self.evaluate("void (Math.random = () => 0.1)")
        return self

    def pass_time(self, seconds: float) -> Self:
        """Put the clocks of the page forward. Timers that run are not affected."""
        for clock in ("Date", "performance"):
            self.evaluate(f"((now) => void ({clock}.now = () => now() + 1000 * {seconds}))({clock}.now.bind({clock}))")
        return self

    def go(self, url: str) -> Self:
        """Open another page in this tab."""
        self._selected().get(url)
        return self

    def back(self) -> Self:
        """Press the back button."""
        self._selected().back()
        return self

    def reload(self) -> Self:
        self._selected().refresh()
        return self

    def close(self) -> None:
        """Close the tab."""
        self._selected().close()

    def _selected(self) -> "WebDriver":
        if self._selected_tab() != self._tab:
            self._driver.switch_to.window(self._tab)
        return self._driver

    def _selected_tab(self) -> str | None:
        try:
            return self._driver.current_window_handle
        except WebDriverException:
            # The selected tab was closed.
            return None
