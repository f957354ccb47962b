"""The SQLite log: what survives the end of the process and of the machine, and what is refused."""

import asyncio
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from places import Place
from support import until
from unit.logs.test_base import RecordingListener, drafts, numbers
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


def killed_while_open(path: Path, *, options: str = "", publishes: int = 3) -> list[int]:
    """Publish messages in a process that ends without closing the log, and return their numbers."""
    program = f"""
import asyncio, os
from unmissed.core.messages import Draft
from unmissed.logs.sqlite.log import SqliteLog

async def publish():
    log = SqliteLog({str(path)!r}, durable={"normal" not in options})
    await log.open()
    for number in range({publishes}):
        publication = await log.publish([Draft.of({{"type": "chat", "data": number}}, max_bytes=100)])
        print(publication.receipt.first, flush=True)
    os._exit(9)

asyncio.run(publish())
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, stdout=subprocess.PIPE)  # noqa: S603  # our own program
    assert 9 == done.returncode
    return [*map(int, done.stdout.split())]


def copied(source: Path, target: Path, *suffixes: str) -> None:
    """Copy the file of a log, with its other files that are named."""
    for suffix in ("", *suffixes):
        shutil.copy(f"{source}{suffix}", f"{target}{suffix}")


ENDS = pytest.mark.parametrize("options", ["", "?synchronous=normal"])


@ENDS
async def test_the_end_of_the_process_loses_nothing(tmp_path: Path, options: str) -> None:
    published = killed_while_open(tmp_path / "log.db", options=options)
    place = Place(f"sqlite:{tmp_path}/log.db{options}")

    log, window = await place.open()
    later = await log.publish(drafts(1))
    await place.close_all()

    assert [*published, later.receipt.first] == numbers([*window])
    assert [Outcome.COMPLETE] * 4 == [window.locate(number).outcome for number in [published[0] - 1, *published]]


@ENDS
async def test_after_an_unclean_end_numbers_go_on_at_the_wall_clock(tmp_path: Path, options: str) -> None:
    [*_, last] = killed_while_open(tmp_path / "log.db", options=options)
    wall_clock = ManualClock(last / 1e6 + 5)
    place = Place(f"sqlite:{tmp_path}/log.db{options}")

    log, window = await place.open(wall_clock=wall_clock)
    later = await log.publish(drafts(1))
    await place.close_all()

    assert last + 5_000_000 < later.receipt.first
    assert Outcome.COMPLETE is window.locate(later.receipt.first - 1).outcome
    # A client that has seen a number which the file does not know has seen lost messages.
    assert [Outcome.GAP] * 2 == [window.locate(number).outcome for number in (last + 1, later.receipt.first - 2)]


async def test_holes_are_remembered_over_orderly_restarts(tmp_path: Path) -> None:
    published = killed_while_open(tmp_path / "log.db")
    place = Place(f"sqlite:{tmp_path}/log.db")
    log, first = await place.open()
    later = await log.publish(drafts(1))
    await place.close(log)

    _, second = await place.open()
    await place.close_all()

    assert [*published, later.receipt.first] == numbers([*second])
    assert first.latest == second.latest
    assert Outcome.GAP is second.locate(published[-1] + 1).outcome
    assert Outcome.COMPLETE is second.locate(published[-1]).outcome


async def test_a_quiet_log_that_was_killed_declares_no_gap(tmp_path: Path) -> None:
    [*_, last] = killed_while_open(tmp_path / "log.db")
    clock = ManualClock(time.monotonic() + 2_000.0)

    place = Place(f"sqlite:{tmp_path}/log.db")
    log, window = await place.open(clock=clock)
    log.expire()
    await place.close_all()

    assert 0 == len(window)
    assert Outcome.COMPLETE is window.locate(last).outcome
    assert Outcome.GAP is window.locate(last - 1).outcome


@ENDS
@pytest.mark.parametrize("wal", [("-wal",), ()], ids=["with WAL", "without WAL"])
@pytest.mark.parametrize("removed", [True, False], ids=["removed", "in place"])
async def test_a_file_that_was_rolled_back_declares_a_gap_and_uses_no_number_twice(
    tmp_path: Path, options: str, wal: tuple[str, ...], *, removed: bool
) -> None:
    path, copy = tmp_path / "log.db", tmp_path / "copy.db"
    [*_, early] = killed_while_open(path, options=options)
    copied(path, copy, "-wal")
    [*_, last] = killed_while_open(path, options=options)
    if removed:
        for suffix in ("", "-wal"):
            Path(f"{path}{suffix}").unlink()
    elif not wal:
        Path(f"{path}-wal").unlink()
    copied(copy, path, *wal)

    place = Place(f"sqlite:{path}{options}")
    log, window = await place.open()
    later = await log.publish(drafts(1))
    await place.close_all()

    assert last < later.receipt.first
    assert Outcome.GAP is window.locate(early).outcome
    assert Outcome.GAP is window.locate(last).outcome
    assert Outcome.COMPLETE is window.locate(later.receipt.first - 1).outcome


async def test_a_copy_of_a_closed_file_declares_a_gap(tmp_path: Path) -> None:
    """The copy is complete and closed in order, with its mark. It may still be older than the last use of the file."""
    path = tmp_path / "log.db"
    place = Place(f"sqlite:{path}")
    log, window = await place.open()
    await log.publish(drafts(3))
    await place.close(log)
    copied(path, tmp_path / "copy.db", "-closed")
    [*_, last] = killed_while_open(path)
    Path(f"{path}-wal").unlink()
    copied(tmp_path / "copy.db", path, "-closed")

    log, window = await place.open()
    later = await log.publish(drafts(1))
    await place.close_all()

    assert last < later.receipt.first
    assert [Outcome.GAP] * 2 == [window.locate(number).outcome for number in (window.first_number + 2, last)]


async def test_a_closed_file_has_a_mark_for_its_owner_alone_until_it_is_opened(tmp_path: Path, place: Place) -> None:
    mark = tmp_path / "log.db-closed"
    log, _ = await place.open()
    await place.close(log)

    assert 0o600 == mark.stat().st_mode & 0o777
    await place.open()
    assert not mark.exists()


async def test_a_killed_file_without_its_wal_is_not_taken_for_the_closed_one(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    place = Place(f"sqlite:{path}")
    log, window = await place.open()
    await log.publish(drafts(3))
    await place.close(log)
    [*_, last] = killed_while_open(path)
    Path(f"{path}-wal").unlink()

    log, window = await place.open()
    later = await log.publish(drafts(1))
    await place.close_all()

    assert last < later.receipt.first
    assert Outcome.GAP is window.locate(window.first_number + 2).outcome


async def test_a_gap_after_a_rollback_is_declared_until_it_is_evicted(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    [*_, last] = killed_while_open(path)
    copied(path, tmp_path / "copy.db", "-wal")
    place = Place(f"sqlite:{tmp_path}/copy.db")
    log, _ = await place.open()
    await log.publish(drafts(1))
    await place.close(log)

    _, window = await place.open()
    await place.close_all()

    assert 4 == len(window)
    assert Outcome.GAP is window.locate(last).outcome


@pytest.mark.parametrize("change", ["chmod", "chown"])
async def test_the_permissions_of_a_closed_file_may_be_changed(tmp_path: Path, place: Place, change: str) -> None:
    log, before = await place.open()
    await log.publish(drafts(3))
    await place.close(log)
    if change == "chmod":
        (tmp_path / "log.db").chmod(0o640)
    else:
        os.chown(tmp_path / "log.db", os.getuid(), os.getgid())

    log, after = await place.open()
    later = await log.publish(drafts(1))

    assert before.latest + 1 == later.receipt.first
    assert Outcome.COMPLETE is after.locate(before.first_number - 1).outcome


async def test_a_start_that_fails_keeps_the_file_closed(tmp_path: Path, place: Place) -> None:
    """Such as one of an older version of unmissed, which another one follows."""
    log, before = await place.open()
    await log.publish(drafts(3))
    await place.close(log)
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        [version] = connection.execute("PRAGMA user_version").fetchone()
    change(tmp_path / "log.db", "PRAGMA user_version = 7")
    with pytest.raises(ConfigurationError, match="the format 7"):
        await place.open()
    change(tmp_path / "log.db", f"PRAGMA user_version = {version}")

    _, after = await place.open()

    assert before.latest == after.latest
    assert Outcome.COMPLETE is after.locate(before.first_number - 1).outcome


async def test_another_boot_after_an_unclean_end_is_a_gap_if_commits_were_not_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [*_, last] = killed_while_open(tmp_path / "log.db", options="?synchronous=normal")
    monkeypatch.setattr(file, "boot_id", lambda: "another boot")

    place = Place(f"sqlite:{tmp_path}/log.db?synchronous=normal")
    _, window = await place.open()
    await place.close_all()

    assert 3 == len(window)
    assert [Outcome.GAP] * 2 == [window.locate(number).outcome for number in (last, last + 1)]


async def test_a_clock_that_was_set_back_over_a_loss_of_power_uses_no_number_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was lost had at most the numbers that were reserved on the disk."""
    path = tmp_path / "log.db"
    wall_clock = ManualClock(1_796_000_000.0)
    log = SqliteLog(str(path), durable=False, wall_clock=wall_clock)
    window = await log.open()
    copied(path, tmp_path / "copy.db", "-wal")
    await log.publish(drafts(1) * 80_000)
    lost = window.latest
    await log.close()
    wall_clock.advance(-86_400.0)
    monkeypatch.setattr(file, "boot_id", lambda: "another boot")

    log = SqliteLog(str(tmp_path / "copy.db"), durable=False, wall_clock=wall_clock)
    await log.open()
    later = await log.publish(drafts(1))
    await log.close()

    assert lost < later.receipt.first


@pytest.mark.parametrize("end", ["closed", "killed"])
async def test_another_boot_is_no_gap_if_commits_were_synced(
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
    assert Outcome.COMPLETE is window.locate(window.first_number - 1).outcome


async def test_a_machine_without_boot_ids_counts_every_unclean_end_as_a_loss_of_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "boot_id", lambda: None)
    log = SqliteLog(str(tmp_path / "log.db"), durable=False)
    first = await log.open()
    await log.publish(drafts(3))
    copied(tmp_path / "log.db", tmp_path / "copy.db", "-wal")

    place = Place(f"sqlite:{tmp_path}/copy.db?synchronous=normal")
    _, second = await place.open()
    await place.close_all()
    await log.close()

    assert first.epoch == second.epoch
    assert Outcome.GAP is second.locate(first.latest).outcome


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
    """Change a closed file as a damaged disk would, which does not move the time of modification."""
    before = path.stat()
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


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
    change(
        tmp_path / "log.db", "INSERT INTO messages SELECT number + 1, unix_ms, log_ms, archived, message FROM messages"
    )

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

    assert [each.payload for each in before] == [each.payload for each in after]
    assert first.receipt == again.receipt
