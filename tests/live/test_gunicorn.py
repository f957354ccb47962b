"""gunicorn with the worker class of this package: native classes, drain, and what gunicorn asks of a worker."""

import importlib.util
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from own_application import FIVE_LINES, TALKATIVE, TOKEN, Served, farewell, message_of, served, websockets
from raw_client import RawClient
from support import wait_until
from unmissed.lab.engine_servers import RedisServer
from unmissed.lab.process import free_ports

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(importlib.util.find_spec("gunicorn") is None, reason="gunicorn is not installed"),
]

FAREWELL = ("reconnect", 1012)
READY = "Application startup complete"


def gunicorn(*options: str) -> tuple[str, ...]:
    """Return the command for an application on any free port."""
    [port] = free_ports(1)
    worker = ("--worker-class", "unmissed.server.GunicornWorker", "--bind", f"127.0.0.1:{port}")
    return ("gunicorn", "shop:app", *worker, "--no-control-socket", *options)


def ready(server: Served) -> int:
    """Wait until one worker serves, and return the port."""
    port = server.port()
    server.line_with(READY)
    return port


def test_a_worker_asks_its_clients_to_reconnect_with_the_native_classes(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(TALKATIVE)
    with served(tmp_path, *gunicorn()) as server:
        port = ready(server)
        with RawClient(f"http://127.0.0.1:{port}") as raw, websockets(port, 10) as clients:
            raw.send(
                b"GET /ws HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                b"Authorization: Bearer %b\r\n\r\n" % TOKEN.encode()
            )
            head = raw.head().lower()
            status, written = server.stop()
            farewells = [farewell(client) for client in clients]

    assert [FAREWELL] * 10 == farewells
    assert b"\r\ndate:" not in head
    assert 0 == status
    assert written.count("lifespan ends") == 1
    assert "Traceback" not in written
    assert "was sent SIG" not in written


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_quick_shutdown_drains_too(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "shop.py").write_text(FIVE_LINES)
    with served(tmp_path, *gunicorn()) as server, websockets(ready(server), 3) as clients:
        status, _ = server.stop(number)

        assert [FAREWELL] * 3 == [farewell(client) for client in clients]
    assert 0 == status


@contextmanager
def stalled(port: int) -> Iterator[None]:
    """Connect a client that reads nothing, and for which more waits than the systems take. These are 8 requests."""
    with RawClient(f"http://127.0.0.1:{port}", receive_buffer=4_096) as client:
        client.handshake(f"Authorization: Bearer {TOKEN}")
        for _ in range(8):
            body = [{"type": "filler", "data": "x" * 65_000}] * 15
            assert 201 == publish(port, body).status_code
        yield


def publish(port: int, body: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx.post(f"http://127.0.0.1:{port}/websocket/messages", json=body, headers=headers, timeout=60)


@pytest.mark.long
def test_the_drain_fits_in_the_graceful_timeout(tmp_path: Path) -> None:
    """A client that reads nothing holds a worker up, until gunicorn kills it, and the lifespan does not end."""
    (tmp_path / "shop.py").write_text(TALKATIVE)
    options = gunicorn("--graceful-timeout", "6")
    with served(tmp_path, *options, UNMISSED_DRAIN_SECONDS="120") as server, stalled(ready(server)):
        status, written = server.stop()

    assert 0 == status
    assert "lifespan ends" in written
    assert "SIGKILL" not in written


@pytest.mark.long
def test_a_worker_is_not_aborted_while_it_drains(tmp_path: Path) -> None:
    """After its last request, it waits for the client that reads nothing, longer than a worker may be silent."""
    (tmp_path / "shop.py").write_text(TALKATIVE)
    options = gunicorn("--max-requests", "8", "--timeout", "2", "--graceful-timeout", "16", "--preload")
    with served(tmp_path, *options, UNMISSED_DRAIN_SECONDS="120") as server, stalled(ready(server)):
        written = server.line_with(READY)

    assert "lifespan ends" in written
    assert "WORKER TIMEOUT" not in written


@pytest.mark.long
def test_workers_without_a_log_that_they_share_are_refused_and_gunicorn_gives_up(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(FIVE_LINES)
    with served(tmp_path, *gunicorn("--workers", "2")) as server:
        status, written = server.end()

    # If the second worker ends while gunicorn gives up because of the first, the status is 1.
    assert status in (3, 1)
    assert "this log belongs to one process and cannot be shared by several workers" in written


@pytest.mark.long
def test_an_application_without_a_manager_is_refused_and_gunicorn_gives_up(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(FIVE_LINES.replace("lifespan=manager.lifespan", ""))
    with served(tmp_path, *gunicorn()) as server:
        status, written = server.end()

    assert 3 == status
    assert "unmissed: the application has started no ConnectionManager" in written


@pytest.mark.long
def test_an_invalid_configuration_is_reported_in_one_line_and_gunicorn_gives_up(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        FIVE_LINES.replace("Manager()", "Manager(Settings(log_url='sqlite:no/log.db'))").replace(
            "import ConnectionManager", "import Settings, ConnectionManager"
        )
    )
    with served(tmp_path, *gunicorn()) as server:
        status, written = server.end()

    assert 3 == status
    assert "unmissed: no/log.db cannot be used for the log: " in written
    assert "Traceback" not in written


@pytest.mark.long
def test_workers_of_a_preloaded_application_share_a_log(tmp_path: Path, redis_server: RedisServer) -> None:
    (tmp_path / "shop.py").write_text(FIVE_LINES)
    url = f"redis://127.0.0.1:{redis_server.port}?name=preloaded"
    with served(tmp_path, *gunicorn("--workers", "2", "--preload"), UNMISSED_LOG_URL=url) as server:
        port = ready(server)
        server.line_with(READY)
        with websockets(port, 12) as clients:
            published = publish(port, {"type": "a"})
            received = [message_of(client) for client in clients]
            status, _ = server.stop()

            assert [FAREWELL] * 12 == [farewell(client) for client in clients]
    assert [published.json()["sequence_number"]] * 12 == received
    assert 0 == status


@pytest.mark.long
def test_after_its_last_request_a_worker_drains_and_another_one_serves(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(FIVE_LINES)
    with served(tmp_path, *gunicorn("--max-requests", "3")) as server:
        port = ready(server)
        with websockets(port, 3) as clients:
            for _ in range(3):
                httpx.get(f"http://127.0.0.1:{port}/livez")

            assert [FAREWELL] * 3 == [farewell(client) for client in clients]
        server.line_with(READY)
        wait_until(lambda: httpx.get(f"http://127.0.0.1:{port}/livez").status_code == 200)
        status, _ = server.stop()

    assert 0 == status


@pytest.mark.long
def test_a_worker_is_replaced_after_a_change_and_drains(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(TALKATIVE)
    with served(tmp_path, *gunicorn("--reload", "--reload-engine", "poll")) as server:
        with websockets(ready(server), 3) as clients:
            (tmp_path / "shop.py").write_text(FIVE_LINES)

            assert [FAREWELL] * 3 == [farewell(client) for client in clients]
        server.line_with(READY)
        status, written = server.stop()

    assert 0 == status
    assert "lifespan ends" not in written


@pytest.mark.long
def test_a_worker_ends_when_gunicorn_was_killed(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(TALKATIVE)
    with served(tmp_path, *gunicorn()) as server, websockets(ready(server), 3) as clients:
        _, written = server.stop(signal.SIGKILL)

        assert [FAREWELL] * 3 == [farewell(client) for client in clients]
    assert "lifespan ends" in written


@pytest.mark.long
def test_sighup_replaces_a_worker_which_drains_although_its_log_belongs_to_one_process(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(FIVE_LINES)
    with served(tmp_path, *gunicorn()) as server:
        with websockets(ready(server), 3) as clients:
            server.send(signal.SIGHUP)

            assert [FAREWELL] * 3 == [farewell(client) for client in clients]
        server.line_with(READY)
        status, _ = server.stop()

    assert 0 == status
