"""The SQLite log: what survives the end of the process and of the machine, and what is refused."""

import asyncio
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from places import Place
from support import until
from unit.logs.test_base import RecordingListener, drafts, numbers, payloads
from unmissed.core.errors import ConfigurationError, NotRunning
from unmissed.core.retention import Retention
from unmissed.core.window import Outcome
from unmissed.logs.base import Log
from unmissed.logs.sqlite import file
from unmissed.logs.sqlite.log import SqliteLog
from unmissed.testing import ManualClock


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(f"sqlite:{tmp_path}/log.db")
    yield place
    await place.close_all()


@contextmanager
def full_disk() -> Iterator[None]:
    """Refuse to let any file of this process grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Give up the right of root to write everywhere."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(user)


async def until_unavailable(log: Log) -> str:
    await until(lambda: log.unavailable)
    return str(log.unavailable)


def killed_while_open(path: Path, *, options: str = "") -> None:
    """Publish three messages in a process that ends without closing the log."""
    program = f"""
import asyncio, os
from unmissed.core.messages import Draft
from unmissed.logs.sqlite.log import SqliteLog

async def publish():
    log = SqliteLog({str(path)!r}, durable={"normal" not in options})
    await log.open()
    for number in range(3):
        await log.publish([Draft.of({{"type": "chat", "data": number}}, max_bytes=100)])
    os._exit(9)

asyncio.run(publish())
"""
    assert 9 == subprocess.run([sys.executable, "-c", program], check=False).returncode  # noqa: S603  # our own program


@pytest.mark.parametrize("options", ["", "?synchronous=normal"])
async def test_the_end_of_the_process_loses_nothing(tmp_path: Path, options: str) -> None:
    killed_while_open(tmp_path / "log.db", options=options)
    place = Place(f"sqlite:{tmp_path}/log.db{options}")

    log, window = await place.open()
    await log.publish(drafts(1))
    await place.close_all()

    assert [*range(window.first_number, window.first_number + 4)] == numbers(
        [*window.messages_after(window.first_number - 1)]
    )


async def test_another_boot_after_an_unclean_end_begins_an_epoch_if_commits_were_not_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_while_open(tmp_path / "log.db", options="?synchronous=normal")
    with sqlite3.connect(tmp_path / "log.db") as connection:
        [[before]] = connection.execute("SELECT latest FROM life")
    connection.close()
    monkeypatch.setattr(file, "boot_id", lambda: "another boot")

    place = Place(f"sqlite:{tmp_path}/log.db?synchronous=normal")

    _, window = await place.open()
    await place.close_all()

    assert before + 1 < window.first_number
    assert 0 == len(window)
    assert Outcome.RESET is window.locate(before).outcome


@pytest.mark.parametrize("end", ["closed", "killed"])
async def test_another_boot_begins_no_epoch_if_commits_were_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    if end == "closed":
        place = Place(f"sqlite:{tmp_path}/log.db?synchronous=normal")
        log, _ = await place.open()
        await log.publish(drafts(3))
        await place.close_all()
    else:
        killed_while_open(tmp_path / "log.db")
    monkeypatch.setattr(file, "boot_id", lambda: "another boot")

    place = Place(f"sqlite:{tmp_path}/log.db?synchronous=normal")
    _, window = await place.open()
    await place.close_all()

    assert 3 == len(window)
    assert window.first_number + 2 == window.latest


async def test_a_machine_without_boot_ids_counts_every_unclean_end_as_a_loss_of_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "boot_id", lambda: None)
    log = SqliteLog(str(tmp_path / "log.db"), durable=False)
    first = await log.open()
    await log.publish(drafts(3))
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / f"log.db{suffix}", tmp_path / f"copy-of-log.db{suffix}")

    place = Place(f"sqlite:{tmp_path}/copy-of-log.db?synchronous=normal")
    _, second = await place.open()
    await place.close_all()
    await log.close()

    assert first.epoch != second.epoch
    assert first.latest + 1 < second.first_number


async def test_a_second_log_on_the_file_is_refused_and_the_first_goes_on(place: Place) -> None:
    log, window = await place.open()
    await log.publish(drafts(1))

    with pytest.raises(ConfigurationError, match="in use by another process"):
        await Place(place.url).open()

    await log.publish(drafts(1))
    assert 2 == len(window)


async def test_a_full_disk_refuses_messages_and_uses_no_number(place: Place) -> None:
    log, window = await place.open()
    listener = RecordingListener()
    log.subscribe(listener)
    await log.publish(drafts(1))
    latest = window.latest

    with full_disk():
        refused = asyncio.ensure_future(log.publish(drafts(1, of="refused")))
        reason = await until_unavailable(log)
        refused.cancel()
        await asyncio.gather(refused, return_exceptions=True)
        assert latest == window.latest
    publication = await log.publish(drafts(1, of="later"))

    assert "log.db cannot be written: " in reason
    assert log.unavailable is None
    # The last attempt to write the first one may have been under way when it was cancelled, and find room.
    assert [*range(latest, publication.receipt.first + 1)] == numbers([*window.messages_after(latest - 1)])
    assert publication.receipt.first == window.latest


async def test_a_log_is_available_again_without_a_publish(place: Place) -> None:
    log, _ = await place.open()

    with full_disk():
        refused = asyncio.ensure_future(log.publish(drafts(1)))
        reason = await until_unavailable(log)
        refused.cancel()
    await until(lambda: log.unavailable is None)

    assert "cannot be written" in reason


async def test_a_publish_that_waits_while_the_log_is_unavailable_gets_through(place: Place) -> None:
    log, window = await place.open()

    with full_disk():
        waiting = asyncio.ensure_future(log.publish(drafts(1)))
        await until_unavailable(log)
    publication = await waiting

    assert window.latest == publication.receipt.first == window.first_number


async def test_what_waits_when_the_log_closes_is_refused(place: Place) -> None:
    log, _ = await place.open()

    with full_disk():
        waiting = asyncio.ensure_future(log.publish(drafts(1)))
        await until_unavailable(log)
        await place.close(log)

    with pytest.raises(NotRunning):
        await waiting


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"no database at all" * 100, "damaged or no SQLite file"), (b"", None)],
)
async def test_a_file_that_is_no_database_is_refused_unless_it_is_empty(
    tmp_path: Path, place: Place, content: bytes, reason: str | None
) -> None:
    (tmp_path / "log.db").write_bytes(content)

    if reason is None:
        await place.open()
    else:
        with pytest.raises(ConfigurationError, match=reason):
            await place.open()
        assert content == (tmp_path / "log.db").read_bytes()


async def test_a_damaged_page_is_refused(tmp_path: Path, place: Place) -> None:
    log, _ = await place.open()
    for _ in range(20):
        await log.publish(drafts(50))
    await place.close(log)
    stored = bytearray((tmp_path / "log.db").read_bytes())
    stored[4096 * 3 :] = b"\xff" * (len(stored) - 4096 * 3)
    (tmp_path / "log.db").write_bytes(stored)

    with pytest.raises(ConfigurationError, match=r"log\.db"):
        await place.open()


def change(path: Path, *statements: str) -> None:
    """Change a file as another program would."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE messages SET message = 'no' WHERE number = {number}",
        "UPDATE messages SET message = 7 WHERE number = {number}",
        "UPDATE messages SET message = (SELECT max(message) FROM messages) WHERE number = {number}",
        "UPDATE messages SET unix_ms = 1e300 WHERE number = {number}",
        "DELETE FROM messages WHERE number = {number}",
    ],
)
async def test_what_is_before_a_damaged_or_missing_message_is_a_gap(tmp_path: Path, place: Place, damage: str) -> None:
    log, window = await place.open()
    number = (await log.publish(drafts(5))).receipt.first + 2
    await place.close(log)
    change(tmp_path / "log.db", damage.format(number=number))

    log, window = await place.open()
    await log.publish(drafts(1))

    assert [number + 1, number + 2, number + 3] == numbers([*window.messages_after(window.evicted_through)])
    assert Outcome.GAP is window.locate(number - 1).outcome
    assert Outcome.COMPLETE is window.locate(number).outcome


async def test_a_file_without_its_newest_message_continues_after_it(tmp_path: Path, place: Place) -> None:
    log, window = await place.open()
    await log.publish(drafts(3))
    latest = window.latest
    await place.close(log)
    change(tmp_path / "log.db", "DELETE FROM messages WHERE number = (SELECT latest FROM life)")

    log, window = await place.open()
    await log.publish(drafts(1))

    assert [latest + 1] == numbers([*window.messages_after(window.evicted_through)])
    assert Outcome.GAP is window.locate(latest - 1).outcome


async def test_a_row_above_the_latest_number_does_not_stop_publishing(tmp_path: Path, place: Place) -> None:
    log, window = await place.open()
    await log.publish(drafts(1))
    await place.close(log)
    change(tmp_path / "log.db", "INSERT INTO messages SELECT number + 1, unix_ms, log_ms, message FROM messages")

    log, window = await place.open()
    await log.publish(drafts(1, of="later "))

    assert [*range(window.first_number, window.first_number + 2)] == numbers(
        [*window.messages_after(window.first_number - 1)]
    )


@pytest.mark.parametrize(
    "damage", ["DELETE FROM life", "UPDATE life SET latest = 'no'", "UPDATE life SET latest = 7", "DROP TABLE receipts"]
)
async def test_a_file_without_its_life_is_refused(tmp_path: Path, place: Place, damage: str) -> None:
    log, _ = await place.open()
    await place.close(log)
    change(tmp_path / "log.db", damage)

    with pytest.raises(ConfigurationError, match=r"log\.db (is damaged|cannot be used)"):
        await place.open()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
async def test_a_new_file_is_for_its_owner_alone(tmp_path: Path, place: Place, umask: int) -> None:
    before = os.umask(umask)
    try:
        log, _ = await place.open()
        await log.publish(drafts(1))
    finally:
        os.umask(before)

    files = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()}
    assert {"log.db", "log.db-wal"} <= files.keys()
    assert {"0o600"} == {*files.values()}


@pytest.mark.parametrize(("mode", "warnings"), [(0o644, 1), (0o640, 0), (0o600, 0)])
async def test_an_existing_file_keeps_its_permissions_and_one_that_everybody_reads_is_reported(
    tmp_path: Path, place: Place, caplog: pytest.LogCaptureFixture, mode: int, warnings: int
) -> None:
    log, _ = await place.open()
    await place.close(log)
    (tmp_path / "log.db").chmod(mode)

    await place.open()

    assert mode == (tmp_path / "log.db").stat().st_mode & 0o777
    assert warnings == sum("run chmod 600" in record.message for record in caplog.records)


async def test_a_database_of_another_program_is_refused_and_unchanged(tmp_path: Path, place: Place) -> None:
    with sqlite3.connect(tmp_path / "log.db") as connection:
        connection.execute("CREATE TABLE orders (id)")
    connection.close()

    with pytest.raises(ConfigurationError, match="another program"):
        await place.open()

    with sqlite3.connect(tmp_path / "log.db") as connection:
        assert [("orders",)] == connection.execute("SELECT name FROM sqlite_schema").fetchall()
    connection.close()


async def test_a_file_of_another_version_is_refused(tmp_path: Path, place: Place) -> None:
    log, _ = await place.open()
    await place.close(log)
    with sqlite3.connect(tmp_path / "log.db") as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()

    with pytest.raises(ConfigurationError, match="the format 7"):
        await place.open()


async def test_a_folder_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="unable to open"):
        await Place(f"sqlite:{tmp_path}/missing/log.db").open()


async def test_a_file_that_may_not_be_written_is_refused() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Place(f"sqlite:{folder}/log.db")
        log, _ = await place.open()
        await place.close(log)
        Path(folder).chmod(0o555)
        Path(folder, "log.db").chmod(0o444)

        with unprivileged(), pytest.raises(ConfigurationError, match=r"log\.db cannot be used for the log"):
            await place.open()


async def test_the_file_does_not_grow_with_the_number_of_messages(tmp_path: Path) -> None:
    log = SqliteLog(str(tmp_path / "log.db"), durable=False, retention=Retention(max_messages=50))
    await log.open()
    for _ in range(20):
        await log.publish(drafts(50))
    await log.close()
    size = (tmp_path / "log.db").stat().st_size

    await log.open()
    for _ in range(100):
        await log.publish(drafts(50))
    await log.close()

    assert 2 * size >= (tmp_path / "log.db").stat().st_size


@pytest.mark.parametrize("restart", ["of the process", "of the machine"])
async def test_ages_continue_over_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restart: str) -> None:
    """The monotonic clock goes on over the end of a process, and begins again with the machine."""
    clock, wall_clock = ManualClock(5_000.0), ManualClock(1_796_000_000.0)
    retention = Retention(max_age=100)
    log = SqliteLog(str(tmp_path / "log.db"), retention=retention, clock=clock, wall_clock=wall_clock)
    await log.open()
    await log.publish(drafts(1))
    await log.close()
    wall_clock.advance(60)
    clock.advance(60)
    if restart == "of the machine":
        clock = ManualClock(8_000.0)
        monkeypatch.setattr(file, "boot_id", lambda: "another boot")

    log = SqliteLog(str(tmp_path / "log.db"), retention=retention, clock=clock, wall_clock=wall_clock)
    window = await log.open()
    clock.advance(39)
    log.expire()
    before = len(window)
    clock.advance(1)
    log.expire()
    await log.close()

    assert (1, 0) == (before, len(window))


@pytest.mark.parametrize("killed", [False, True])
async def test_a_clock_that_is_set_back_over_a_restart_of_the_machine_expires_nothing_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, killed: bool
) -> None:
    wall_clock = ManualClock(1_796_000_000.0)
    log = SqliteLog(str(tmp_path / "log.db"), clock=ManualClock(5_000.0), wall_clock=wall_clock)
    before = await log.open()
    first = await log.publish(drafts(1), idempotency_key="key")
    path = tmp_path / "log.db"
    if killed:
        path = tmp_path / "copy.db"
        for suffix in ("", "-wal"):
            shutil.copy(tmp_path / f"log.db{suffix}", tmp_path / f"copy.db{suffix}")
    await log.close()
    wall_clock.advance(-10 * 365 * 86_400)
    monkeypatch.setattr(file, "boot_id", lambda: "another boot")

    log = SqliteLog(str(path), clock=ManualClock(3.0), wall_clock=wall_clock)
    after = await log.open()
    again = await log.publish(drafts(1), idempotency_key="key")
    await log.close()

    assert payloads(before) == payloads(after)
    assert first.receipt == again.receipt
