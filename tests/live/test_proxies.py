"""The proxy configurations of the documentation, run for real."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect
from websockets.typing import Origin

from event_client import parsed
from support import until
from unmissed.core.rest import EVENTS_PATH
from unmissed.lab.process import free_ports
from unmissed.testing import LiveServer

DEPLOYMENT = (Path(__file__).parent.parent.parent / ".github" / "docs" / "deployment.md").read_text()


def configuration(language: str, *, port: int, upstream: str) -> str:
    """Return a configuration of the documentation with other ports."""
    [block] = re.findall(rf"```{language}\n(.*?)```", DEPLOYMENT, re.DOTALL)
    return str(block).replace("8080", str(port)).replace("127.0.0.1:8000", upstream)


def command(proxy: str, folder: Path, *, port: int, upstream: str) -> list[str]:
    """Write the configuration, and return the command that runs the proxy in the foreground."""
    program = shutil.which(proxy) or shutil.which(proxy, path="/usr/sbin")
    if program is None:
        pytest.skip(f"{proxy} is not installed")
    file = folder / "configuration"
    if proxy == "caddy":
        text = configuration("caddyfile", port=port, upstream=upstream)
        file.write_text(f"{{\n\tadmin off\n}}\n{text}")
        return [program, "run", "--config", str(file), "--adapter", "caddyfile"]
    text = configuration("nginx", port=port, upstream=upstream)
    file.write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};\n"
        f"fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};\n{text} }}"
    )
    return [program, "-e", f"{folder}/error.log", "-p", str(folder), "-c", str(file)]


@contextmanager
def running(proxy: str, folder: Path, upstream: str) -> Iterator[str]:
    """Run a proxy in front of a server, and give its address."""
    [port] = free_ports(1)
    with subprocess.Popen(command(proxy, folder, port=port, upstream=upstream), stderr=subprocess.DEVNULL) as process:  # noqa: S603
        try:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                try:
                    httpx.get(f"http://127.0.0.1:{port}/livez")
                except httpx.HTTPError:
                    continue
                break
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.fixture(params=["nginx", "caddy"])
def address(request: pytest.FixtureRequest, tmp_path: Path, server: LiveServer) -> Iterator[str]:
    with running(request.param, tmp_path, server.url.removeprefix("http://")) as address:
        yield address


def test_a_page_of_the_proxys_host_connects_through_it_and_receives_messages(address: str, server: LiveServer) -> None:
    url, origin = f"ws://{address}/ws?since=0", Origin(f"http://{address}")
    with connect(url, origin=origin, additional_headers=server.headers(), proxy=None) as websocket:
        frames = [json.loads(websocket.recv(10)) for _ in range(2)]
        server.publish("a")
        frames.append(json.loads(websocket.recv(10)))

    assert ["connected", "heartbeat", "a"] == [frame["type"] for frame in frames]


def test_no_client_chooses_its_address_behind_the_proxy(address: str, server: LiveServer) -> None:
    headers = {**server.headers(), "X-Forwarded-For": "203.0.113.7"}
    addresses = []
    for _ in range(2):
        with connect(f"ws://{address}/ws", additional_headers=headers, proxy=None) as websocket:
            websocket.recv(10)
            addresses += [connection.client for connection in server.manager.connections]
        server.run(until(lambda: not server.manager.connections))

    assert ["127.0.0.1"] * 2 == addresses


def test_events_pass_the_proxy_at_once(address: str, server: LiveServer) -> None:
    url, headers = f"http://{address}{EVENTS_PATH}?since=0", {**server.headers(), "Accept-Encoding": "gzip"}
    with httpx.stream("GET", url, headers=headers, timeout=10) as response:
        events = parsed(response.iter_lines())
        types = [next(events).type for _ in range(2)]
        server.publish("a")
        types.append(next(events).type)

    assert ["connected", "heartbeat", "a"] == types


def test_recovery_and_publishing_pass_the_proxy(address: str, server: LiveServer) -> None:
    with httpx.Client(base_url=f"http://{address}", headers=server.headers()) as http:
        assert 201 == http.post("/websocket/messages", json={"type": "a"}).status_code
        assert ["a"] == [each["type"] for each in http.get("/websocket/messages").json()["messages"]]
