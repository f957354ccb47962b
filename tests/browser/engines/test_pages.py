"""Where a client runs, in every engine: pages that are left and return, workers, and other origins."""

import pytest

from browser.engines.conftest import TRANSPORTS, Connect, OpenPage, StartSite
from browser.engines.drivers import Engine
from browser.engines.site import Site
from support import nth, nths, wait_until

pytestmark = [pytest.mark.live, pytest.mark.long]

each_transport = pytest.mark.parametrize("transport", TRANSPORTS)

KEEPS_CONNECTED_PAGES = {"chromium", "webkit"}
"""Engines whose back button returns to a page as it was, although it had a connection.

Firefox loads such a page again. It keeps one that polls, and has no connection most of the time.
"""


@each_transport
def test_a_page_that_is_reloaded_continues_at_its_position(site: Site, connect: Connect, transport: str) -> None:
    page = connect(transport, stored=True)
    site.publish(2)
    page.received(2)

    page.reload()
    site.publish(2)
    page.connect(site.token(), stored=True, transports=[transport]).received(2)

    assert [(nth(3), True), (nth(4), True)] == page.flags


@each_transport
def test_a_page_that_is_reloaded_during_an_outage_continues(site: Site, connect: Connect, transport: str) -> None:
    page = connect(transport, stored=True)
    site.publish(2)
    page.received(2)

    site.server.stop()
    page.wait_until("stream.status === 'waiting'")
    page.go("about:blank")
    site.server.start()
    site.publish(2)
    page.go(site.page).connect(site.token(), stored=True, transports=[transport]).received(2)

    # The log was in memory, and its messages are of another epoch.
    assert ["reset"] == [kind for kind, _ in page.events]
    assert nths(1, 2) == page.numbers


@each_transport
def test_the_back_button_returns_to_a_page_that_resumes(
    engine: Engine, site: Site, connect: Connect, transport: str
) -> None:
    page = connect(transport, stored=True)
    site.publish()
    page.received(1)

    page.go(site.at("localhost") + "/page")
    wait_until(lambda: not site.server.manager.connections)
    site.publish(2)
    page.back()
    kept = page.evaluate("'stream' in globalThis")
    if not kept:
        page.connect(site.token(), stored=True, transports=[transport])
    page.wait_until(f"stream.position === {nth(3)}").live()

    assert [(nth(2), True), (nth(3), True)] == page.flags[-2:]
    assert [] == page.events
    assert kept == (engine.name in KEEPS_CONNECTED_PAGES or transport == "polling")


def test_a_page_that_is_left_closes_its_connection(site: Site, connect: Connect) -> None:
    page = connect("websocket")

    page.go("about:blank")

    wait_until(lambda: not site.server.manager.connections)


@each_transport
def test_a_worker_may_use_the_client(site: Site, open_page: OpenPage, transport: str) -> None:
    page = open_page()
    page.evaluate(
        f"""((token, transport) => {{
            const source = `
                import {{ connect }} from "${{location.origin}}/websocket/client.js";
                const options = {{ token: "${{token}}", transports: ["${{transport}}"] }};
                const stream = connect("${{location.origin}}", options);
                stream.addEventListener("status", ({{ detail }}) => postMessage(detail.status));
                stream.on("*", ({{ sequence_number }}) => postMessage(sequence_number));
            `;
            const url = URL.createObjectURL(new Blob([source], {{ type: "text/javascript" }}));
            globalThis.posted = [];
            new Worker(url, {{ type: "module" }}).onmessage = ({{ data }}) => posted.push(data);
        }})("{site.token()}", "{transport}")"""
    )
    page.wait_until("posted.includes('live')")

    site.publish(2)
    page.wait_until(f"posted.includes({nth(2)})")
    site.network.cut()
    site.publish(2)
    page.wait_until(f"posted.includes({nth(4)})")

    assert nths(1, 2, 3, 4) == page.evaluate("posted.filter((each) => Number.isInteger(each))")


@each_transport
def test_a_page_of_an_allowed_origin_connects(start_site: StartSite, open_page: OpenPage, transport: str) -> None:
    site = start_site(allowed_origins="http://localhost:*")
    page = open_page(site.at("localhost") + "/page").hurry()

    page.connect(site.token(), url=site.url, transports=[transport]).live()
    site.publish()
    number = page.evaluate("stream.publish({ type: 'mine' })")
    page.received(2)

    assert nth(2) == number
    assert nths(1, 2) == page.numbers


def test_a_page_of_another_origin_is_refused(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.at("localhost") + "/page")

    page.connect(site.token(), url=site.url).wait_until("stream.status === 'closed'")

    [[kind, detail]] = page.events
    assert ("refused", 4403) == (kind, detail["code"])


@each_transport
def test_cookies_authenticate_a_page(cookie_site: Site, open_page: OpenPage, transport: str) -> None:
    page = open_page(cookie_site.page).hurry()
    page.evaluate("void (document.cookie = 'session=valid')")

    page.connect(None, transports=[transport]).live()
    number = page.evaluate("stream.publish({ type: 'mine' })")
    cookie_site.network.cut()
    cookie_site.publish()
    page.received(2)

    assert [number, number + 1] == page.numbers


@pytest.mark.parametrize("address", ["'/'", "new URL(location.origin)", "location.origin + '/'"])
def test_an_address_may_have_every_usual_form(site: Site, open_page: OpenPage, address: str) -> None:
    page = open_page()

    page.evaluate(
        f"""import("/websocket/client.js").then(({{ connect }}) => {{
            globalThis.stream = connect({address}, {{ token: "{site.token()}" }});
            globalThis.numbers = [];
            stream.on("*", ({{ sequence_number }}) => numbers.push(sequence_number));
        }})"""
    )
    page.live()
    site.publish(2)
    page.wait_until("numbers.length === 2")

    assert nths(1, 2) == page.evaluate("numbers")


def test_messages_wait_for_a_handler_that_is_added_later(site: Site, open_page: OpenPage) -> None:
    """A page may have to wait for something between ``connect`` and ``on``, for longer than a connection takes."""
    site.publish(50)
    page = open_page()

    page.evaluate(
        f"""import("/websocket/client.js").then(async ({{ connect }}) => {{
            globalThis.stream = connect(location.origin, {{ token: "{site.token()}", since: 0 }});
            await new Promise((resolve) => setTimeout(resolve, 500));
            globalThis.numbers = [];
            stream.on("*", ({{ sequence_number }}) => numbers.push(sequence_number));
        }})"""
    )
    site.publish(2)
    page.wait_until(f"stream.position === {nth(52)}")

    assert nths(*range(1, 53)) == page.evaluate("numbers")
