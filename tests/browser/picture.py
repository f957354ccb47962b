"""Takes the picture of the README: the console after *Show me*, of a real server and real messages.

Run it with ``python tests/browser/picture.py`` after a change of the console.
"""

import sys
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser.chromium import find_chromium, launched
from browser.console_page import ConsolePage, token_for
from support import SOCKETS
from unmissed import Settings
from unmissed.testing import SECRET, LiveServer

PICTURE = Path(__file__).parents[2] / ".github" / "console.png"
SIZE = {"width": 1200, "height": 750}


def main() -> None:
    """Show what a lost connection costs, and take the picture when all is counted."""
    chromium = find_chromium() or sys.exit("Chromium is not installed, or set CHROMIUM to its path")
    settings = Settings.load(jwt_secret=SECRET, console=True)
    with ExitStack() as stack:
        server = stack.enter_context(LiveServer(settings=settings, **SOCKETS["native"]))
        browser = stack.enter_context(launched(chromium))
        context = browser.new_context(viewport=SIZE, device_scale_factor=2, color_scheme="light")  # type: ignore[arg-type]
        page = ConsolePage(context.new_page(), server.url).open(token_for(server))

        page.press("Show me")
        page.page.locator("#demonstration[data-phase=done]").wait_for()
        page.page.mouse.move(0, 0)
        page.page.screenshot(path=PICTURE)
    sys.stdout.write(f"{PICTURE}: {PICTURE.stat().st_size // 1024} kB\n")


if __name__ == "__main__":
    main()
