"""Takes the picture of the README: the console just after a recovery, of a real server and real messages.

Run it with ``python tests/browser/picture.py`` after a change of the console.
"""

import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
from websockets.sync.client import connect

sys.path.insert(0, str(Path(__file__).parents[1]))

from browser.chromium import find_chromium, launched
from browser.console_page import SCOPES, ConsolePage
from support import SOCKETS
from unmissed import Settings
from unmissed.testing import SECRET, LiveServer

PICTURE = Path(__file__).parents[2] / ".github" / "console.png"
SIZE = {"width": 1200, "height": 750}


def main() -> None:
    """Show a recovery, and another one a while later, which is the picture."""
    chromium = find_chromium() or sys.exit("Chromium is not installed, or set CHROMIUM to its path")
    settings = Settings.load(jwt_secret=SECRET, console=True)
    with ExitStack() as stack:
        server = stack.enter_context(LiveServer(settings=settings, **SOCKETS["native"]))
        browser = stack.enter_context(launched(chromium))
        context = browser.new_context(viewport=SIZE, device_scale_factor=2, color_scheme="light")  # type: ignore[arg-type]
        stack.enter_context(connected_clients(server))
        page = ConsolePage(context.new_page(), server.url).open(server.token("dev", scope=SCOPES, topics=["*"]))

        page.press("Publish 50/s")
        recover(page, after=800)
        recover(page, after=2000)
        page.page.screenshot(path=PICTURE)
    sys.stdout.write(f"{PICTURE}: {PICTURE.stat().st_size // 1024} kB\n")


def connected_clients(server: LiveServer) -> ExitStack:
    """Return two other clients, one on each transport."""
    stack = ExitStack()
    token = server.token("alice", topics=["orders.42"])
    headers = {"Authorization": f"Bearer {token}"}
    stack.enter_context(connect(server.websocket_url, additional_headers=headers, proxy=None, max_queue=None))
    stack.enter_context(httpx.stream("GET", f"{server.url}/websocket/events", headers=server.headers("bob")))
    return stack


def recover(page: ConsolePage, *, after: int) -> None:
    """Lose the connection once the page has received so many messages, and wait for the recovery."""
    page.wait_until(f"count('received') > {after}")
    page.press("Drop 5 s")
    page.wait_for("waiting")
    page.wait_for("live")
    page.wait_until("document.querySelector('#messages li').classList.contains('back')")
    page.wait_until("document.querySelectorAll('#connections tr').length === 3")


if __name__ == "__main__":
    main()
