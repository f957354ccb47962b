"""``unmissed serve shop.main:app``: the application of a user, served like the built-in one."""

import json
import re
import sys
from pathlib import Path

import httpx
import pytest

from own_application import FIVE_LINES, TALKATIVE, TOKEN, farewell, served, websocket, websockets
from raw_client import RawClient
from support import wait_until
from unmissed.lab.engine_servers import RedisServer

pytestmark = pytest.mark.live

SERVE = ("unmissed", "serve", "--port", "0")
READY = "Application startup complete"
FAREWELL = ("reconnect", 1012)


def test_sigterm_asks_every_client_of_an_application_of_five_lines_to_reconnect(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(FIVE_LINES)
    with served(tmp_path, *SERVE, "shop:app", "--drain-seconds", "1") as server, websockets(server.port(), 20) as all_:
        status, written = server.stop()
        farewells = [farewell(client) for client in all_]

    assert [FAREWELL] * 20 == farewells
    assert 0 == status
    assert "Traceback" not in written


def test_the_lifespan_of_the_application_runs_once_and_ends_after_the_clients_have_left(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(TALKATIVE)
    with served(tmp_path, *SERVE, "shop:app") as server:
        begins = server.line_with("lifespan begins")
        with websockets(server.port(), 3) as clients:
            _, written = server.stop()
            farewells = [farewell(client) for client in clients]

    assert [FAREWELL] * 3 == farewells
    shown = [line for line in (begins + written).splitlines() if line.startswith(("lifespan", "left"))]
    assert ["lifespan begins", "left 1012", "left 1012", "left 1012", "lifespan ends"] == shown


def test_an_application_is_served_with_the_native_classes(tmp_path: Path) -> None:
    """uvicorn's own class answers a handshake with a Date header."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "main.py").write_text(FIVE_LINES)
    with served(tmp_path, *SERVE, "shop.main") as server, RawClient(f"http://127.0.0.1:{server.port()}") as client:
        client.send(
            b"GET /ws HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13"
            b"\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer %b\r\n\r\n" % TOKEN.encode()
        )
        head = client.head().lower()

    assert head.startswith(b"http/1.1 101 ")
    assert b"\r\ndate:" not in head


def test_every_manager_of_an_application_is_drained(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        """
from contextlib import asynccontextmanager
from fastapi import FastAPI
from unmissed import ConnectionManager, create_router

orders, chat = ConnectionManager(), ConnectionManager()

@asynccontextmanager
async def lifespan(app):
    async with orders, chat:
        yield

inner = FastAPI()
inner.include_router(create_router(chat), prefix="/live")
app = FastAPI(lifespan=lifespan)
app.include_router(create_router(orders))
app.mount("/chat", inner)
"""
    )
    with served(tmp_path, *SERVE, "shop:app") as server:
        port = server.port()
        with websockets(port, 2) as of_orders, websockets(port, 2, "/chat/live/ws") as of_chat:
            server.stop()

            assert [FAREWELL] * 4 == [farewell(client) for client in (*of_orders, *of_chat)]


@pytest.mark.parametrize(
    ("code", "arguments", "reason"),
    [
        (FIVE_LINES.replace("lifespan=manager.lifespan", ""), [], "write FastAPI(lifespan=manager.lifespan)"),
        (
            f"from unmissed import Settings\n{FIVE_LINES}".replace("Manager()", "Manager(Settings(max_messages=1000))"),
            ["--max-messages", "2000"],
            "unmissed: --max-messages has no effect, because shop:app sets max_messages in code",
        ),
        (
            f"from unmissed.logs.memory import MemoryLog\n{FIVE_LINES}".replace(
                "Manager()", "Manager(log=MemoryLog())"
            ),
            ["--log-url", "sqlite:log.db"],
            "unmissed: --log-url has no effect, because shop:app passes a log to its ConnectionManager",
        ),
        (
            f"{FIVE_LINES}\nother = ConnectionManager()\napp.include_router(create_router(other), prefix='/other')",
            [],
            "unmissed: shop:app has not started the manager of /other/ws",
        ),
    ],
    ids=["no lifespan", "a flag without effect", "a log in code", "a second manager"],
)
def test_what_an_application_lacks_is_reported_in_one_line_and_its_lifespan_ends(
    tmp_path: Path, code: str, arguments: list[str], reason: str
) -> None:
    (tmp_path / "shop.py").write_text(code)
    with served(tmp_path, *SERVE, "shop:app", *arguments) as server:
        status, written = server.end()

    assert 1 == status
    assert reason in written.splitlines()[-1]
    assert "Application shutdown complete" in written


def test_flags_reach_a_manager_that_reads_the_environment(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(FIVE_LINES)
    with served(
        tmp_path, *SERVE, "shop:app", "--max-messages", "7", "--no-docs", "--log-url", "sqlite:log.db"
    ) as server:
        server.port()
        status, _ = server.stop()

    assert 0 == status
    assert (tmp_path / "log.db").exists()


def test_dev_shows_addresses_with_the_prefix_and_a_token_and_opens_the_console(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(FIVE_LINES.replace("(manager))", "(manager), prefix='/live')"))
    opened = tmp_path / "opened"
    browser = f"{sys.executable} -c \"import sys; open('{opened}', 'w').write(sys.argv[1])\" %s"
    with served(tmp_path, *SERVE, "shop", "--dev", "--open", UNMISSED_JWT_SECRET="", BROWSER=browser) as server:
        port = server.port()
        found = re.search(r"UNMISSED_URL=(\S+) UNMISSED_TOKEN=(\S+)", server.line_with("export"))
        assert found
        url, token = found.groups()
        with websocket(port, "/live/ws", token=token) as client:
            greeting = json.loads(client.recv())
        wait_until(lambda: opened.exists() and opened.read_text())

    assert f"http://127.0.0.1:{port}/live" == url
    assert "connected" == greeting["type"]
    assert f"{url}/websocket/console/#token={token}" == opened.read_text()


@pytest.mark.long
def test_workers_share_a_log_and_ask_their_clients_to_reconnect(tmp_path: Path, redis_server: RedisServer) -> None:
    (tmp_path / "shop.py").write_text(TALKATIVE)
    url = f"redis://127.0.0.1:{redis_server.port}?name=served"
    with served(tmp_path, *SERVE, "shop:app", "--workers", "2", "--log-url", url) as server:
        port = server.port()
        started = server.line_with(READY) + server.line_with(READY)
        with websockets(port, 12) as clients:
            status, written = server.stop()
            farewells = [farewell(client) for client in clients]

    assert [FAREWELL] * 12 == farewells
    assert 0 == status
    assert 2 == written.count("lifespan ends")
    assert "Traceback" not in started + written


@pytest.mark.long
def test_workers_without_a_log_that_they_share_are_refused(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(FIVE_LINES)
    with served(tmp_path, *SERVE, "shop:app", "--workers", "2") as server:
        status, written = server.end()

    assert 0 != status
    assert "unmissed: this log belongs to one process and cannot be shared by several workers" in written
    assert "Traceback" not in written


@pytest.mark.long
def test_a_change_is_served_and_a_broken_one_is_shown_until_it_is_repaired(tmp_path: Path) -> None:
    shop = tmp_path / "shop.py"
    version = "\n@app.get('/version')\ndef version() -> int:\n    return {}\n"
    shop.write_text(FIVE_LINES + version.format(1))
    with served(tmp_path, *SERVE, "shop:app", "--reload") as server:
        port = server.port()
        server.line_with(READY)
        before = httpx.get(f"http://127.0.0.1:{port}/version").json()
        with websockets(port, 3) as clients:
            shop.write_text(FIVE_LINES + "1 / 0\n")
            at_the_change = [farewell(client) for client in clients]
        server.line_with("ZeroDivisionError")
        shop.write_text(FIVE_LINES + version.format(22))
        server.line_with(READY)
        after = httpx.get(f"http://127.0.0.1:{port}/version").json()
        with websockets(port, 3) as clients:
            status, _ = server.stop()
            at_the_end = [farewell(client) for client in clients]

    assert (1, 22) == (before, after)
    assert [FAREWELL] * 3 == at_the_change == at_the_end
    assert 0 == status
