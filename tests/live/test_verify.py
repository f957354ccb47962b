"""The verification itself: a sound server passes, and one with a planted fault does not."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from unmissed.cli.app import app
from unmissed.core.audience import Audience
from unmissed.core.evictions import Evictions
from unmissed.core.messages import Message
from unmissed.core.window import Outcome, Window
from unmissed.delivery.chunks import Chunk
from unmissed.settings import Settings
from unmissed.testing import SECRET, LiveServer
from unmissed.transports.asgi import AsgiSocket

SMALL = ("--clients", "10", "--rate", "300", "--seconds", "3s", "--seed", "7")
PORTABLE: dict[str, Any] = {"ws": "websockets-sansio"}
"""The portable socket, whose methods the tests replace."""


def verify(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["verify", *SMALL, *arguments], catch_exceptions=False, env={"COLUMNS": "120"})


@pytest.fixture
def _small_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evict messages while clients are away for a moment."""
    monkeypatch.setenv("UNMISSED_MAX_MESSAGES", "40")
    monkeypatch.setenv("UNMISSED_JWT_SECRET", SECRET)


def verdicts(output: str) -> dict[str, str]:
    """Return the verdict about each promise, by its name."""
    return dict(re.findall(r"^│ ([\w ,]+?) +│ (kept|broken) +│", output, re.MULTILINE))


def count(output: str, name: str) -> int:
    [found] = re.findall(rf"{name} ([\d,]+)", output.splitlines()[-2])
    return int(found.replace(",", ""))


def test_a_node_that_is_killed_and_suspended_keeps_every_promise(tmp_path: Path) -> None:
    file = tmp_path / "run.png"

    result = verify("--seconds", "5s", "--plot", str(file))

    assert 0 == result.exit_code, result.output
    assert 8 == len(verdicts(result.output))
    assert {"kept"} == set(verdicts(result.output).values())
    assert count(result.output, "kill -9 of a node") >= 1
    assert count(result.output, "resets") > 0
    assert count(result.output, "delivered") > 500
    assert "--seed 7" in result.output
    assert file.read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("_small_log")
def test_a_sound_server_elsewhere_keeps_every_promise(serve: Callable[..., LiveServer]) -> None:
    result = verify("--url", serve().url)

    assert 0 == result.exit_code, result.output
    assert {"kept"} == set(verdicts(result.output).values())
    assert count(result.output, "gaps") > 0
    assert "of a node" not in result.output


@pytest.mark.usefixtures("_small_log")
def test_one_token_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    with LiveServer(settings=Settings.load()) as server:
        monkeypatch.delenv("UNMISSED_JWT_SECRET")

        result = verify("--url", server.url, "--token", server.token(topics=["verify.topic-1", "rooms.*"]))

    assert 0 == result.exit_code, result.output
    assert {"kept"} == set(verdicts(result.output).values())


Plant = Callable[[pytest.MonkeyPatch], None]


def hides_the_loss_of_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off by one at the oldest edge: a position just before it counts as complete."""
    locate = Window.locate

    def wrong(self: Window, position: int, **options: Any) -> tuple[Outcome, int]:
        outcome, start = locate(self, position, **options)
        complete = outcome is Outcome.GAP and position == self.evicted_through - 1
        return (Outcome.COMPLETE, position) if complete else (outcome, start)

    monkeypatch.setattr(Window, "locate", wrong)
    monkeypatch.setattr(Window, "lost_through", lambda self, *_, **__: self.evicted_through - 1)


def declares_a_gap_at_the_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off by one at the oldest edge, the other way: a position right at it counts as a gap."""
    locate = Window.locate

    def wrong(self: Window, position: int, **options: Any) -> tuple[Outcome, int]:
        outcome, start = locate(self, position, **options)
        return (Outcome.GAP if position == self.evicted_through else outcome, start)

    monkeypatch.setattr(Window, "locate", wrong)


def stamps_each_recipient(monkeypatch: pytest.MonkeyPatch) -> None:
    write = AsgiSocket.write

    def wrong(self: AsgiSocket, chunk: Chunk) -> None:
        own = b'"timestamp":"%d' % (id(self) % 9_000 + 1_000)
        write(self, Chunk(*(re.sub(rb'"timestamp":"\d{4}', own, payload) for payload in chunk.payloads)))

    monkeypatch.setattr(AsgiSocket, "write", wrong)


def forgets_what_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evict without a trace, so that no gap is declared."""
    monkeypatch.setattr(Evictions, "add", lambda *_: None)


def advances_before_the_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose some writes after the position has moved past them."""
    write, writes = AsgiSocket.write, iter(range(10**9))

    def wrong(self: AsgiSocket, chunk: Chunk) -> None:
        messages = any(b'"timestamp"' in payload for payload in chunk.payloads)
        write(self, Chunk() if messages and not next(writes) % 50 else chunk)

    monkeypatch.setattr(AsgiSocket, "write", wrong)


def replays_without_a_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Window, "visible_after", lambda self, position, *_, **__: iter(self.messages_after(position)))


def uses_a_number_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    append = Window.append

    def wrong(self: Window, message: Message) -> None:
        append(self, message)
        if not message.sequence_number % 20:
            self.latest -= 1

    monkeypatch.setattr(Window, "append", wrong)


def resets_without_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    locate = Window.locate

    def wrong(self: Window, position: int, **options: Any) -> tuple[Outcome, int]:
        return (Outcome.RESET, self.evicted_through) if position % 3 else locate(self, position, **options)

    monkeypatch.setattr(Window, "locate", wrong)


def acknowledges_what_it_does_not_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    append = Window.append

    def wrong(self: Window, message: Message) -> None:
        lost = not message.sequence_number % 20
        append(self, replace(message, audience=Audience(frozenset())) if lost else message)

    monkeypatch.setattr(Window, "append", wrong)


@pytest.mark.usefixtures("_small_log")
@pytest.mark.parametrize(
    ("plant", "promises"),
    [
        (hides_the_loss_of_one_message, {"no silent loss"}),
        (declares_a_gap_at_the_edge, {"no false gap"}),
        (stamps_each_recipient, {"same bytes"}),
        (forgets_what_expired, {"no silent loss"}),
        (advances_before_the_write, {"no silent loss"}),
        (replays_without_a_filter, {"privacy"}),
        (uses_a_number_twice, {"unique numbers, honest resets"}),
        (resets_without_a_reason, {"unique numbers, honest resets"}),
        (acknowledges_what_it_does_not_keep, {"an acknowledgement is kept"}),
    ],
)
def test_a_planted_fault_is_caught(plant: Plant, promises: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with LiveServer(settings=Settings.load(), **PORTABLE) as server:
        result = verify("--url", server.url)

    assert 1 == result.exit_code, result.output
    assert promises <= {name for name, verdict in verdicts(result.output).items() if verdict == "broken"}
