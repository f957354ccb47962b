"""The verification itself: a sound server passes, and one with a planted fault does not."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner, Result

from engines import skip_without
from support import nths, portable_is_long
from unmissed.cli.app import app
from unmissed.core.audience import Audience
from unmissed.core.chunks import Chunk
from unmissed.core.errors import ConfigurationError, ConnectionRefused
from unmissed.core.evictions import Evictions
from unmissed.core.messages import Message, Value
from unmissed.core.window import Located, Outcome, Window
from unmissed.delivery.portable import AsgiWebSocket
from unmissed.lab.postgres_servers import PgBouncer, PostgresServer
from unmissed.lab.verify import deployment, participants
from unmissed.lab.verify.facts import Delivered
from unmissed.lab.verify.websocket_clients import WebSocketClient
from unmissed.logs.postgres.schema import schema_sql
from unmissed.settings import Settings
from unmissed.testing import SECRET, LiveServer

SMALL = ("--clients", "10", "--rate", "300", "--seconds", "2s", "--seed", "7")
PORTABLE: dict[str, Any] = {"ws": "websockets-sansio"}
"""The portable socket, whose methods the tests replace."""


def verify(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["verify", *SMALL, *arguments], catch_exceptions=False, env={"COLUMNS": "120"})


def conclusive(*arguments: str) -> Result:
    """Return the first run with gaps in which a broken client was found. On a busy machine it takes longer."""
    for seconds in ("2s", "8s", "30s"):
        result = verify(*arguments, "--seconds", seconds)
        if result.exit_code != 2 and count(result.output, "gaps"):
            break
    return result


@pytest.fixture
def _small_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evict messages while clients are away for a moment."""
    monkeypatch.setenv("UNMISSED_MAX_MESSAGES", "40")
    monkeypatch.setenv("UNMISSED_RETENTION", "verify.rooms.*=10/1h")
    monkeypatch.setenv("UNMISSED_JWT_SECRET", SECRET)


def verdicts(output: str) -> dict[str, str]:
    """Return the verdict about each promise, by its name."""
    return dict(re.findall(r"^│ ([\w ]+?) +│ (kept|broken) +│", output, re.MULTILINE))


def count(output: str, name: str) -> int:
    summary = [line for line in output.splitlines() if line.startswith("published")][-1]
    [found] = re.findall(rf"{name} ([\d,]+)", summary)
    return int(found.replace(",", ""))


@pytest.mark.long
def test_a_node_that_is_killed_and_suspended_keeps_every_promise(tmp_path: Path) -> None:
    file = tmp_path / "run.png"

    result = verify("--seconds", "5s", "--plot", str(file))

    assert 0 == result.exit_code, result.output
    assert 11 == len(verdicts(result.output))
    assert {"kept"} == set(verdicts(result.output).values())
    assert count(result.output, "kill -9 of a node") >= 1
    assert count(result.output, "resets") > 0
    assert count(result.output, "delivered") > 100
    assert "--seed 7" in result.output
    assert file.read_bytes().startswith(b"\x89PNG")


@pytest.mark.long
@pytest.mark.usefixtures("_small_log")
def test_a_sound_server_elsewhere_keeps_every_promise(serve: Callable[..., LiveServer]) -> None:
    result = conclusive("--url", serve().url)

    assert 0 == result.exit_code, result.output
    assert {"kept"} == set(verdicts(result.output).values())
    assert count(result.output, "gaps") > 0
    assert "of a node" not in result.output


@pytest.mark.long
@pytest.mark.usefixtures("_small_log")
def test_a_run_can_be_repeated_on_a_server_that_knows_its_keys(serve: Callable[..., LiveServer]) -> None:
    server = serve()

    results = [verify("--url", server.url, "--seed", "7", "--seconds", "1s", "--no-chaos") for _ in range(2)]

    assert [{"kept"}] * 2 == [{*verdicts(result.output).values()} for result in results], results[-1].output


@pytest.mark.long
@pytest.mark.usefixtures("_small_log")
def test_one_token_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    with LiveServer(settings=Settings.load()) as server:
        monkeypatch.delenv("UNMISSED_JWT_SECRET")

        result = conclusive("--url", server.url, "--token", server.token(topics=["verify.topic-1", "rooms.*"]))

    assert 0 == result.exit_code, result.output
    assert {"kept"} == set(verdicts(result.output).values())


@pytest.mark.long
@pytest.mark.parametrize("options", [(), ("--pgbouncer",)])
def test_transactions_are_delivered_if_they_are_committed(options: Sequence[str]) -> None:
    skip_without(PostgresServer)
    if options:
        skip_without(PgBouncer)

    result = verify("--log", "postgres", "--nodes", "2", "--seconds", "8s", *options)

    assert 0 == result.exit_code, result.output
    assert 12 == len(verdicts(result.output))
    assert {"kept"} == set(verdicts(result.output).values())
    assert 10 < count(result.output, r"\(committed") < count(result.output, "transactions")


def forgets_open_transactions(sql: str) -> str:
    """Number what was published since the batch before, and nothing of transactions that were open then."""
    known = "xact = ANY (ARRAY(SELECT pg_snapshot_xip(newest.seen)))"
    assert known in sql
    return sql.replace(known, "false")


def numbers_backwards(sql: str) -> str:
    known = "array_agg(draft ORDER BY id)"
    assert known in sql
    return sql.replace(known, "array_agg(draft ORDER BY id DESC)")


@pytest.mark.long
@pytest.mark.parametrize("plant", [forgets_open_transactions, numbers_backwards])
def test_a_planted_fault_of_the_database_is_caught(
    plant: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without(PostgresServer)

    class FaultyServer(PostgresServer):
        async def launch(self) -> None:
            await super().launch()
            connection = await asyncpg.connect(self.url)
            if not await connection.fetchval("SELECT to_regnamespace('unmissed')"):
                await connection.execute(plant(schema_sql("unmissed", "log")))
            await connection.close()

    monkeypatch.setattr(deployment, "PostgresServer", FaultyServer)

    result = verify("--log", "postgres", "--no-chaos", "--seconds", "3s")

    assert 1 == result.exit_code, result.output
    assert "broken" == verdicts(result.output)["transactions"]


Plant = Callable[[pytest.MonkeyPatch], None]


def hides_the_loss_of_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off by one at the oldest edge: a position just before it counts as complete."""
    locate = Window.locate

    def wrong(self: Window, position: int, **options: Any) -> Located:
        located = locate(self, position, **options)
        complete = located.outcome is Outcome.GAP and position == self.evicted_through - 1
        return Located(Outcome.COMPLETE, position, position) if complete else located

    monkeypatch.setattr(Window, "locate", wrong)
    monkeypatch.setattr(Window, "lost_through", lambda self, *_, **__: self.evicted_through - 1)


def declares_a_gap_at_the_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off by one at the oldest edge, the other way: a position right at it counts as a gap."""
    locate = Window.locate

    def wrong(self: Window, position: int, **options: Any) -> Located:
        located = locate(self, position, **options)
        return Located(Outcome.GAP, position, position + 1) if position == self.evicted_through else located

    monkeypatch.setattr(Window, "locate", wrong)


def stamps_each_recipient(monkeypatch: pytest.MonkeyPatch) -> None:
    write = AsgiWebSocket.write

    def wrong(self: AsgiWebSocket, chunk: Chunk) -> None:
        own = b'"timestamp":"%d' % (id(self) % 9_000 + 1_000)
        write(self, Chunk(*(re.sub(rb'"timestamp":"\d{4}', own, payload) for payload in chunk.payloads)))

    monkeypatch.setattr(AsgiWebSocket, "write", wrong)


def forgets_what_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evict without a trace, so that no gap is declared."""
    monkeypatch.setattr(Evictions, "add", lambda *_: None)


def advances_before_the_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose some writes after the position has moved past them."""
    write, writes = AsgiWebSocket.write, iter(range(10**9))

    def wrong(self: AsgiWebSocket, chunk: Chunk) -> None:
        messages = any(b'"timestamp"' in payload for payload in chunk.payloads)
        write(self, Chunk() if messages and not next(writes) % 50 else chunk)

    monkeypatch.setattr(AsgiWebSocket, "write", wrong)


def replays_without_a_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: Window, position: int, *_: object, **__: object) -> tuple[int, Iterator[Message]]:
        return self.latest, iter(self.messages_after(position))

    monkeypatch.setattr(Window, "next_visible", wrong)


def uses_a_number_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    append = Window.append

    def wrong(self: Window, message: Message) -> None:
        append(self, message)
        if message.sequence_number in nths(*range(20, 200, 20)):
            self.latest -= 1

    monkeypatch.setattr(Window, "append", wrong)


def resets_without_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    locate = Window.locate

    def wrong(self: Window, position: int, **options: Any) -> Located:
        reset = Located(Outcome.RESET, self.oldest - 1, self.evicted_through)
        return reset if position % 3 else locate(self, position, **options)

    monkeypatch.setattr(Window, "locate", wrong)


def acknowledges_what_it_does_not_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    append = Window.append

    def wrong(self: Window, message: Message) -> None:
        lost = not message.sequence_number % 20
        append(self, replace(message, audience=Audience(frozenset())) if lost else message)

    monkeypatch.setattr(Window, "append", wrong)


def evicts_across_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a number of messages that all rules share."""
    append = Window.append

    def wrong(self: Window, message: Message) -> None:
        append(self, message)
        while len(self) > 30:
            self._make_room()

    monkeypatch.setattr(Window, "append", wrong)


def replaces_with_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a piece for a value, which replaces what it is added to."""
    append = Window.append

    def wrong(self: Window, message: Message, **options: Any) -> None:
        value = message.value
        append(self, replace(message, value=value and Value(value.key, deleted=value.deleted)), **options)

    monkeypatch.setattr(Window, "append", wrong)


def misses_values_in_states(monkeypatch: pytest.MonkeyPatch) -> None:
    value_ending_with = Window.value_ending_with

    def wrong(self: Window, message: Message, *, through: int) -> Sequence[Message]:
        return () if message.key == "cart" else value_ending_with(self, message, through=through)

    monkeypatch.setattr(Window, "value_ending_with", wrong)


def continues_after_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that take a gap for a position. They miss what is retained in it, and do not notice."""
    join = WebSocketClient._join  # noqa: SLF001  # the client under test

    def wrong(self: WebSocketClient, frame: dict[str, Any]) -> None:
        join(self, frame)
        if frame.get("outcome") == "gap":
            self.position = frame["to"]
            self._taken_through = frame["to"]  # type: ignore[attr-defined]

    deliver = WebSocketClient._deliver  # noqa: SLF001  # the client under test

    def ignoring(self: WebSocketClient, fact: Delivered) -> None:
        if fact.number > getattr(self, "_taken_through", 0):
            deliver(self, fact)

    monkeypatch.setattr(WebSocketClient, "_join", wrong)
    monkeypatch.setattr(WebSocketClient, "_deliver", ignoring)


@pytest.mark.usefixtures("_small_log")
@pytest.mark.parametrize(
    ("plant", "promises"),
    [
        (hides_the_loss_of_one_message, {"no silent loss"}),
        pytest.param(declares_a_gap_at_the_edge, {"no false gap"}, marks=pytest.mark.long),
        pytest.param(stamps_each_recipient, {"same bytes"}, marks=pytest.mark.long),
        pytest.param(forgets_what_expired, {"no silent loss"}, marks=pytest.mark.long),
        pytest.param(advances_before_the_write, {"no silent loss"}, marks=pytest.mark.long),
        pytest.param(replays_without_a_filter, {"privacy"}, marks=pytest.mark.long),
        pytest.param(uses_a_number_twice, {"honest numbers and resets"}, marks=pytest.mark.long),
        pytest.param(resets_without_a_reason, {"honest numbers and resets"}, marks=pytest.mark.long),
        pytest.param(acknowledges_what_it_does_not_keep, {"an acknowledgement is kept"}, marks=pytest.mark.long),
        pytest.param(evicts_across_rules, {"rules of retention"}, marks=pytest.mark.long),
        pytest.param(continues_after_gaps, {"rules of retention"}, marks=pytest.mark.long),
        pytest.param(replaces_with_pieces, {"no silent loss"}, marks=pytest.mark.long),
        pytest.param(misses_values_in_states, {"state of values"}, marks=pytest.mark.long),
    ],
)
def test_a_planted_fault_is_caught(plant: Plant, promises: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine, few clients may meet the fault in two seconds: there are up to ten runs."""
    plant(monkeypatch)
    for seed in range(7, 17):
        with LiveServer(settings=Settings.load(), **PORTABLE) as server:
            result = verify("--url", server.url, "--seed", str(seed))
        broken = {name for name, verdict in verdicts(result.output).items() if verdict == "broken"}
        if promises <= broken and result.exit_code == 1:
            break

    assert promises <= broken, result.output
    assert 1 == result.exit_code, result.output


@pytest.mark.long
def test_a_run_that_finds_no_loss_of_its_broken_client_is_void(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(participants, "BrokenClient", WebSocketClient)

    result = verify("--seconds", "1s", "--no-chaos")

    assert 2 == result.exit_code, result.output
    assert "proves nothing" in result.output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--url", "http://127.0.0.1:1", "--token", "x"), "there is no server at 127.0.0.1:1"),
        (("--url", "https://127.0.0.1:1", "--token", "x"), "cannot be verified"),
        (("--nodes", "2"), "needs a log that nodes share"),
        (("--url", "http://127.0.0.1:1"), "UNMISSED_JWT_SECRET"),
    ],
)
def test_what_cannot_be_verified_says_why(arguments: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        verify(*arguments)


@portable_is_long
def test_a_refused_token_ends_the_run(server: LiveServer) -> None:
    with pytest.raises(ConnectionRefused, match="401"):
        verify("--url", server.url, "--token", "other")


@portable_is_long
def test_a_token_that_may_not_publish_ends_the_run(server: LiveServer) -> None:
    with pytest.raises(ConnectionRefused, match="403"):
        verify("--url", server.url, "--token", server.token(scope=""))


MAIN = "from unmissed.cli import main; main()"
SWALLOWS = """
import asyncio
from unmissed.lab.verify.rest_clients import Poller

async def run(self):
    try:
        await asyncio.sleep(3_600)
    except asyncio.CancelledError:
        await asyncio.sleep(3_600)

Poller.run = run
"""
"""A client that goes on after it was cancelled, as some libraries let it."""
BACKGROUND = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
"""A shell starts a background job with SIGINT ignored."""


@pytest.mark.long
@pytest.mark.parametrize(("number", "program"), [(signal.SIGINT, MAIN), (signal.SIGTERM, BACKGROUND + SWALLOWS + MAIN)])
def test_an_interrupted_run_ends_and_leaves_nothing_behind(
    number: signal.Signals, program: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", program, "verify", *SMALL, "--seconds", "600s"]
    with subprocess.Popen(command, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE) as run:  # noqa: S603  # our own command
        assert run.stdout is not None
        first_counts = next(line for line in run.stdout if b" of 600 s" in line)
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()

        run.send_signal(number)
        code = run.wait(100)

    assert b"delivered" in first_counts
    assert 1 == len(children)
    assert not Path(f"/proc/{children[0]}").exists()
    assert [] == [*tmp_path.iterdir()]
    assert 0 != code
