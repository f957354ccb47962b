"""The README and the documentation: all code runs, and all tables are complete."""

import asyncio
import json
import re
import shlex
import shutil
import sqlite3
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from fastapi import FastAPI
from fastapi.testclient import TestClient
from jose import jwt

from pages import DOCS, README, ROOT, blocks, executed
from unmissed import JwtVerifier, LogUnavailable, Settings
from unmissed.api.identity import AUTHENTICATION_SECONDS
from unmissed.api.message_routes import PATH
from unmissed.api.models import RecoveryBody, StateBody
from unmissed.api.problems import Problem
from unmissed.api.websocket_endpoint import MAX_AUTHENTICATING
from unmissed.cli.app import app as cli
from unmissed.core.audience import MAX_TOPICS, MAX_USERS
from unmissed.core.client_frames import MAX_CLIENT_FRAME_BYTES
from unmissed.core.encoding import MAX_DEPTH
from unmissed.core.server_frames import RESERVED_TYPES
from unmissed.delivery.inbox import MAX_BYTES_BETWEEN_CHECKS, MAX_FRAMES_BETWEEN_CHECKS
from unmissed.security.claims import CLOCK_SKEW_SECONDS
from unmissed.security.tokens import MAX_TOKEN_BYTES
from unmissed.server.deadlines import BODY_SECONDS, HEAD_SECONDS
from unmissed.server.http_requests import MAX_HEAD_BYTES, MAX_URL_BYTES
from unmissed.testing import SECRET, LiveServer


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Run the README's Python in order, as one program, in an empty folder, and return its names."""
    monkeypatch.setenv("UNMISSED_JWT_SECRET", SECRET)
    monkeypatch.chdir(tmp_path)
    return executed("README.md")


@pytest.fixture
def login_example(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the Python of the page about authentication, and return its names."""
    monkeypatch.setenv("UNMISSED_JWT_SECRET", SECRET)
    return executed("authentication.md")


@pytest.fixture
def served(example: dict[str, Any]) -> Iterator[LiveServer]:
    with LiveServer(example["app"], manager=example["manager"]) as server:
        yield server


def test_the_example_application_commits_and_publishes(served: LiveServer, tmp_path: Path) -> None:
    with httpx.Client(base_url=served.url, headers=served.headers()) as http:
        numbers = [http.post("/orders", params={"item": item}).json() for item in ("tea", "cake")]
        messages = http.get("/websocket/messages", params={"since": 0}).json()["messages"]
    with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
        stored = database.execute("SELECT item FROM orders").fetchall()

    assert numbers == [message["sequence_number"] for message in messages]
    assert [("tea",), ("cake",)] == stored == [(message["data"]["item"],) for message in messages]


async def test_the_example_client_prints_what_comes(served: LiveServer, capsys: pytest.CaptureFixture[str]) -> None:
    example = executed("applications.md")
    watching = asyncio.create_task(example["watch"](served.url, served.token()))
    while "hello" not in capsys.readouterr().out:
        await asyncio.to_thread(served.publish, "chat", "hello")
    watching.cancel()

    with pytest.raises(asyncio.CancelledError):
        await watching


async def test_the_example_test_passes_and_the_example_script_publishes_once(served: LiveServer) -> None:
    example = executed("applications.md")

    await example["test_a_paid_order_is_announced"]()
    numbers = [await asyncio.to_thread(example["announce"], served.url, served.token(), 42) for _ in range(2)]

    assert numbers == [served.published("order.paid")[0].sequence_number] * 2


def test_the_example_handler_answers_503_without_the_address_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMISSED_JWT_SECRET", SECRET)
    app = executed("applications.md")["app"]

    async def pay() -> None:
        raise LogUnavailable("redis://engine:6379: connection refused")

    app.add_api_route("/pay", pay, methods=["POST"])
    response = TestClient(app).post("/pay")

    assert (503, "1") == (response.status_code, response.headers["Retry-After"])
    assert "engine" not in response.text


async def test_the_example_requests_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMISSED_JWT_SECRET", SECRET)
    example = executed("applications.md")
    with LiveServer(example["app"], manager=example["manager"]) as server:
        number = await example["order"](server.url, server.token(topics=["rooms.*"]))

        [message] = server.published("ordered")

    assert (number, "at most 100 of an item") == (message.sequence_number, message.data)


@pytest.mark.live
def test_the_example_dependency_replaces_the_tokens(login_example: dict[str, Any]) -> None:
    example = login_example
    with (
        LiveServer(example["app"], manager=example["manager"]) as server,
        httpx.Client(base_url=server.url, cookies={"session": next(iter(example["sessions"]))}) as http,
    ):
        assert 201 == http.post("/websocket/messages", json={"type": "a"}).status_code
        http.cookies.clear()
        assert 401 == http.get("/websocket/messages").status_code


def test_the_example_login_issues_tokens_that_the_server_accepts(login_example: dict[str, Any]) -> None:
    http = TestClient(login_example["login_app"])

    token = http.post("/login", json={"name": "alice", "password": "wonderland"}).json()["token"]

    assert "alice" == JwtVerifier(SECRET).verify(token).user_id
    assert 401 == http.post("/login", json={"name": "alice", "password": "guessed"}).status_code


@pytest.mark.live
@pytest.mark.parametrize(
    ("router", "token", "user_id"),
    [
        ("with_tokens", "tutorial", "carol"),
        ("with_verifier", "f3a9...", "bob"),
        ("with_claims", "entra", "42"),
    ],
)
def test_the_example_routers_know_their_users(
    login_example: dict[str, Any], router: str, token: str, user_id: str
) -> None:
    exp, tenant = 1_900_000_000, "72f988bf-86f1-41af-91ab-2d7cd011db47"
    login_example["logins"]["f3a9..."] = ("bob", float(exp))
    tutorial = jwt.encode({"sub": "carol", "exp": exp}, login_example["SECRET_KEY"])
    entra = jwt.encode({"oid": "42", "tid": tenant, "exp": exp}, SECRET)
    signed = {"tutorial": tutorial, "entra": entra}.get(token, token)
    manager, app = login_example["manager"], FastAPI(lifespan=login_example["manager"].lifespan)
    app.include_router(login_example[router])
    with TestClient(app) as http, http.websocket_connect("/ws", ["unmissed.bearer", signed]) as websocket:
        assert "connected" == websocket.receive_json()["type"]
        assert [user_id] == [connection.identity.user_id for connection in manager.connections]
        assert 401 == http.get(PATH, headers={"Authorization": f"Bearer {signed[:-8]}x"}).status_code


def test_the_limits_that_the_security_page_names_are_those_of_the_code() -> None:
    page = (ROOT / ".github" / "SECURITY.md").read_text()
    limits = [
        f"| client frames | {MAX_CLIENT_FRAME_BYTES // 1024} kB each; {MAX_FRAMES_BETWEEN_CHECKS} frames and ",
        f" frames and {MAX_BYTES_BETWEEN_CHECKS // 2**20} MiB in about a second (4429)",
        f"| request head, URL | {HEAD_SECONDS:g} seconds, {MAX_HEAD_BYTES // 1024} KiB; {MAX_URL_BYTES // 1024} KiB (",
        f"| request body | {BODY_SECONDS:g} seconds and one more for each kB",
        f"| token | {MAX_TOKEN_BYTES // 1024} KiB; {MAX_TOPICS:,} topics; ",
        f"an `nbf` or `iat` at most {CLOCK_SKEW_SECONDS:g} seconds or `UNMISSED_TOKEN_LEEWAY`",
        f"{MAX_DEPTH} levels of nesting, {MAX_USERS:,} users, {MAX_TOPICS:,} topics |",
        f"| {AUTHENTICATION_SECONDS:g} seconds; at most `UNMISSED_MAX_CONNECTIONS`, or {MAX_AUTHENTICATING:,}, at a ",
    ]

    assert [] == [limit for limit in limits if limit not in page]


@pytest.mark.parametrize("page", sorted(DOCS))
def test_the_python_of_every_page_runs(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMISSED_JWT_SECRET", SECRET)
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://localhost/shop")

    assert page == executed(page)["__name__"]


@pytest.fixture
def browser(tmp_path: Path) -> Callable[..., list[str]]:
    """Return a function that prepares a command: the browser example, followed by other lines, in Node.js."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    [example] = blocks("javascript", DOCS["protocol.md"])

    def command(lines: str, *arguments: str) -> list[str]:
        script = tmp_path / "example.mjs"
        script.write_text(f"{example}\nconst [url, token] = process.argv.slice(2);\n{lines}")
        return [node, "--experimental-websocket", "--no-warnings", str(script), *arguments]

    return command


def test_the_browser_example_resumes(browser: Callable[..., list[str]]) -> None:
    lines = """
        const stream = connect(url, {
            getToken: async () => token,
            onMessage(message) {
                console.log(JSON.stringify([message.type, message.data]));
                if (message.type === "end") stream.close();
            },
            onLoss(frame) { console.log(JSON.stringify(["loss", frame.outcome])); },
            onRefused(code) { console.log(JSON.stringify(["refused", code])); },
        });
    """
    with LiveServer() as server:
        command = browser(lines, server.websocket_url, server.token())
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  # our own
            while not server.manager.connections:
                pass
            server.publish("a", 1)
            server.drop()
            server.publish("a", 2)
            server.publish("end")
            assert process.stdout is not None
            printed = [json.loads(line) for line in process.stdout]

    assert [["a", 1], ["a", 2], ["end", None]] == printed


def test_the_browser_example_reports_losses_of_the_server_and_not_what_publishers_write(
    browser: Callable[..., list[str]],
) -> None:
    lines = """
        const stream = connect(url, {
            getToken: async () => token,
            onMessage(message) {
                console.log(JSON.stringify(message.type));
                if (message.type === "end") stream.close();
            },
            onLoss(frame) { console.log(JSON.stringify(["loss", frame.outcome])); },
        });
    """
    with LiveServer(settings=Settings.load(jwt_secret=SECRET, drain_seconds=0.1)) as server:
        command = browser(lines, server.websocket_url, server.token())
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  # our own
            assert process.stdout is not None
            while not server.manager.connections:
                pass
            for control in ({"outcome": "reset"}, {"outcome": "gap"}, {"type": "reset"}, {"from": 1, "to": 2}):
                httpx.post(f"{server.url}{PATH}", json={"type": "a", **control}, headers=server.headers())
            printed = [json.loads(process.stdout.readline()) for _ in range(4)]
            server.restart()
            server.publish("end")
            printed += [json.loads(line) for line in process.stdout]

    assert ["a", "a", "reset", "a", ["loss", "reset"], "end"] == printed


def test_the_browser_example_gives_up_when_a_fresh_token_is_refused_too(browser: Callable[..., list[str]]) -> None:
    lines = """
        let tokens = 0;
        connect(url, {
            getToken: async () => `nonsense-${++tokens}`,
            onRefused(code) { console.log(JSON.stringify([code, tokens])); },
        });
    """
    with LiveServer() as server:
        command = browser(lines, server.websocket_url)
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603  # our own

    assert [4401, 2] == json.loads(printed)


def test_the_json_of_the_protocol_is_what_openapi_says() -> None:
    page, state, refusal = blocks("json", DOCS["protocol.md"])

    assert json.loads(page) == RecoveryBody.model_validate_json(page).model_dump(mode="json", by_alias=True)
    assert json.loads(state) == StateBody.model_validate_json(state).model_dump(mode="json")
    assert json.loads(refusal) == Problem.model_validate_json(refusal).model_dump(mode="json")


def test_every_command_exists() -> None:
    commands = typer.main.get_group(cli).commands
    lines = [line for text in (README, *DOCS.values()) for block in blocks("bash", text) for line in block.splitlines()]
    parts = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    used = [arguments for program, *arguments in filter(None, parts) if program.rpartition("/")[2] == "unmissed"]

    assert {"serve", "tail", "publish", "token", "types", "verify"} == {name for name, *_ in used}
    for name, *arguments in used:
        commands[name].make_context(name, arguments, resilient_parsing=False)


def test_every_setting_is_in_the_table() -> None:
    in_table = set(re.findall(r"^\| `UNMISSED_(\w+)`", DOCS["deployment.md"], re.MULTILINE))

    assert {name.upper() for name in Settings.model_fields} == in_table


def test_the_readme_has_less_than_200_lines() -> None:
    assert len(README.splitlines()) < 200


def test_every_extra_that_is_named_can_be_installed() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    named = {extra for text in (README, *DOCS.values()) for extra in re.findall(r"unmissed\[(\w+)\]", text)}

    assert named <= set(extras)


def test_the_readme_tells_which_calls_belong_to_the_event_loop() -> None:
    assert "Call them on the event loop, except `publish_threadsafe` and `publish_in_sync`." in README


def test_every_reserved_type_is_in_the_page_about_migration() -> None:
    [row] = re.findall(r"^\| reserved types .*", DOCS["migration.md"], re.MULTILINE)

    assert set(re.findall(r"`(\w+)`", row)) == RESERVED_TYPES


def test_every_page_is_linked_and_local_links_lead_somewhere() -> None:
    pages = ROOT / ".github/docs"
    texts = [(ROOT, README), *((pages, text) for text in DOCS.values())]
    targets = [
        (folder / target).resolve()
        for folder, text in texts
        for target in re.findall(r"\]\((?!http|#)([^)#]+)[^)]*\)", text)
    ]

    assert {(pages / page).resolve() for page in DOCS} <= set(targets)
    for target in targets:
        assert target.exists()


def test_every_file_that_the_architecture_names_exists() -> None:
    names = re.findall(r"`([a-z_]+(?:/[a-z_]+)*(?:/|\.py|\.js))`", DOCS["architecture.md"])
    beside = {"base.py", "engine.py"}  # named after their room
    roots = (ROOT, ROOT / "src/unmissed")

    assert [] == [name for name in names if name not in beside and not any((root / name).exists() for root in roots)]
