"""The client in a real browser, on live servers and networks that fail."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI, HTTPException
from starlette.requests import HTTPConnection
from websockets.sync.client import connect

from browser.client_page import ClientPage
from browser.devtools import asleep, crash, debugged
from browser.proxy import Proxy
from support import FIRST, LOGGED, SOCKETS, nth, nths
from unmissed import ConnectionManager, Identity, Settings, create_router
from unmissed.lab.proxy import WebSocketSupport
from unmissed.testing import SECRET, LiveServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
PROTOCOL = ROOT / ".github" / "docs" / "protocol.md"
PAGES = [
    ROOT / "README.md",
    ROOT / ".github" / "docs" / "browser.md",
    ROOT / "src" / "unmissed" / "browser" / "README.md",
]

Start = Callable[..., LiveServer]
Open = Callable[..., ClientPage]

_FIRST = 1_796_000_000_000_001

streaming = pytest.mark.parametrize("transport", ["websocket", "events"])
"""Run a test on both transports that the server writes to."""


@pytest.fixture(scope="module")
def chromium(chromium_path: str) -> Iterator["Browser"]:
    """Return a browser that the tests share; each test has its own profile."""
    with debugged(chromium_path) as browser:
        yield browser


@pytest.fixture
def context(chromium: "Browser") -> Iterator["BrowserContext"]:
    """Return a profile: its pages share storage, locks and channels."""
    context = chromium.new_context()
    context.set_default_timeout(60_000)
    yield context
    context.close()


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts a server with these settings."""
    with ExitStack() as stack:

        def start(**settings: Any) -> LiveServer:
            settings = {"drain_seconds": 0.1, **settings}
            return stack.enter_context(
                LiveServer(settings=Settings.load(jwt_secret=SECRET, **settings), **SOCKETS["native"], **LOGGED)
            )

        yield start


@pytest.fixture
def server(start: Start) -> LiveServer:
    return start()


@pytest.fixture
def proxy(server: LiveServer) -> Iterator[Proxy]:
    """Return a network in front of the server."""
    with proxied(server) as proxy:
        yield proxy


@pytest.fixture
def open_page(context: "BrowserContext", server: LiveServer) -> Open:
    """Return a function that opens a page with a client of the server, or of what is at another URL."""

    def open_page(url: str | None = None) -> ClientPage:
        return ClientPage(context.new_page(), url or server.url)

    return open_page


def proxied(server: LiveServer) -> Proxy:
    return Proxy(int(server.url.rpartition(":")[2]))


def publish(server: LiveServer, count: int = 1, size: int = 1) -> None:
    for _ in range(count):
        server.publish("chat", "x" * size)


def come_online(server: LiveServer, context: "BrowserContext", page: ClientPage) -> int:
    """Publish two messages, end the offline state, and return the answer to what the page published."""
    publish(server, 2)
    context.set_offline(False)
    answer: int = page.evaluate("answer")
    page.received(3)
    return answer


def examples(page: Path) -> list[str]:
    return re.findall(r"```javascript\n(.*?)```", page.read_text(), re.DOTALL)


def as_served(example: str) -> str:
    """Return an example that imports the client from the server, and not from npm."""
    return example.replace('"unmissed"', '"/websocket/client.js"')


def until(condition: Callable[[], object], page: ClientPage) -> None:
    """Let the browser run until this holds."""
    for _ in range(1_000):
        if condition():
            return
        page.page.wait_for_timeout(10)
    raise TimeoutError("the condition did not become true")


def flags(page: ClientPage) -> list[tuple[int, bool]]:
    return [(number, recovered) for number, recovered, _ in page.evaluate("seen.messages")]


@streaming
def test_a_dropped_connection_recovers_what_it_missed(server: LiveServer, open_page: Open, transport: str) -> None:
    page = open_page().connect(server.token(), transports=[transport]).live()
    publish(server, 2)
    page.received(2)

    page.evaluate("stream.drop(300)")
    publish(server, 3)
    page.received(5).live()
    publish(server)
    page.received(6)

    assert [(nth(1), False), (nth(2), False), (nth(3), True), (nth(4), True), (nth(5), True), (nth(6), False)] == flags(
        page
    )
    assert ["live", "waiting", "connecting", "recovering", "live"] == page.evaluate("seen.statuses")


def test_a_page_that_is_reloaded_continues_at_its_position(server: LiveServer, open_page: Open) -> None:
    page = open_page().connect(server.token(), stored=True).live()
    publish(server, 2)
    page.received(2)

    page.page.reload()
    publish(server, 2)
    page.connect(server.token(), stored=True).received(2)

    assert [(nth(3), True), (nth(4), True)] == flags(page)


def close(page: "Page") -> None:
    page.close()


@streaming
@pytest.mark.parametrize("end", [close, pytest.param(crash, marks=pytest.mark.long)])
def test_tabs_share_one_connection_and_lose_nothing_when_the_leader_ends(
    server: LiveServer, open_page: Open, end: Callable[["Page"], None], transport: str
) -> None:
    options = {"shared": True, "transports": [transport]}
    leader, *others = [open_page().connect(server.token(), **options).live() for _ in range(3)]
    publish(server, 2)
    for page in (leader, *others):
        page.received(2)
    assert [transport] == [each.transport for each in server.manager.connections]

    end(leader.page)
    publish(server, 2)
    for page in others:
        page.received(4)
    answer = others[1].evaluate("stream.publish({ type: 'chat' })")

    assert nth(5) == answer
    for page in others:
        page.received(5)
        assert nths(1, 2, 3, 4, 5) == page.numbers
    # The end of the leader's connection may reach the server after the connection of its successor.
    until(lambda: [transport] == [each.transport for each in server.manager.connections], others[0])


def test_a_page_that_was_offline_receives_everything_and_publishes_once(
    server: LiveServer, context: "BrowserContext", open_page: Open
) -> None:
    page = open_page().connect(server.token(), transports=["events"]).live()

    context.set_offline(True)
    with page.page.expect_event("requestfailed"):
        page.evaluate("void (globalThis.answer = stream.publish({ type: 'mine' }))")
    answer = come_online(server, context, page)

    assert nth(3) == answer
    assert nths(1, 2, 3) == page.numbers


@pytest.mark.long
@pytest.mark.parametrize(("transport", "end"), [("websocket", ""), ("events", "stream.drop()")])
def test_a_page_that_comes_online_resumes_at_once(
    server: LiveServer, context: "BrowserContext", open_page: Open, transport: str, end: str
) -> None:
    """Chromium's emulation silences open WebSockets, but not the open responses of requests, which the page drops.

    New connections of both kinds fail.
    """
    page = open_page().connect(server.token(), transports=[transport]).live()
    # Makes pauses long.
    page.evaluate("void (Math.random = () => 1)")

    context.set_offline(True)
    page.evaluate(f"void (globalThis.answer = stream.publish({{ type: 'mine' }})); {end}")
    page.wait_until("stream.status === 'waiting'")
    answer = come_online(server, context, page)

    assert nth(3) == answer
    assert nths(1, 2, 3) == page.numbers
    assert 0 == page.evaluate("seen.pauses.at(-1)")


def test_what_is_published_without_a_connection_arrives_once(server: LiveServer, proxy: Proxy, open_page: Open) -> None:
    page = open_page(proxy.url).connect(server.token()).live()

    proxy.faults.refuses = True
    proxy.cut()
    page.wait_until("stream.status === 'waiting'")
    page.evaluate(
        "void (globalThis.answers = Promise.all([1, 2, 3].map((data) => stream.publish({ type: 'a', data }))))"
    )
    proxy.faults.refuses = False
    answers = page.evaluate("answers")
    page.received(3)

    assert nths(1, 2, 3) == answers
    assert [[nth(data), data] for data in (1, 2, 3)] == [
        [number, data] for number, _, data in page.evaluate("seen.messages")
    ]


def test_a_page_that_was_frozen_resumes_when_it_wakes(server: LiveServer, chromium: "Browser") -> None:
    context = chromium.contexts[0]
    page = ClientPage(context.new_page(), server.url).connect(server.token()).live()
    lifecycle = context.new_cdp_session(page.page)

    lifecycle.send("Page.setWebLifecycleState", {"state": "frozen"})
    until(lambda: not server.manager.connections, page)
    publish(server, 2)
    lifecycle.send("Page.setWebLifecycleState", {"state": "active"})
    page.received(2)

    assert [(nth(1), True), (nth(2), True)] == flags(page)


@pytest.mark.long
def test_a_page_from_the_back_forward_cache_resumes(server: LiveServer, chromium: "Browser") -> None:
    page = ClientPage(chromium.contexts[0].new_page(), server.url).connect(server.token()).live()
    page.evaluate("addEventListener('pageshow', ({ persisted }) => (globalThis.persisted = persisted))")
    publish(server)
    page.received(1)

    page.page.goto("about:blank")
    until(lambda: not server.manager.connections, page)
    publish(server, 2)
    page.page.go_back(wait_until="commit")
    page.received(3)

    assert page.evaluate("persisted")
    assert [(nth(1), False), (nth(2), True), (nth(3), True)] == flags(page)


@pytest.mark.long
def test_a_page_that_slept_without_being_told_notices_that_its_connection_is_dead(
    start: Start, chromium: "Browser"
) -> None:
    server = start(heartbeat_seconds=0.2)
    with proxied(server) as proxy:
        page = ClientPage(chromium.contexts[0].new_page(), proxy.url).connect(server.token()).live()

        with asleep(chromium):
            proxy.silence()
            publish(server, 3)
            wait_for_heartbeats(server, 4)
        page.received(3).live()

        assert [(nth(1), True), (nth(2), True), (nth(3), True)] == flags(page)
        assert ["live", "waiting", "connecting", "recovering", "live"] == page.evaluate("seen.statuses")


def wait_for_heartbeats(server: LiveServer, count: int) -> None:
    """Let so many heartbeats pass. The first one comes early."""
    with connect(server.websocket_url, additional_headers=server.headers("bob"), proxy=None) as websocket:
        for _ in range(1 + count):
            websocket.recv()


@pytest.mark.long
def test_a_second_cut_during_the_recovery_loses_nothing(server: LiveServer, proxy: Proxy, open_page: Open) -> None:
    page = open_page(proxy.url).connect(server.token()).live()

    proxy.limit = 100_000
    proxy.cut()
    publish(server, 60, size=10_000)
    page.received(9).wait_until("seen.statuses.filter((status) => status === 'recovering').length > 2")
    proxy.limit = None
    page.received(60)

    assert nths(*range(1, 61)) == page.numbers


@streaming
def test_what_is_lost_is_told(start: Start, context: "BrowserContext", transport: str) -> None:
    server = start(max_messages=5)
    options = {"snapshots": {}, "transports": [transport]}
    page = ClientPage(context.new_page(), server.url).connect(server.token(), **options).live()

    page.evaluate("stream.drop(500)")
    publish(server, 10)
    page.received(5)

    assert [["gap", {"type": "gap", "from": nth(1), "to": nth(5)}]] == page.events
    assert nths(6, 7, 8, 9, 10) == page.numbers
    assert 2 == page.evaluate("seen.snapshots")


def change(server: LiveServer, key: str, data: object = None, **fields: Any) -> None:
    server.manager.publish_threadsafe({"type": "cart", "key": key, "data": data, **fields}, topics=["users.42"])


KEEP = "begin({token}, {options}).then(() => { globalThis.map = stream.state('users.42'); })"
VALUES = "JSON.stringify(Object.fromEntries([...map].map(([key, { data }]) => [key, data])))"


def keep(page: ClientPage, server: LiveServer, **options: Any) -> ClientPage:
    """Connect, and keep the values of a topic."""
    token = json.dumps(server.token(topics=["users.42"]))
    page.evaluate(KEEP.replace("{token}", token).replace("{options}", json.dumps(options)))
    return page.wait_until("map.loaded")


def until_values(page: ClientPage, **expected: object) -> None:
    text = json.dumps(json.dumps(expected, separators=(",", ":")))
    page.wait_until(f"{VALUES} === {text}")


@pytest.mark.parametrize("transport", ["websocket", "events", "polling"])
def test_values_are_those_of_the_server_after_a_reconnect(server: LiveServer, open_page: Open, transport: str) -> None:
    change(server, "a", 1)
    change(server, "b", 2)
    page = keep(open_page(), server, transports=[transport])
    until_values(page, a=1, b=2)

    page.evaluate("stream.drop(300)")
    for number in range(40):
        change(server, "a", number)
    change(server, "b", deleted=True)
    change(server, "text", "On")
    change(server, "text", "ce", append=True)
    until_values(page, a=39, text="Once")
    change(server, "text", " upon", append=True)

    until_values(page, a=39, text="Once upon")
    assert [] == page.events


@pytest.mark.parametrize("transport", ["websocket", "events", "polling"])
def test_values_are_those_of_the_server_after_a_gap(start: Start, context: "BrowserContext", transport: str) -> None:
    server = start(max_messages=10)
    change(server, "a", 1)
    change(server, "b", 2)
    page = keep(ClientPage(context.new_page(), server.url), server, transports=[transport]).live()

    page.evaluate("stream.drop(300)")
    change(server, "b", deleted=True)
    change(server, "c", 3)
    publish(server, 40)
    until_values(page, a=1, c=3)

    assert ["gap"] == [kind for kind, _ in page.events]


@pytest.mark.parametrize("transport", ["websocket", "events"])
def test_an_ephemeral_message_reaches_other_pages_and_leaves_no_trace(
    server: LiveServer, open_page: Open, transport: str
) -> None:
    options = {"transports": [transport]}
    page, other = (open_page().connect(server.token(), **options).live() for _ in range(2))
    position = other.evaluate("stream.position")

    number = page.evaluate("stream.publish({ type: 'typing', ephemeral: true, data: 'alice' })")
    other.received(1)

    assert number is None
    assert [[None, False, "alice"]] == other.evaluate(
        "seen.messages.map(([number, ...rest]) => [number ?? null, ...rest])"
    )
    assert position == other.evaluate("stream.position")


@streaming
def test_a_snapshot_that_is_older_than_the_connection_loses_nothing(
    start: Start, context: "BrowserContext", transport: str
) -> None:
    server = start(first_number=_FIRST)
    publish(server, 5)
    options = {"snapshots": {"number": _FIRST + 1}, "transports": [transport]}
    page = ClientPage(context.new_page(), server.url).connect(server.token(), **options)

    page.received(3).live()
    publish(server)
    page.received(4)

    assert [_FIRST + 2, _FIRST + 3, _FIRST + 4, _FIRST + 5] == page.numbers
    assert ([], 1) == (page.events, page.evaluate("seen.snapshots"))


@streaming
def test_a_restart_is_a_reset_and_then_what_is_new(server: LiveServer, open_page: Open, transport: str) -> None:
    page = open_page().connect(server.token(), transports=[transport]).live()
    publish(server, 3)
    page.received(3)

    server.restart()
    publish(server, 2)
    page.received(5)

    assert [["reset", {"type": "reset", "epoch": server.manager.window.epoch}]] == page.events
    assert nths(1, 2, 3, 1, 2) == page.numbers


def test_a_hand_written_client_receives_the_same(server: LiveServer, open_page: Open) -> None:
    [example] = examples(PROTOCOL)
    page = open_page().connect(server.token()).live()
    page.evaluate(f"() => {{ {example}; globalThis.byHand = connect; }}")
    page.page.evaluate(
        """async ([url, token]) => {
            globalThis.theirs = [];
            const getToken = async () => token;
            const onMessage = ({ sequence_number }) => theirs.push(sequence_number);
            byHand(url, { getToken, onMessage, onLoss() {}, onRefused() {} });
        }""",
        [server.websocket_url, server.token()],
    )
    until(lambda: len(server.manager.connections) == 2, page)

    publish(server, 2)
    page.wait_until("theirs.length === 2")
    server.drop()
    publish(server, 3)
    page.received(5).wait_until("theirs.length === 5")

    assert nths(1, 2, 3, 4, 5) == page.numbers == page.evaluate("theirs")


def test_a_token_is_renewed_while_the_connection_stays(server: LiveServer, open_page: Open) -> None:
    """The clock of the page goes forward: a token that soon expires may have expired before a busy machine uses it."""
    page = open_page().connect([server.token(expires_in=3600), server.token(expires_in=7200)]).live()
    [connection] = server.manager.connections

    page.evaluate("((now) => void (performance.now = () => now() + 3_600_000))(performance.now.bind(performance))")
    page.evaluate("void dispatchEvent(new Event('offline'))")
    until(lambda: connection.earlier, page)
    publish(server)
    page.received(1)

    assert [connection] == list(server.manager.connections)
    assert ["live"] == page.evaluate("seen.statuses")


@pytest.mark.long
def test_a_provider_that_fails_is_asked_again(server: LiveServer, open_page: Open) -> None:
    page = open_page().connect([None, None, server.token()]).live()

    assert 3 == page.evaluate("seen.tokens")


@pytest.mark.long
def test_tokens_that_are_refused_for_half_a_minute_end_the_stream(open_page: Open) -> None:
    page = open_page()
    # Makes all pauses short.
    page.evaluate("void (Math.random = () => 0.1)")
    page.connect("garbage").wait_until("seen.tokens > 3")
    assert [] == page.events

    page.evaluate("{ const now = Date.now; Date.now = () => now() + 30_000; }")
    page.wait_until("stream.status === 'closed'")

    detail = {"code": 4401, "reason": "the token is invalid or expired"}
    assert [["unauthorized", detail]] == page.events


@pytest.mark.long
@pytest.mark.parametrize("transports", [["websocket", "events", "polling"], ["websocket", "polling"]])
def test_another_transport_replaces_websockets_that_are_blocked_and_gives_way_to_them_again(
    server: LiveServer, proxy: Proxy, open_page: Open, transports: list[str]
) -> None:
    proxy.faults.websockets = WebSocketSupport.NONE
    page = open_page(proxy.url)
    # Makes all pauses short.
    page.evaluate("void (Math.random = () => 0.1)")
    page.connect(server.token(), transports=transports).live()
    publish(server, 2)
    number = page.evaluate("stream.publish({ type: 'chat' })")
    page.received(3)
    assert transports[1] == page.evaluate("stream.transport")

    proxy.faults.websockets = WebSocketSupport.FULL
    until(lambda: server.publish("chat") and page.evaluate("stream.transport") == "websocket", page)
    publish(server, 2)
    page.received(server.manager.window.latest - nth(0))

    assert nth(3) == number
    assert [*range(FIRST, server.manager.window.latest + 1)] == page.numbers
    assert [] == page.events


@pytest.mark.long
def test_a_page_whose_policy_forbids_websockets_uses_events(server: LiveServer, context: "BrowserContext") -> None:
    """Chromium fires ``error`` without ``close``."""
    policy = {"Content-Security-Policy": "connect-src http:"}
    context.route("**/csp", lambda route: route.fulfill(content_type="text/html", headers=policy, body=""))

    page = ClientPage(context.new_page(), server.url, path="/csp").connect(server.token()).live()

    assert "events" == page.evaluate("stream.transport")


@pytest.mark.long
def test_websockets_that_are_never_answered_do_not_hold_a_page_up(
    server: LiveServer, proxy: Proxy, open_page: Open
) -> None:
    proxy.faults.websockets = WebSocketSupport.HANGING

    page = open_page(proxy.url).connect(server.token()).live()

    assert "events" == page.evaluate("stream.transport")
    assert "waiting" not in page.evaluate("seen.statuses")


@pytest.mark.long
def test_a_proxy_that_removes_the_subprotocol_leaves_websockets(
    server: LiveServer, proxy: Proxy, open_page: Open
) -> None:
    proxy.faults.websockets = WebSocketSupport.WITHOUT_SUBPROTOCOLS
    page = open_page(proxy.url).connect(server.token(), transports=["websocket"]).live()

    publish(server)
    page.received(1)
    proxy.cut()
    page.wait_until("seen.statuses.includes('recovering')").live()

    assert ["waiting"] * 2 == [status for status in page.evaluate("seen.statuses") if status == "waiting"]


@pytest.fixture
def cookie_server() -> Iterator[LiveServer]:
    """Return a server that knows alice by a cookie, and lets pages of other origins of this machine connect."""
    settings = Settings.load(jwt_secret=SECRET, drain_seconds=0.1, allowed_origins="http://127.0.0.1:*")
    manager = ConnectionManager(settings)
    app = FastAPI(lifespan=manager.lifespan)

    def authenticate(connection: HTTPConnection) -> Identity:
        if connection.cookies.get("session") != "valid":
            raise HTTPException(401, "log in first")
        return Identity("alice", scopes=frozenset({"messages:publish"}))

    app.include_router(create_router(manager, authenticate=authenticate))
    with LiveServer(app, manager=manager, **SOCKETS["native"], **LOGGED) as server:
        yield server


@pytest.fixture
def sibling(server: LiveServer, cookie_server: LiveServer, context: "BrowserContext") -> ClientPage:
    """Return a page of another origin, whose visitor has logged in."""
    context.add_cookies([{"name": "session", "value": "valid", "url": cookie_server.url}])
    return ClientPage(context.new_page(), server.url)


@pytest.mark.long
@pytest.mark.parametrize("transport", ["websocket", "events", "polling"])
def test_a_page_of_a_sibling_origin_sends_its_cookies(
    cookie_server: LiveServer, sibling: ClientPage, transport: str
) -> None:
    options = {"url": cookie_server.url, "transports": [transport], "credentials": "include"}
    sibling.connect(None, **options).live()

    number = sibling.evaluate("stream.publish({ type: 'chat' })")
    sibling.received(1)

    assert [number] == sibling.numbers


@pytest.mark.long
def test_transports_that_send_no_cookies_do_not_end_a_page(cookie_server: LiveServer, sibling: ClientPage) -> None:
    with proxied(cookie_server) as proxy:
        sibling.connect(None, url=proxy.url).live()
        sibling.evaluate("void (Math.random = () => 0.1)")

        proxy.faults.websockets = WebSocketSupport.NONE
        proxy.cut()
        sibling.wait_until("seen.codes.includes(4401)")
        proxy.faults.websockets = WebSocketSupport.FULL
        sibling.live()

        assert [] == sibling.events
        assert "websocket" == sibling.evaluate("stream.transport")


@pytest.mark.long
def test_polling_is_the_last_resort(server: LiveServer, open_page: Open) -> None:
    publish(server, 2)
    page = open_page().connect(server.token(), transports=["polling"]).live()

    publish(server)
    number = page.evaluate("stream.publish({ type: 'chat' })")
    page.received(2)

    assert nth(4) == number
    assert nths(3, 4) == page.numbers


@pytest.mark.long
@pytest.mark.parametrize("transport", ["websocket", "events", "polling"])
def test_commands_and_topics_work_on_every_transport(server: LiveServer, open_page: Open, transport: str) -> None:
    @server.manager.command("double")
    def double(number: int) -> int:
        return 2 * number

    page = open_page().connect(server.token(topics=["a", "b"]), transports=[transport], topics=["a"]).live()

    assert 42 == page.evaluate("stream.command('double', 21)")
    assert 4400 == page.evaluate("stream.command('double', 'x').catch(({ code }) => code)")
    assert ["a", "b"] == page.evaluate("stream.follow('b')")
    page.live()
    server.publish("chat", topics=["b"])
    page.received(1)


def test_a_page_of_another_origin_uses_events(start: Start, context: "BrowserContext") -> None:
    server, other = start(allowed_origins="http://127.0.0.1:*"), start()
    page = ClientPage(context.new_page(), other.url)

    page.connect(server.token(), url=server.url, transports=["events"]).live()
    number = page.evaluate("stream.publish({ type: 'chat' })")
    page.received(1)

    assert [number] == page.numbers


def test_a_handler_that_throws_is_reported_and_stops_nothing(server: LiveServer, open_page: Open) -> None:
    page = open_page().connect(server.token())
    page.evaluate("void stream.on('chat', () => { throw new Error('of a handler'); })")
    page.evaluate("void stream.on('chat', () => { globalThis.called = true; })")
    page.live()

    publish(server, 2)
    page.received(2).wait_until("globalThis.called")

    assert ["Uncaught Error: of a handler"] * 2 == page.evaluate("seen.errors")


def test_messages_wait_for_the_first_handler(server: LiveServer, open_page: Open) -> None:
    page = open_page()
    page.page.evaluate(
        """async (token) => {
            const { connect } = await import("/websocket/client.js");
            globalThis.stream = connect("/", { token, storage: sessionStorage, debug: true });
        }""",
        server.token(),
    )
    page.live()
    publish(server, 50)
    assert nth(51) == page.evaluate("stream.publish({ type: 'chat' })")
    assert [nth(0), 0] == page.evaluate("[stream.position, sessionStorage.length - 1]")

    page.evaluate(
        """{
            globalThis.seen = { messages: [] };
            void stream.on("chat", ({ sequence_number }) => seen.messages.push([sequence_number]));
        }"""
    )
    page.received(51)

    assert [[number] for number in nths(*range(1, 52))] == page.evaluate("seen.messages")
    assert nth(51) == page.evaluate("stream.position")


def test_the_fetch_of_a_snapshot_is_authorized(server: LiveServer, open_page: Open) -> None:
    page = open_page()
    page.page.evaluate(
        """async (token) => {
            const { connect } = await import("/websocket/client.js");
            const snapshot = async ({ fetch }) => (await (await fetch("/websocket/messages?limit=1")).json()).latest;
            globalThis.stream = connect("/", { token, snapshot });
        }""",
        server.token(),
    )

    page.wait_until("stream.snapshotStatus === 'loaded'")


@pytest.mark.parametrize("example", [each for page in PAGES for each in examples(page)])
def test_the_examples_of_the_documentation_receive_messages(server: LiveServer, open_page: Open, example: str) -> None:
    page = open_page()
    token = server.token(topics=["users.42", "rooms.1"])
    page.page.route("**/token", lambda route: route.fulfill(json=token))
    page.page.route("**/orders", lambda route: route.fulfill(json={"items": [{"id": 1}], "sequence_number": 0}))
    source = as_served(example).replace("https://api.example.com", server.url)

    page.page.add_script_tag(type="module", content=f"{source}\nstream.on('order', () => (globalThis.done = true));")

    until(lambda: server.publish("order", {"id": 2}) and page.evaluate("globalThis.done"), page)
    assert [] == page.evaluate("globalThis.seen?.errors ?? []")


@pytest.mark.long
def test_a_worker_may_use_the_client(server: LiveServer, open_page: Open) -> None:
    page = open_page()
    page.page.evaluate(
        """(token) => {
            const source = `
                import { connect } from "${location.origin}/websocket/client.js";
                const stream = connect("${location.origin}", { token: "${token}" });
                stream.addEventListener("status", ({ detail }) => postMessage(detail.status));
            `;
            const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
            globalThis.statuses = [];
            new Worker(url, { type: "module" }).onmessage = ({ data }) => statuses.push(data);
        }""",
        server.token(),
    )

    page.wait_until("statuses.includes('live')")

    assert 1 == len(server.manager.connections)
