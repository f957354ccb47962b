"""``unmissed serve`` as a process: TLS, and the options for a proxy in front of it."""

import asyncio
import ipaddress
import json
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner
from websockets.sync.client import connect

from event_client import parsed
from support import until
from unmissed import Settings, create_app, issue_token
from unmissed.cli.app import app
from unmissed.cli.tail import run_tail
from unmissed.core.errors import ConfigurationError
from unmissed.core.rest import EVENTS_PATH
from unmissed.framework_names import Config
from unmissed.server import HttpProtocol, Server, WebSocketProtocol
from unmissed.testing import SECRET

TOKEN = issue_token(SECRET, user_id="alice", scope="messages:publish", expires_in=3600)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the files of a self-signed certificate for 127.0.0.1 and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "unmissed test")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    certfile, keyfile = folder / "certificate.pem", folder / "key.pem"
    certfile.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    keyfile.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certfile, keyfile


@contextmanager
def started(*options: str) -> Iterator[Iterator[str]]:
    """Run ``unmissed serve`` on a free port, and return the lines that it prints."""
    command = [sys.executable, "-m", "unmissed", "serve", "--port", "0", *options]
    environment = {**os.environ, "UNMISSED_JWT_SECRET": SECRET}
    with subprocess.Popen(  # noqa: S603  # our own command
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout
        finally:
            process.terminate()


def url_of(lines: Iterator[str]) -> str:
    """Return the URL that uvicorn prints once it listens."""
    return next(found[1] for line in lines if (found := re.search(r"running on (\S+)", line)))


@pytest.fixture(scope="module")
def tls_url(certificate: tuple[Path, Path]) -> Iterator[str]:
    certfile, keyfile = certificate
    with started("--ssl-certfile", str(certfile), "--ssl-keyfile", str(keyfile)) as lines:
        yield url_of(lines)


@pytest.fixture
def _terminated_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def run(*arguments: str) -> list[str]:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert 0 == result.exit_code, result.output
    return result.stdout.splitlines()


@pytest.mark.usefixtures("_terminated_as_before")
def test_serve_speaks_tls_to_publish_and_tail(
    tls_url: str, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))

    [stamp] = run("publish", "chat", "1", "--url", tls_url, "--token", TOKEN)
    before = str(json.loads(stamp)["sequence_number"] - 1)
    received, tally = run("tail", "--since", before, "--stop-after", "1s", "--url", tls_url, "--token", TOKEN)

    assert tls_url.startswith("https://")
    assert str(json.loads(stamp)["sequence_number"]) in received
    assert "-- received 1, recovered 1, lost 0, duplicates 0" == tally


def test_serve_streams_events_over_tls(tls_url: str, certificate: tuple[Path, Path]) -> None:
    headers, context = {"Authorization": f"Bearer {TOKEN}"}, ssl.create_default_context(cafile=certificate[0])
    with (
        httpx.Client(base_url=tls_url, headers=headers, verify=context) as http,
        http.stream("GET", EVENTS_PATH) as response,
    ):
        events = parsed(response.iter_lines())
        types = [next(events).type]
        http.post("/websocket/messages", json={"type": "a", "data": "x" * 60_000})
        while types[-1] != "a":
            types.append(next(events).type)

    assert ["connected", "a"] == [kind for kind in types if kind != "heartbeat"]


async def test_tail_tells_that_a_certificate_is_not_trusted(tls_url: str) -> None:
    lines: list[str] = []

    await run_tail(tls_url, token=TOKEN, since=None, topics=None, drops=None, stop_after=0.5, show=lines.append)

    address = tls_url.replace("https", "wss")
    assert lines[0].startswith(f"-- {address}/ws: the certificate is not trusted (self")
    assert "-- received 0, recovered 0, lost 0, duplicates 0" == lines[-1]


def test_the_prefix_that_a_proxy_removes_is_in_the_links_of_the_documentation() -> None:
    with started("--root-path", "/live") as lines:
        url = url_of(lines)
        page = httpx.get(f"{url}/docs").text
        with connect(
            url.replace("http", "ws") + "/ws", additional_headers={"Authorization": f"Bearer {TOKEN}"}, proxy=None
        ) as websocket:
            greeting = json.loads(websocket.recv())

    assert "'/live/openapi.json'" in page
    assert "connected" == greeting["type"]


@pytest.mark.parametrize(
    ("trusted", "shown"),
    [("127.0.0.1", "192.0.2.7"), pytest.param("192.0.2.1", "127.0.0.1", marks=pytest.mark.long)],
)
def test_the_address_of_a_client_comes_from_trusted_proxies_only(trusted: str, shown: str) -> None:
    with started("--forwarded-allow-ips", trusted) as lines:
        httpx.get(f"{url_of(lines)}/livez", headers={"X-Forwarded-For": "192.0.2.7"})
        logged = next(line for line in lines if "/livez" in line)

    assert f" {shown}:" in logged


@pytest.mark.usefixtures("_logging_as_before")
def test_files_that_do_not_fit_are_refused_in_one_line(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    certfile, keyfile = map(str, certificate)
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")

    for options in (["--ssl-certfile", str(nonsense)], ["--ssl-certfile", certfile], ["--ssl-keyfile", keyfile]):
        with pytest.raises(ConfigurationError, match="--ssl-keyfile"):
            CliRunner().invoke(app, ["serve", "--dev", *options], catch_exceptions=False)


def test_dev_prints_addresses_with_tls_and_the_port_that_it_got(certificate: tuple[Path, Path]) -> None:
    certfile, keyfile = map(str, certificate)
    with started("--dev", "--ssl-certfile", certfile, "--ssl-keyfile", keyfile) as lines:
        url = url_of(lines)
        printed = list(takewhile(lambda line: "unmissed publish" not in line, lines))

    address = url.removeprefix("https://")
    assert any(f"wss://{address}/ws?token=" in line for line in printed)
    assert any(f"https://{address}/websocket/console/#token=" in line for line in printed)
    assert any(f"UNMISSED_URL=https://{address} " in line for line in printed)


def test_serve_shows_one_line_for_each_connection_that_ended() -> None:
    with started() as lines:
        url = url_of(lines)
        with connect(
            url.replace("http", "ws") + "/ws", additional_headers={"Authorization": f"Bearer {TOKEN}"}, proxy=None
        ) as websocket:
            websocket.recv()

        ended = next(line for line in lines if "connection ended" in line)

    assert re.search(r"user_id='alice' client='127\.0\.0\.1' code=1000 reason='' seconds=\d", ended)


@asynccontextmanager
async def tls_port(certificate: tuple[Path, Path], *, tls_seconds: float) -> AsyncIterator[int]:
    """Serve with TLS on this event loop, and give the port."""
    certfile, keyfile = certificate
    application = create_app(Settings.load(jwt_secret=SECRET, drain_seconds=1))
    config = Config(
        application,
        port=0,
        log_config=None,
        http=HttpProtocol,
        ws=WebSocketProtocol,
        ssl_certfile=certfile,
        ssl_keyfile=keyfile,
    )
    server = Server(config, tls_seconds=tls_seconds)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], ids=["silent", "half a hello"])
async def test_a_tls_handshake_that_does_not_end_is_closed(certificate: tuple[Path, Path], data: bytes) -> None:
    async with tls_port(certificate, tls_seconds=0.2) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)

        assert b"" == await asyncio.wait_for(reader.read(), 20)
        writer.close()


async def test_a_tls_client_that_does_not_answer_the_end_is_closed(certificate: tuple[Path, Path]) -> None:
    async with tls_port(certificate, tls_seconds=0.2) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = ssl.create_default_context(cafile=certificate[0]).wrap_bio(
            incoming, outgoing, server_hostname="127.0.0.1"
        )
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(65_536))
        tls.write(b"GET /livez HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        writer.write(outgoing.read())

        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()

    assert b"" != answer
