"""How the console looks at every size, in light and dark, and how the keyboard moves through it, in a real browser."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from browser.chromium import REMOTE_HOST
from browser.console_page import PATH, PHONE, SCHEMES, VIEWS, ConsolePage, token_for
from browser.crowd import NAMES, connected
from browser.node import MODULES
from unmissed.testing import LiveServer

pytestmark = [pytest.mark.live, pytest.mark.long]

ShowConsole = Callable[..., ConsolePage]
OpenConsole = Callable[..., ConsolePage]

AXE = MODULES / "axe-core" / "axe.min.js"
WIDTHS = {320: 568, 390: 844, 1024: 768, 1440: 900, 2560: 1440}
"""The heights of pages by their widths."""
WIDER = "tables => tables.filter((table) => table.scrollWidth > table.clientWidth + 1).map((table) => table.innerText)"
EXAMINED = {320, 1440}
"""The widths at which axe-core looks for faults, which takes seconds."""


def test_keys_press_buttons_unless_somebody_types_or_turns_them_off(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)
    flow = page.page.get_by_role("button", name="Publish 50/s")
    keyboard = page.page.keyboard

    keyboard.press("f")
    assert "true" == flow.get_attribute("aria-pressed")
    keyboard.press("f")
    assert "false" == flow.get_attribute("aria-pressed")

    page.page.get_by_label("Text of the message").focus()
    keyboard.press("f")
    page.page.get_by_label("Keyboard shortcuts").focus()
    keyboard.press("Space")
    keyboard.press("f")
    assert "false" == flow.get_attribute("aria-pressed")


def test_the_tab_key_reaches_the_controls_in_reading_order(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)

    reached = []
    for _ in range(7 + 9):
        page.page.keyboard.press("Tab")
        reached.append(page.page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))

    assert [view.capitalize() for view in VIEWS] == reached[:7]
    assert ["theme", "forget", "show-me", "text", "Publish P", "flow", "drop-5", "drop-30", "stall"] == reached[7:]


def test_a_drop_keeps_the_focus_on_its_button(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server)

    page.page.get_by_role("button", name="Drop 5 s").focus()
    page.page.keyboard.press("Enter")
    page.wait_for("waiting")
    page.page.keyboard.press("Enter")

    assert "drop-5" == page.page.evaluate("document.activeElement.id")


def test_a_phone_shows_everything_in_its_width(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server, viewport=PHONE, has_touch=True, is_mobile=True)
    page.press("Publish 50/s")
    page.wait_until("count('received') > 20")

    assert PHONE["width"] == page.page.evaluate("document.documentElement.scrollWidth")
    heights = page.page.locator(".actions button").evaluate_all("all => all.map((each) => each.offsetHeight)")
    assert 44 == min(heights)


def test_the_theme_follows_the_system_until_it_is_chosen(server: LiveServer, opened: OpenConsole) -> None:
    page = opened(server, color_scheme="dark")

    colours = [background(page)]
    for _ in range(2):
        page.press("Theme")
        colours.append(background(page))
    page.page.reload()
    page.wait_for("live")

    dark, light = colours[0], colours[1]
    assert [dark, light, dark] == colours
    assert dark == background(page)
    assert "Theme: dark" in page.text("#theme")


def background(page: ConsolePage) -> str:
    colour: str = page.page.evaluate("getComputedStyle(document.body).backgroundColor")
    return colour


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """Return the folder for screenshots: ``SCREENSHOTS`` keeps them."""
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "width", [width if width in EXAMINED else pytest.param(width, marks=pytest.mark.nightly) for width in WIDTHS]
)
def test_every_view_fits_and_is_accessible_with_a_crowd_in_light_and_dark(
    start: Callable[..., LiveServer], show: ShowConsole, screenshots: Path, width: int
) -> None:
    server = start()
    page = show(server, bypass_csp=True, reduced_motion="reduce", viewport={"width": width, "height": WIDTHS[width]})

    with connected(server, 200):
        page.open(token_for(server))
        page.press("Show me")
        page.page.locator("#demonstration[data-phase=done]").wait_for()
        look(page, screenshots / f"{width}-recovery")
        publish_to_a_crowd(server)
        for view in VIEWS[1:]:
            page.view(view)
            look(page, screenshots / f"{width}-{view}")
        page.view("connections").page.locator("#connections-rows button").nth(2).click()
        look(page, screenshots / f"{width}-details")
        page.press("Log out the user")
        look(page, screenshots / f"{width}-question")
        page.press("Cancel")
        page.page.locator("#inspector-close").click()
        server.drop()
        server.stop()
        page.page.locator("#connections-view[data-freshness=stale]").wait_for()
        look(page, screenshots / f"{width}-stale")


def publish_to_a_crowd(server: LiveServer) -> None:
    """Fill the log with messages for all kinds of names."""
    for index, name in enumerate(NAMES):
        server.publish(f"type of {name}", {"text": name, "list": [*range(40)]}, users=[name, *NAMES[:index]])
        server.publish("order.shipped", {"id": index}, topics=["orders.42", "rooms.1"])
        server.publish("note", {"text": name})


@pytest.mark.parametrize("width", [320, 1440])
def test_what_comes_before_and_between_fits_and_is_accessible(
    start: Callable[..., LiveServer], show: ShowConsole, screenshots: Path, width: int
) -> None:
    server = start(max_messages=30)
    page = show(server, bypass_csp=True, reduced_motion="reduce", viewport={"width": width, "height": WIDTHS[width]})
    page.url = server.url.replace("127.0.0.1", REMOTE_HOST)

    page.page.goto(f"{page.url}{PATH}")
    page.page.get_by_label("Token").wait_for()
    look(page, screenshots / f"{width}-token")
    page.open(token_for(server))
    look(page, screenshots / f"{width}-start")
    for view in ("topics", "log", "history"):
        page.view(view)
        look(page, screenshots / f"{width}-{view}-empty")
    page.view("recovery")
    page.page.click("#note-form button")
    look(page, screenshots / f"{width}-confirmation")
    page.page.get_by_role("dialog").get_by_role("button", name="Publish").click()
    page.wait_until("count('received') === 1")
    page.press("Drop 5 s")
    page.wait_until("document.querySelector('#messages .dropped')")
    look(page, screenshots / f"{width}-drop")
    for number in range(60):
        server.publish("published meanwhile", number)
    page.end_drop()
    page.wait_until("document.querySelector('#messages .recovered')")
    page.page.get_by_text("Gap: ").scroll_into_view_if_needed()
    look(page, screenshots / f"{width}-gap")
    page.view("publish").page.fill("#publish-data", "{'n': 1}")
    page.page.locator("#publish-button").click()
    look(page, screenshots / f"{width}-error")


def test_a_token_without_rights_leaves_an_accessible_page(
    server: LiveServer, show: ShowConsole, screenshots: Path
) -> None:
    page = show(server, bypass_csp=True, viewport={"width": 320, "height": 568}).open(token_for(server, scope=""))

    page.page.locator("nav a[href='#connections']").click()
    page.page.locator("#connections-view .refusal").wait_for()

    look(page, screenshots / "320-refused")


def test_forced_colours_keep_what_colours_say(server: LiveServer, opened: OpenConsole, screenshots: Path) -> None:
    page = opened(server, forced_colors="active")
    page.press("Show me")
    page.page.locator("#demonstration[data-phase=done]").wait_for()
    fills = "all => new Set(all.map((each) => getComputedStyle(each).fill)).size"

    page.page.screenshot(path=screenshots / "forced-colours.png", full_page=True)

    assert 4 == page.page.locator("#race-plain rect").evaluate_all(fills)


def look(page: ConsolePage, path: Path) -> None:
    """Look at a page in light and in dark. What axe-core finds depends on the layout, of which there are two."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed: npm ci --prefix tests/browser")
    colours = []
    for scheme in SCHEMES:
        page.page.emulate_media(color_scheme=scheme)
        page.page.screenshot(path=path.with_name(f"{path.name}-{scheme}.png"))
        colours.append(page.colours())
        if width(page) in EXAMINED:
            assert [] == page.violations(AXE.read_text())
        assert width(page) >= page.page.evaluate("document.documentElement.scrollWidth")
        assert [] == page.page.locator(".table:visible").evaluate_all(WIDER)
    assert set() == set.intersection(*colours)


def width(page: ConsolePage) -> int:
    assert page.page.viewport_size is not None
    return page.page.viewport_size["width"]
