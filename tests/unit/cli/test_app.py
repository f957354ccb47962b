"""The commands, as they are typed."""

import asyncio
import json
import logging
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import asyncpg
import click
import pytest
from typer.testing import CliRunner

import unmissed
from engines import NatsServer, PgBouncer, PostgresServer, RedisServer
from identity_provider import IdentityProvider, jwk_of
from support import CONNECTED, nth, scripted, until
from unmissed import ConnectionManager, Page
from unmissed.cli.app import app, main
from unmissed.cli.options import seconds
from unmissed.cli.tail import Tally, may_publish, messages_url, run_tail
from unmissed.client import Gap, ReceivedMessage
from unmissed.core.audience import PUBLISH_SCOPE
from unmissed.core.errors import ConnectionRefused, UnmissedError
from unmissed.logs.postgres.schema import create_schema
from unmissed.security.claims import TokenRules
from unmissed.security.tokens import JwtVerifier
from unmissed.settings import Settings
from unmissed.testing import SECRET, LiveServer

NOWHERE = "http://127.0.0.1:1"
FOREIGN_SECRET = "another-secret-of-more-than-32-bytes-0123456789"


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer() as live:
        yield live


@pytest.fixture
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMISSED_JWT_SECRET", SECRET)


def run(*arguments: str) -> str:
    """Return what a command that succeeds prints."""
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert 0 == result.exit_code, result.output
    return result.stdout


def refusal_of(*arguments: str) -> str:
    """Return what a command that cannot be carried out raises."""
    with pytest.raises(UnmissedError) as refused:
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    return str(refused.value)


def misuse_of(*arguments: str) -> str:
    """Return what a command that was typed wrongly prints on stderr, without frames and line breaks."""
    result = CliRunner().invoke(app, arguments, catch_exceptions=False, env={"COLUMNS": "300"})
    assert 2 == result.exit_code
    return click.unstyle(result.stderr)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500ms", 0.5),
        ("5s", 5.0),
        ("10m", 600.0),
        ("1h", 3_600.0),
        ("2d", 172_800.0),
        ("2.5", 2.5),
        ("7", 7.0),
        (" 5s ", 5.0),
        ("0.5h", 1_800.0),
    ],
)
def test_a_duration_is_read_in_seconds(text: str, expected: float) -> None:
    assert expected == seconds(text)


@pytest.mark.parametrize(
    "text", ["", "0", "0s", "-1s", "+1s", "5 s", "5S", "1e3", "inf", "nan", "5w", "s", ".5", "5.", "\uff15s", "1_000"]
)
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    assert "is not a duration: use one such as 500ms, 5s, 10m, 1h or 2d" in misuse_of(
        "token", "--sub", "a", "--expires", text
    )


@pytest.mark.usefixtures("_secret")
def test_a_token_is_for_one_hour_and_without_a_scope_unless_asked_otherwise() -> None:
    now = time.time()
    token = run("token", "--sub", "alice").strip()

    identity = JwtVerifier(SECRET).verify(token)
    assert 3_600.0 == pytest.approx((identity.expires_at or 0) - now, abs=60.0)
    assert "alice" == identity.user_id
    assert frozenset() == identity.scopes


@pytest.mark.usefixtures("_secret")
def test_a_token_has_the_scopes_and_the_time_that_were_asked_for() -> None:
    short = run("token", "--sub", "alice", "--expires", "1h", "--scope", PUBLISH_SCOPE, "--scope", "other").strip()
    long = run("token", "--sub", "alice", "--expires", "2h").strip()

    identity, later = JwtVerifier(SECRET).verify(short), JwtVerifier(SECRET).verify(long)
    assert frozenset({PUBLISH_SCOPE, "other"}) == identity.scopes
    assert 3_600.0 == pytest.approx((later.expires_at or 0) - (identity.expires_at or 0), abs=60.0)


@pytest.mark.usefixtures("_secret")
def test_a_token_is_what_the_configured_server_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMISSED_JWT_ALGORITHM", "HS512")
    monkeypatch.setenv("UNMISSED_JWT_AUDIENCE", "chat")
    monkeypatch.setenv("UNMISSED_JWT_ISSUER", "login")

    token = run("token", "--sub", "alice", "--expires", "1h").strip()

    rules = TokenRules(audiences=["chat"], issuers=["login"])
    verifier = JwtVerifier(SECRET, algorithm="HS512", rules=rules)
    assert "alice" == verifier.verify(token).user_id


def test_a_token_needs_a_secret() -> None:
    assert refusal_of("token", "--sub", "alice", "--expires", "1h").startswith("UNMISSED_JWT_SECRET is not set")


def test_a_token_needs_a_user() -> None:
    assert "Missing option '--sub'" in misuse_of("token")


@pytest.mark.usefixtures("_secret")
def test_a_token_of_a_key_pair_is_left_to_the_service_with_the_private_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMISSED_JWT_ALGORITHM", "RS256")

    refusal = refusal_of("token", "--sub", "alice", "--expires", "1h")

    assert "set UNMISSED_TOKEN" in refusal


@pytest.mark.usefixtures("_secret")
def test_check_shows_every_setting_and_hides_the_secret() -> None:
    output = run("check")

    assert [] == [name for name in Settings.model_fields if f"ok       UNMISSED_{name.upper()} = " not in output]
    assert SECRET not in output
    assert "problem" not in output


@pytest.mark.usefixtures("_secret")
def test_check_shows_settings_as_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMISSED_SCOPE_CLAIM", "scp,roles")

    lines = run("check").splitlines()

    assert "ok       UNMISSED_SCOPE_CLAIM = scp,roles" in lines
    assert "ok       UNMISSED_JWKS_URL = " in lines


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({}, "problem  UNMISSED_JWT_SECRET is not set"),
        ({"UNMISSED_JWT_SECRET": "short"}, "problem  UNMISSED_JWT_SECRET has 5 bytes and needs at least 32"),
        ({"UNMISSED_JWT_SECRET": SECRET, "UNMISSED_MAX_AGE": "0"}, "problem  UNMISSED_MAX_AGE: "),
        (
            {"UNMISSED_JWT_SECRET": SECRET, "UNMISSED_JWT_ALGORITHM": "RS256"},
            "SECRET: the key does not fit RS256",
        ),
        (
            {"UNMISSED_JWT_SECRET": SECRET, "UNMISSED_MAX_MESAGES": "5"},
            "problem  UNMISSED_MAX_MESAGES is not a setting",
        ),
        ({"UNMISSED_JWT_SECRET": SECRET, "WEB_CONCURRENCY": "2"}, "problem  this log belongs to one process"),
        ({"UNMISSED_JWT_SECRET": SECRET, "UNMISSED_NODE_SECRET": "short"}, "problem  UNMISSED_NODE_SECRET has 5 bytes"),
    ],
)
def test_check_fails_with_what_to_fix(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], problem: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    result = CliRunner().invoke(app, ["check"])

    assert 1 == result.exit_code
    assert problem in result.stdout


@pytest.mark.usefixtures("_secret")
@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://alice:s3cret@127.0.0.1:1/1?name=chat", "redis://127.0.0.1:1/1?name=chat"),
        ("nats://alice:/s3cret@127.0.0.1:1,127.0.0.1:2", "nats://127.0.0.1:1,127.0.0.1:2"),
        ("redis+sentinel://:s3cret@127.0.0.1:1/mymaster", "redis+sentinel://127.0.0.1:1/mymaster"),
        ("postgresql://alice:s3cret@127.0.0.1:1/shop", "postgresql://127.0.0.1:1/shop"),
    ],
)
def test_check_reports_a_log_that_cannot_be_reached_without_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str, shown: str
) -> None:
    monkeypatch.setenv("UNMISSED_LOG_URL", url)

    result = CliRunner().invoke(app, ["check", "--wait", "200ms"])

    assert 1 == result.exit_code
    assert f"ok       UNMISSED_LOG_URL = {shown}\n" in result.stdout
    assert "problem  UNMISSED_LOG_URL: " in result.stdout
    assert "s3cret" not in result.output


@pytest.mark.usefixtures("_secret")
def test_check_reports_a_wrong_password_and_accepts_the_right_one_for_several_workers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    with RedisServer(tmp_path, persistent=False, options=["--requirepass", "s3cret"]) as server:
        monkeypatch.setenv("UNMISSED_LOG_URL", f"redis://:wr0ng@127.0.0.1:{server.port}")
        refused = CliRunner().invoke(app, ["check"])
        monkeypatch.setenv("UNMISSED_LOG_URL", f"redis://:s3cret@127.0.0.1:{server.port}")
        accepted = run("check")

    assert 1 == refused.exit_code
    assert "refuses the login" in refused.stdout
    assert "wr0ng" not in refused.output
    assert "problem" not in accepted


@pytest.mark.usefixtures("_secret")
def test_check_accepts_a_stream_before_and_after_its_first_node(
    monkeypatch: pytest.MonkeyPatch, nats_server: NatsServer
) -> None:
    url = f"{nats_server.url}?name=checked"
    monkeypatch.setenv("UNMISSED_LOG_URL", url)

    async def start_a_node() -> None:
        async with ConnectionManager(Settings.load(jwt_secret=SECRET, log_url=url)):
            pass

    assert "problem" not in run("check")
    asyncio.run(start_a_node())
    assert "problem" not in run("check")


@pytest.mark.usefixtures("_secret")
def test_check_reports_a_stream_that_allows_less_than_this_node_retains(
    monkeypatch: pytest.MonkeyPatch, nats_server: NatsServer
) -> None:
    monkeypatch.setenv("UNMISSED_LOG_URL", f"{nats_server.url}?name=small")
    run("check")
    monkeypatch.setenv("UNMISSED_MAX_AGE", "36000")

    result = CliRunner().invoke(app, ["check"])

    assert 1 == result.exit_code
    assert "problem  UNMISSED_LOG_URL: this node cannot use the stream small: max_age is" in result.stdout


@pytest.mark.usefixtures("_secret")
def test_check_changes_nothing_in_a_database(monkeypatch: pytest.MonkeyPatch, postgres_server: PostgresServer) -> None:
    monkeypatch.setenv("UNMISSED_LOG_URL", f"{postgres_server.url}?name=checked")

    before = [run("check") for _ in range(2)]
    with LiveServer(settings=Settings.load(jwt_secret=SECRET)):
        during = run("check")

    assert [True, True] == ["the schema checked is created by the first node" in output for output in before]
    assert "the schema checked has the format " in during
    assert "problem" not in during


@pytest.mark.usefixtures("_secret")
def test_check_inspects_the_database_of_an_outbox(
    monkeypatch: pytest.MonkeyPatch, postgres_server: PostgresServer
) -> None:
    monkeypatch.setenv(
        "UNMISSED_OUTBOX_URL", f"{postgres_server.url.replace('unmissed@', 'unmissed:s3cret@')}?name=box"
    )
    accepted = run("check")
    monkeypatch.setenv("UNMISSED_OUTBOX_URL", "postgresql://127.0.0.1:1/shop")
    refused = CliRunner().invoke(app, ["check", "--wait", "200ms"])

    assert "the schema box is created by the first node" in accepted
    assert "s3cret" not in accepted
    assert 1 == refused.exit_code
    assert "problem  UNMISSED_OUTBOX_URL: postgresql://127.0.0.1:1/shop: " in refused.stdout


def test_schema_prints_what_a_migration_executes(
    monkeypatch: pytest.MonkeyPatch, postgres_server: PostgresServer
) -> None:
    monkeypatch.setenv("UNMISSED_LOG_URL", f"{postgres_server.url}?name=migrated")
    log = run("schema")
    monkeypatch.setenv("UNMISSED_OUTBOX_URL", postgres_server.url)
    outbox = run("schema")

    async def migrate() -> None:
        connection = await asyncpg.connect(postgres_server.url)
        async with connection.transaction():
            await connection.execute(log)
            await connection.execute(outbox)
        await create_schema(connection, "migrated", "log")
        await create_schema(connection, "unmissed_outbox", "outbox")
        await connection.execute("DROP SCHEMA migrated, unmissed_outbox CASCADE")
        await connection.close()

    asyncio.run(migrate())


def test_schema_needs_a_database() -> None:
    assert "set UNMISSED_LOG_URL or UNMISSED_OUTBOX_URL to postgresql://" in refusal_of("schema")


@pytest.mark.usefixtures("_secret")
def test_check_names_the_fix_for_a_database_behind_a_pooler(
    monkeypatch: pytest.MonkeyPatch, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    with PgBouncer(tmp_path, postgres_server) as pooler:
        monkeypatch.setenv("UNMISSED_LOG_URL", pooler.url.partition("?")[0])
        refused = CliRunner().invoke(app, ["check"])
        monkeypatch.setenv("UNMISSED_LOG_URL", f"{pooler.url}&name=pooled")
        accepted = run("check")

    assert 1 == refused.exit_code
    assert (
        "problem  UNMISSED_LOG_URL: the connection leads through a pooler, such as PgBouncer: add ?notify=false"
        in refused.stdout
    )
    assert "problem" not in accepted


@pytest.mark.usefixtures("_secret")
def test_check_shows_what_each_rule_keeps_and_holds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNMISSED_RETENTION", "rooms.*=100/7d, @*=20/1h")
    in_memory = run("check")
    monkeypatch.setenv("UNMISSED_LOG_URL", f"sqlite:{tmp_path}/log.db")
    with LiveServer(settings=Settings.load(jwt_secret=SECRET)) as server:
        for number in range(3):
            server.publish("chat", topics=[f"rooms.{number % 2}"])
        server.manager.publish_threadsafe({"type": "cart", "key": "cart", "topics": ["rooms.1"]})
        server.publish("news")
    stored = run("check")

    assert "ok       UNMISSED_RETENTION = rooms.*=100/7d,@*=20/1h\n" in in_memory
    assert "ok       rule rooms.*=100/7d: the newest 100 messages of each topic\n" in in_memory
    assert "rule rooms.*=100/7d: the newest 100 messages of each topic; the log holds 4 messages of 2 topics" in stored
    assert ", of which 1 are values by key, in " in stored
    assert "rule @*=20/1h: the newest 20 messages of each topic; the log holds 0 messages" in stored
    assert "no rule: 500 messages; the log holds 1 messages" in stored
    assert "note " not in in_memory + stored


@pytest.mark.usefixtures("_secret")
def test_check_says_which_rule_has_too_little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMISSED_RETENTION", "rooms.*=100/7d, runs.*=2000/1h")

    [note] = [line for line in run("check").splitlines() if line.startswith("note ")]

    assert note.startswith("note     rule runs.*=2000/1h: 2000 messages of UNMISSED_MAX_MESSAGE_BYTES take more than")


@pytest.mark.usefixtures("_secret")
def test_check_creates_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNMISSED_LOG_URL", f"sqlite:{tmp_path / 'new.db'}?synchronous=normal")

    assert "problem" not in run("check")
    assert [] == list(tmp_path.iterdir())


@pytest.mark.usefixtures("_secret")
def test_check_deletes_nothing_of_a_log_that_retains_more_than_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = f"sqlite:{tmp_path / 'log.db'}"

    async def retained(messages: int) -> int:
        settings = Settings.load(jwt_secret=SECRET, log_url=url, max_messages=5_000, max_age=36_000.0)
        async with ConnectionManager(settings) as manager:
            if messages:
                await manager.publish_batch([{"type": "a"}] * messages)
            return len(manager.window)

    asyncio.run(retained(1_201))
    monkeypatch.setenv("UNMISSED_LOG_URL", url)

    assert "problem" not in run("check")
    assert 1_201 == asyncio.run(retained(0))


@pytest.mark.usefixtures("_secret")
def test_check_reports_a_file_that_is_no_log_or_cannot_be_created(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.db"
    damaged.write_text("not a database " * 100)
    for path, problem in ((damaged, "no SQLite file"), (tmp_path / "missing" / "new.db", "cannot be created")):
        monkeypatch.setenv("UNMISSED_LOG_URL", f"sqlite:{path}")

        result = CliRunner().invoke(app, ["check"])

        assert 1 == result.exit_code
        assert problem in result.stdout


@pytest.mark.usefixtures("_secret")
def test_check_verifies_a_token_with_everything_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMISSED_JWT_AUDIENCE", "unmissed")
    monkeypatch.setenv("UNMISSED_JWT_ISSUER", "https://login.example.com")

    assert "problem" not in run("check")


@pytest.mark.usefixtures("_secret")
def test_check_refuses_a_url_without_showing_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMISSED_LOG_URL", "redis://alice:/s3cret@localhost:port")

    result = CliRunner().invoke(app, ["check"])

    assert 1 == result.exit_code
    assert "problem  UNMISSED_LOG_URL cannot be read" in result.stdout
    assert "s3cret" not in result.output


def flags_of_serve() -> set[str]:
    output = click.unstyle(CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "300"}).output)
    return set(re.findall(r"--[a-z-]+|\[UNMISSED_\w+\]", output))


def test_check_loads_the_keys_of_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNMISSED_JWT_SECRET", raising=False)
    with IdentityProvider() as provider:
        provider.publish(jwk_of("first"), jwk_of("second", alg="PS256"))
        monkeypatch.setenv("UNMISSED_JWKS_URL", provider.url)

        output = run("check")

        assert f"ok       1 keys at {provider.url}: first (RS256); ignored: key 2: its alg is not one" in output
        provider.stop()
        result = CliRunner().invoke(app, ["check"])
        provider.start()

    assert 1 == result.exit_code
    assert f"problem  the keys at {provider.url} cannot be loaded: " in result.output


def test_check_says_that_a_previous_secret_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMISSED_JWT_SECRET", SECRET)
    monkeypatch.setenv("UNMISSED_JWT_PREVIOUS_SECRET", f"previous {SECRET}")

    output = run("check")

    assert "ok       tokens are verified with UNMISSED_JWT_SECRET and the previous one" in output
    assert SECRET not in output


def test_every_setting_but_the_secrets_is_a_flag_of_serve() -> None:
    names = set(Settings.model_fields) - {"jwt_secret", "jwt_previous_secret", "node_secret"}

    flags = flags_of_serve()

    assert {f"--{name.replace('_', '-')}" for name in names} <= flags
    assert {f"[UNMISSED_{name.upper()}]" for name in names} <= flags


def test_no_secret_is_a_flag_of_serve_because_processes_are_listed_with_their_flags() -> None:
    for flag in ("--jwt-secret", "--jwt-previous-secret", "--node-secret"):
        assert flag not in flags_of_serve()
        assert f"No such option: {flag}" in misuse_of("serve", flag, SECRET)


@pytest.mark.parametrize(
    ("secret", "arguments", "refusal"),
    [
        (None, [], "UNMISSED_JWT_SECRET is not set"),
        ("", [], "UNMISSED_JWT_SECRET is not set"),
        ("short", [], "UNMISSED_JWT_SECRET has 5 bytes"),
        (SECRET, ["--jwt-secret-file", "key"], "keep one"),
        (SECRET, ["--jwt-algorithm", "none"], "UNMISSED_JWT_ALGORITHM: "),
        (SECRET, ["--jwt-algorithm", "RS256"], "the key does not fit RS256"),
        (SECRET, ["--max-messages", "0"], "UNMISSED_MAX_MESSAGES: "),
        (SECRET, ["--max-bytes", "1"], "UNMISSED_MAX_BYTES must be at least 65888"),
        (SECRET, ["--log-url", "redis:"], "UNMISSED_LOG_URL cannot be read"),
        (SECRET, ["--log-url", "mysql://localhost"], "UNMISSED_LOG_URL is"),
        (SECRET, ["--workers", "2"], "this log belongs to one process"),
        (SECRET, ["--workers", "2", "--log-url", "sqlite:a.db"], "this log belongs to one process"),
        (None, ["--dev", "--workers", "2"], "this log belongs to one process"),
        (None, ["--dev", "--max-age", "never"], "UNMISSED_MAX_AGE: "),
    ],
)
@pytest.mark.usefixtures("_logging_as_before")
def test_serve_refuses_what_cannot_work(
    monkeypatch: pytest.MonkeyPatch, secret: str | None, arguments: list[str], refusal: str
) -> None:
    if secret is not None:
        monkeypatch.setenv("UNMISSED_JWT_SECRET", secret)

    assert refusal in refusal_of("serve", *arguments)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "::", "example.com", "localhost.example.com", ""])
def test_serve_tries_out_on_this_machine_only(host: str) -> None:
    assert "--dev serves this machine only" in refusal_of("serve", "--dev", "--host", host)


def test_serve_refuses_several_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "4")

    assert "unset WEB_CONCURRENCY" in refusal_of("serve", "--dev")


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_serve_refuses_what_is_no_port(port: str) -> None:
    assert "Invalid value for '--port'" in misuse_of("serve", "--dev", "--port", port)


@pytest.mark.usefixtures("_secret")
def test_serve_refuses_an_unknown_log_level_by_name() -> None:
    result = CliRunner().invoke(app, ["serve", "--log-level", "loud"])

    assert isinstance(result.exception, SystemExit | UnmissedError)
    assert "loud" in result.stderr + str(result.exception)


def published(server: LiveServer, stamp: dict[str, Any]) -> dict[str, Any]:
    """Return the message with this stamp."""
    page: Page = server.call(server.manager.get_messages_since, stamp["sequence_number"] - 1)
    [message] = page.messages
    return message.as_dict()


def test_publish_prints_the_stamp(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMISSED_URL", server.url)
    monkeypatch.setenv("UNMISSED_TOKEN", server.token())

    stamp: dict[str, Any] = json.loads(run("publish", "chat", '{"text": "hello"}'))

    message = published(server, stamp)
    assert ("chat", {"text": "hello"}) == (message["type"], message["data"])
    assert (server.manager.window.epoch, message["timestamp"]) == (stamp["epoch"], stamp["timestamp"])


def test_publish_takes_a_url_with_a_slash_and_a_token_as_flags(server: LiveServer) -> None:
    stamp = json.loads(run("publish", "chat", "--url", f"{server.url}/", "--token", server.token()))

    assert "data" not in published(server, stamp)


def test_publish_to_a_topic_and_tail_it(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMISSED_JWT_SECRET", SECRET)
    monkeypatch.setenv("UNMISSED_URL", server.url)
    monkeypatch.setenv(
        "UNMISSED_TOKEN", run("token", "--sub", "a", "--scope", PUBLISH_SCOPE, "--topic", "rooms.*").strip()
    )
    stamp = json.loads(run("publish", "chat", "1", "--topic", "rooms.1", "--topic", "rooms.2"))
    run("publish", "chat", "2", "--topic", "rooms.2")

    output = run("tail", "--topic", "rooms.1", "--since", str(stamp["sequence_number"] - 1), "--stop-after", "0.5s")

    assert "received 1, recovered 1" in output


def test_publish_keeps_data_that_is_null(server: LiveServer) -> None:
    stamp = json.loads(run("publish", "chat", "null", "--url", server.url, "--token", server.token()))

    assert None is published(server, stamp)["data"]


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        (["--key", "cart"], {"key": "cart"}),
        (["--key", "cart", "--append"], {"key": "cart", "append": True}),
        (["--key", "cart", "--deleted"], {"key": "cart", "deleted": True}),
    ],
)
def test_publish_changes_the_value_of_a_key(server: LiveServer, options: list[str], fields: dict[str, object]) -> None:
    stamp = json.loads(run("publish", "changed", "1", *options, "--url", server.url, "--token", server.token()))

    assert {"type": "changed", "data": 1, **fields}.items() <= published(server, stamp).items()


def test_publish_says_what_is_wrong_with_a_key(server: LiveServer) -> None:
    refusal = refusal_of("publish", "changed", "--key", "", "--url", server.url, "--token", server.token())

    assert "answered 422: a key is a text of 1 to 200 bytes" in refusal


def test_publish_prints_the_time_of_an_ephemeral_message(server: LiveServer) -> None:
    printed = json.loads(run("publish", "typing", "--ephemeral", "--url", server.url, "--token", server.token()))

    assert ["timestamp"] == [*printed]
    assert "typing" not in [message.type for message in server.published()]


def test_publish_refuses_a_key_for_what_is_not_stored(server: LiveServer) -> None:
    options = ["--ephemeral", "--key", "cart", "--url", server.url, "--token", server.token()]

    assert "answered 422: " in refusal_of("publish", "typing", *options)


def test_publish_takes_a_token_from_a_file_with_a_line_break(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNMISSED_TOKEN", f" {server.token()}\n")

    assert "sequence_number" in json.loads(run("publish", "chat", "--url", server.url))


@pytest.mark.parametrize("command", [["publish", "chat"], ["tail"]])
@pytest.mark.parametrize("token", ["secret\ntoken", "secret token", "s\u00e9cret", "secret\x1b"])
def test_what_is_no_token_is_refused_without_showing_it(command: list[str], token: str) -> None:
    refusal = refusal_of(*command, "--url", NOWHERE, "--token", token)

    assert refusal.startswith("the token ")
    assert "cret" not in refusal


@pytest.mark.parametrize("url", [f"{NOWHERE}?token=secret", "http://me:secret@127.0.0.1:1", "ftp://h?secret"])
def test_publish_keeps_the_secrets_of_an_address_to_itself(url: str) -> None:
    refusal = refusal_of("publish", "chat", "--url", url, "--token", "x")

    assert " cannot be reached: " in refusal
    assert "secret" not in refusal


@pytest.mark.usefixtures("_secret")
@pytest.mark.parametrize("token", ["", " \n"])
def test_a_blank_token_counts_as_none(server: LiveServer, token: str) -> None:
    assert "sequence_number" in json.loads(run("publish", "chat", "--url", server.url, "--token", token))


@pytest.mark.usefixtures("_secret")
def test_publish_makes_its_own_token_from_the_secret(server: LiveServer) -> None:
    assert "sequence_number" in json.loads(run("publish", "chat", "1", "--url", server.url))


def test_publish_addresses_the_users_that_are_named(server: LiveServer) -> None:
    arguments = ["--user", "alice", "--user", "bob", "--url", server.url, "--token", server.token()]
    position = json.loads(run("publish", "note", *arguments))["sequence_number"] - 1

    of_bob = server.call(lambda: server.manager.get_messages_since(position, user_id="bob"))
    of_carol = server.call(lambda: server.manager.get_messages_since(position, user_id="carol"))
    assert (1, 0) == (len(of_bob.messages), len(of_carol.messages))


def test_publish_tells_what_the_server_refused(server: LiveServer) -> None:
    reserved = refusal_of("publish", "gap", "1", "--url", server.url, "--token", server.token())
    garbage = refusal_of("publish", "chat", "1", "--url", server.url, "--token", "garbage")
    reader = refusal_of("publish", "chat", "1", "--url", server.url, "--token", server.token(scope=""))

    assert f"{server.url} answered 422: the type 'gap' is reserved for the protocol: choose another name" == reserved
    assert f"{server.url} answered 401: the token is invalid or expired" == garbage
    assert f"{server.url} answered 403: publishing needs a token with the scope {PUBLISH_SCOPE}" == reader


def test_publish_tells_what_another_server_answered(server: LiveServer) -> None:
    refusal = refusal_of("publish", "chat", "1", "--url", f"{server.url}/nothing", "--token", "x")

    assert f"{server.url}/nothing answered 404: Not Found" == refusal


@pytest.mark.parametrize("url", [NOWHERE, "nonsense", "http://[", "ftp://127.0.0.1"])
def test_publish_tells_that_a_server_cannot_be_reached(url: str) -> None:
    assert refusal_of("publish", "chat", "1", "--url", url, "--token", "x").startswith(f"{url} cannot be reached: ")


@pytest.mark.parametrize("data", ["", "hello", "{", "NaN", "Infinity", "1e999", '"\\ud800"'])
def test_publish_refuses_data_that_is_not_json(data: str) -> None:
    misuse = misuse_of("publish", "chat", data, "--url", NOWHERE, "--token", "x")

    assert "DATA is not JSON" in misuse
    assert "'\"hello\"'" in misuse


@pytest.mark.parametrize("command", [["publish", "chat"], ["tail"]])
def test_without_a_token_or_a_secret_both_are_named(command: list[str]) -> None:
    refusal = refusal_of(*command, "--url", NOWHERE)

    assert "UNMISSED_TOKEN" in refusal
    assert "UNMISSED_JWT_SECRET" in refusal


def test_tail_shows_what_came_after_a_position_and_counts_it(server: LiveServer) -> None:
    first = server.publish("chat", {"text": "héllo"})
    second = server.publish("chat", [1, 2])
    since = str(first.sequence_number - 1)

    output = run("tail", "--since", since, "--stop-after", "500ms", "--url", server.url, "--token", server.token())

    assert [
        f'+{first.sequence_number:>8}  {first.timestamp}  chat  {{"text":"héllo"}}',
        f"+{second.sequence_number:>8}  {second.timestamp}  chat  [1,2]",
        "-- received 2, recovered 2, lost 0, duplicates 0",
    ] == output.splitlines()


def test_tail_drops_its_own_connection_without_losing_or_doubling(server: LiveServer) -> None:
    message = server.publish("chat")
    since = str(message.sequence_number - 1)
    arguments = ["--since", since, "--drop-every", "200ms", "--down", "10ms", "--no-publish", "--stop-after", "4s"]

    lines = run("tail", *arguments, "--url", server.url, "--token", server.token()).splitlines()

    assert any(line.startswith(f"-- dropping the connection at {message.sequence_number}: ") for line in lines)
    assert any("/ws: connection lost, reconnecting in " in line for line in lines)
    assert any(line.endswith("/ws: reconnected, outcome complete") for line in lines)
    assert "-- received 1, recovered 1, lost 0, duplicates 0" == lines[-1]


@pytest.mark.live
@pytest.mark.parametrize("form", ["{}", "{}/ws"])
def test_tail_recovers_what_it_publishes_while_its_connection_is_down(form: str) -> None:
    with LiveServer() as quiet:
        arguments = ["--drop-every", "100ms", "--down", "500ms", "--stop-after", "4s", "--url", form.format(quiet.url)]

        lines = run("tail", *arguments, "--token", quiet.token()).splitlines()

    first = [line for line in lines if '{"number":' in line][:3]
    assert ["+", "+", "+"] == [line[0] for line in first]
    assert ['tail  {"number":1}', 'tail  {"number":2}', 'tail  {"number":3}'] == [line[-18:] for line in first]
    counts = re.fullmatch(r"-- received (\d+), recovered (\d+), lost 0, duplicates 0", lines[-1])
    assert counts
    assert int(counts[1]) == int(counts[2]) >= 3


def test_tail_tells_once_that_its_token_may_not_publish_and_goes_on(server: LiveServer) -> None:
    arguments = ["--drop-every", "100ms", "--down", "100ms", "--stop-after", "2s", "--url", server.url]

    lines = run("tail", *arguments, "--token", server.token(scope="")).splitlines()

    refusals = [line for line in lines if "publishing failed" in line]
    assert [f"-- publishing failed: status 403, publishing needs a token with the scope {PUBLISH_SCOPE}"] == refusals
    assert sum("-- dropping" in line for line in lines) > 1
    assert "-- received 0, recovered 0, lost 0, duplicates 0" == lines[-1]


@pytest.mark.parametrize(
    ("asked", "url", "expected"),
    [
        (None, "http://127.0.0.1:8000", True),
        (None, "localhost:8000", True),
        (None, "ws://[::1]:8000/ws", True),
        (None, "https://example.com", False),
        (None, "http://localhost.example.com", False),
        (None, "http://10.0.0.1", False),
        (True, "https://example.com", True),
        (False, "http://127.0.0.1:8000", False),
    ],
)
def test_tail_publishes_to_this_machine_unless_asked_otherwise(asked: bool | None, url: str, expected: bool) -> None:  # noqa: FBT001  # a parameter of the test
    assert expected is may_publish(asked, url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h:8000", "http://h:8000/websocket/messages"),
        ("h:8000/", "http://h:8000/websocket/messages"),
        ("wss://h/live/ws?a=b", "https://h/live/websocket/messages"),
    ],
)
def test_every_form_of_the_address_leads_to_the_messages(url: str, expected: str) -> None:
    assert expected == messages_url(url)


@pytest.mark.live
def test_tail_shows_a_gap_and_that_something_is_lost() -> None:
    with LiveServer(settings=Settings.load(jwt_secret=SECRET, max_messages=2)) as small:
        for number in range(5):
            small.publish("chat", number)
        arguments = ["--since", str(nth(1)), "--stop-after", "500ms", "--url", small.url, "--token", small.token()]

        lines = run("tail", *arguments).splitlines()

    assert f"-- gap: of {nth(2)} to {nth(3)}, some are lost" == lines[0]
    assert "-- received 2, recovered 2, lost at least 1, duplicates 0" == lines[-1]


def test_what_is_retained_within_a_gap_is_no_duplicate() -> None:
    tally = Tally()
    for event in (Gap(nth(2), nth(9)), ReceivedMessage("chat", nth(5), "", None), Gap(nth(6), nth(12))):
        tally.count(event)

    assert "received 1, recovered 0, lost at least 2, duplicates 0" == str(tally)


@pytest.mark.live
def test_tail_shows_a_reset_and_counts_it() -> None:
    with LiveServer() as fresh:
        arguments = ["--since", str(nth(5)), "--stop-after", "500ms", "--url", fresh.url, "--token", fresh.token()]

        lines = run("tail", *arguments).splitlines()

        epoch = fresh.manager.window.epoch
        assert f"-- reset: the position is not one of the server's log, whose epoch is {epoch}" == lines[0]
    assert "-- received 0, recovered 0, lost 0, duplicates 0, resets 1" == lines[-1]


async def test_tail_shows_a_message_that_it_cannot_read_and_counts_it_as_lost() -> None:
    lines: list[str] = []
    deep = f'{{"type":"a","sequence_number":{nth(1)},"timestamp":"","data":{"[" * 200_000}'
    async with scripted(CONNECTED, deep, "nonsense") as url:
        tailing = asyncio.create_task(
            run_tail(url, token="x", since=None, topics=None, drops=None, stop_after=None, show=lines.append)
        )
        await until(lambda: len(lines) == 2)
        tailing.cancel()
        tally = await tailing

    assert f"-- unreadable: {nth(1)} is lost: it is nested too deeply" == lines[0]
    assert lines[1].startswith("-- unreadable: a frame is lost: Expecting value")
    assert "-- received 0, recovered 0, lost 2, duplicates 0" == lines[2]
    assert (2, nth(1)) == (tally.lost, tally.last)


async def test_tail_shows_values_changes_and_ephemeral_messages() -> None:
    def stamped_value(number: int, **fields: object) -> dict[str, object]:
        stamp = {"sequence_number": nth(number), "timestamp": "2026-01-31T12:00:00.000Z"}
        return {"type": "cart", **stamp, "topics": ["a", "b"], "key": "x y", **fields}

    greeting = json.loads(CONNECTED) | {"state": True, "topics": ["a", "b"]}
    state = {"type": "state", "has_more": False, "sequence_number": nth(4)}
    frames = [
        greeting,
        {**state, "values": [stamped_value(1, data=1), stamped_value(3, append=True, data=2)]},
        stamped_value(5, deleted=True),
        {"type": "typing", "timestamp": "2026-01-31T12:00:00.000Z", "data": {}},
    ]
    lines: list[str] = []
    async with scripted(*map(json.dumps, frames)) as url:
        tailing = asyncio.create_task(
            run_tail(
                url, token="x", since=None, topics=None, state=True, drops=None, stop_after=None, show=lines.append
            )
        )
        await until(lambda: len(lines) == 5)
        tailing.cancel()
        await tailing

    assert [
        "-- state: 2 messages by key",
        f'={nth(1)}  2026-01-31T12:00:00.000Z  cart  key="x y"  1',
        f'={nth(3)}  2026-01-31T12:00:00.000Z  cart  key="x y" append  2',
        f' {nth(5)}  2026-01-31T12:00:00.000Z  cart  key="x y" deleted  null',
        f"~{' ' * 16}  2026-01-31T12:00:00.000Z  typing  {{}}",
        "-- received 1, recovered 0, lost 0, duplicates 0, ephemeral 1",
    ] == lines


def test_tail_starts_with_a_position_or_with_the_state() -> None:
    misuse = misuse_of("tail", "--since", "5", "--state", "--url", NOWHERE, "--token", "x")

    assert "use either --since or --state" in misuse


def test_tail_ends_when_its_token_is_refused(server: LiveServer) -> None:
    with pytest.raises(ConnectionRefused, match="code 4401"):
        run("tail", "--stop-after", "30s", "--url", server.url, "--token", "garbage")


async def test_tail_shows_its_counts_and_handles_signals_as_before_when_it_is_refused() -> None:
    before, lines = signal.getsignal(signal.SIGTERM), list[str]()
    async with scripted(
        CONNECTED, f'{{"type":"a","sequence_number":{nth(1)},"timestamp":""}}', close=(4403, "gone")
    ) as url:
        with pytest.raises(ConnectionRefused):
            await run_tail(url, token="x", since=None, topics=None, drops=None, stop_after=None, show=lines.append)

    assert "-- received 1, recovered 0, lost 0, duplicates 0" == lines[-1]
    assert before == signal.getsignal(signal.SIGTERM)


EVIL = "\x1b]52;c;ZXZpbA==\x07\x9b2J\r\n\u202e\u2066\u2028\x7f\x00\ud800"
"""Sets the clipboard of a terminal, clears its screen, overwrites a line, and turns text around."""


def is_plain(text: str) -> bool:
    """Return whether a terminal shows this text, and obeys nothing in it but line breaks."""
    return all(each == "\n" or each.isprintable() for each in text)


def escaped_frame(**frame: Any) -> str:
    return json.dumps({"type": EVIL, "sequence_number": nth(1), "timestamp": EVIL, **frame})


@pytest.mark.parametrize(
    "frames",
    [
        [escaped_frame(data=EVIL)],
        [escaped_frame(data={EVIL: [EVIL]}, topics=[EVIL])],
        [json.dumps({"type": "error", "code": 4400, "detail": EVIL}), escaped_frame()],
        [json.dumps(json.loads(CONNECTED) | {"epoch": EVIL, "outcome": "reset"})],
        [json.dumps(json.loads(CONNECTED) | {"epoch": EVIL, "outcome": EVIL}), escaped_frame()],
        [EVIL.encode(errors="ignore").decode()],
        [],
    ],
)
async def test_tail_shows_nothing_that_a_terminal_obeys(frames: list[str]) -> None:
    lines: list[str] = []
    reason = EVIL.encode(errors="ignore").decode()
    greeting = [] if frames and '"outcome"' in frames[0] else [CONNECTED]
    async with scripted(*greeting, *frames, close=(1012, reason)) as url:
        tailing = asyncio.create_task(
            run_tail(url, token="x", since=0, topics=None, drops=None, stop_after=None, show=lines.append)
        )
        await until(lambda: any("closed with code 1012" in line for line in lines))
        tailing.cancel()
        await tailing

    assert all(is_plain(line) and "\n" not in line for line in lines), lines
    assert any(r"\x1b]52;c;" in line for line in lines)


@contextmanager
def answering(status: int, content: bytes, reason: str = "") -> Iterator[str]:
    """Run another HTTP server, which answers every request like this, and return its URL."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the contract
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status, reason)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as other:
        thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{other.server_port}"
        other.shutdown()
        thread.join()


@pytest.mark.live
@pytest.mark.parametrize(
    ("status", "content"),
    [
        (201, EVIL.encode(errors="ignore")),
        (422, json.dumps({"detail": EVIL}).encode()),
        (502, b"\x1b[2J"),
    ],
)
def test_publish_shows_nothing_that_a_terminal_obeys(
    status: int, content: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(status, content, reason="\x1b[2Jno") as url:
        monkeypatch.setattr("sys.argv", ["unmissed", "publish", "a", "--url", url, "--token", "x"])
        with pytest.raises(SystemExit) as ended:
            main()

    printed = capsys.readouterr().out + str(ended.value.code)
    assert is_plain(printed), printed
    assert "\\x1b" in printed


def test_tail_tells_that_nobody_answers_and_stops_in_time() -> None:
    lines = run("tail", "--stop-after", "200ms", "--url", NOWHERE, "--token", "x").splitlines()

    assert lines[0].startswith("-- ws://127.0.0.1:1/ws: connection refused, reconnecting in ")
    assert "-- received 0, recovered 0, lost 0, duplicates 0" == lines[-1]


def test_tail_leaves_the_log_as_it_was() -> None:
    logger = logging.getLogger("unmissed.client")
    before = logger.level, [*logger.handlers]

    run("tail", "--stop-after", "50ms", "--url", NOWHERE, "--token", "x")

    assert before == (logger.level, logger.handlers)


@pytest.mark.parametrize("url", ["http://[", "ftp://127.0.0.1", "http://"])
def test_tail_refuses_an_address_that_makes_no_sense(url: str) -> None:
    assert url in refusal_of("tail", "--url", url, "--token", "x", "--stop-after", "2s")


@pytest.mark.parametrize("since", ["-1", "abc", "1.5"])
def test_tail_refuses_what_is_no_position(since: str) -> None:
    assert "Invalid value for '--since'" in misuse_of("tail", "--since", since, "--url", NOWHERE, "--token", "x")


def test_an_error_of_ours_ends_main_with_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["unmissed", "token", "--sub", "alice", "--expires", "1h"])

    with pytest.raises(SystemExit) as ended:
        main()

    assert str(ended.value.code).startswith("unmissed: UNMISSED_JWT_SECRET is not set: ")


def test_main_succeeds_with_status_zero(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("UNMISSED_JWT_SECRET", FOREIGN_SECRET)
    monkeypatch.setattr("sys.argv", ["unmissed", "token", "--sub", "alice", "--expires", "1h"])

    with pytest.raises(SystemExit) as ended:
        main()

    assert 0 == ended.value.code
    assert "alice" == JwtVerifier(FOREIGN_SECRET).verify(capsys.readouterr().out.strip()).user_id


@pytest.mark.live
def test_what_the_user_can_fix_is_one_line_on_stderr() -> None:
    command = [sys.executable, "-c", "from unmissed.cli import main; main()", "serve", "--max-messages", "0"]

    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # all of it is ours

    assert 1 == ended.returncode
    assert "" == ended.stdout
    assert ["unmissed: UNMISSED_MAX_MESSAGES: Input should be greater than 0"] == ended.stderr.splitlines()


def test_the_version_is_the_one_of_the_package() -> None:
    assert f"unmissed {unmissed.__version__}\n" == run("--version")


@pytest.mark.parametrize("command", ["serve", "token", "publish", "tail", "check"])
def test_every_command_explains_itself(command: str) -> None:
    assert "Usage: " in click.unstyle(run(command, "--help"))
