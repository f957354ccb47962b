"""The SQLite file of a log: its epoch, the retained messages, and the receipts of idempotency keys."""

import contextlib
import logging
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unmissed.core.errors import ConfigurationError, LogUnavailable, UnmissedError
from unmissed.core.messages import Message, rfc3339
from unmissed.core.receipts import Receipt
from unmissed.core.retention import Retention
from unmissed.logs.base import Publication
from unmissed.logs.codec import encode_message
from unmissed.logs.feed import stamped
from unmissed.logs.sqlite.archive_tables import ARCHIVE_SCHEMA, ArchiveTables
from unmissed.logs.sqlite.file_clock import FileClock, boot_id
from unmissed.logs.sqlite.file_witness import FileWitness
from unmissed.logs.sqlite.life_table import LIFE_SCHEMA, LifeTable, first_life
from unmissed.logs.sqlite.number_holes import HOLES_SCHEMA, Hole, stored_holes
from unmissed.logs.sqlite.stored_receipts import RECEIPTS_SCHEMA, StoredReceipts
from unmissed.logs.sqlite.tail_table import TAIL_SCHEMA, StoredRow, Tail, continuous, decoded
from unmissed.logs.writer import Write

logger = logging.getLogger("unmissed")

_APPLICATION_ID = 0x756E6D73
_VERSION = 3
_BUSY_SECONDS = 1.0
_TRIM_MS = 60_000
_TRIM_ROWS = 500
"""How many messages one write removes in addition to as many as it stores, so that none waits long."""

_SCHEMA = f"""
BEGIN IMMEDIATE;
{LIFE_SCHEMA}
-- Three clocks at one moment: that of the log, whose differences are ages, the wall clock, and that of a boot.
CREATE TABLE clocks (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    log_ms INTEGER NOT NULL,
    wall_ms INTEGER NOT NULL,
    monotonic_ms INTEGER NOT NULL,
    boot TEXT
);
{TAIL_SCHEMA}
{ARCHIVE_SCHEMA}
{RECEIPTS_SCHEMA}
{HOLES_SCHEMA}
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
"""


@dataclass(frozen=True, slots=True)
class Retained:
    """What a file holds, each in ascending order.

    The tail begins after ``trimmed``, and ``archived`` has messages up to it. ``lost`` has the highest lost number by
    key of an audience, as in the archive. A damaged message is a hole of one number.
    """

    epoch: str
    first_number: int
    trimmed: int
    archived: list[Message | Hole]
    partial: frozenset[int]
    lost: Mapping[str, int]
    tail: list[Message | Hole]
    holes: list[Hole]


class SqliteFile:
    """A file that one process uses exclusively. All methods must be called in one thread.

    With ``durable``, each commit is on the disk before it is answered. ``clock`` returns monotonic seconds, for ages,
    and ``wall_clock`` Unix seconds.
    """

    def __init__(
        self,
        path: str,
        *,
        durable: bool,
        retention: Retention,
        first_number: int | None,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._path = path
        self._durable = durable
        self._retention = retention
        self._first_number = first_number
        self._clock = clock
        self._wall_clock = wall_clock

    def open(self) -> Retained:
        """Create the file, or continue its epoch, and return what it holds.

        Raises ConfigurationError if the file cannot be used.
        """
        self._boot = boot_id()
        # Before anything is changed.
        self._witness = FileWitness(self._path, boot=self._boot)
        self._create_private()
        with contextlib.ExitStack() as stack:
            try:
                # Python begins no transactions: ``_transaction`` does, and inside one, some pragmas are refused.
                self._connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
                stack.callback(self._connection.close)
                opened = self._open()
            except (sqlite3.Error, OSError) as error:
                raise ConfigurationError(self._refusal(error)) from None
            stack.pop_all()
            return opened

    def write(self, writes: Sequence[Write]) -> list[Publication | UnmissedError]:
        """Store these publishes in one transaction, and return the result of each.

        Raises LogUnavailable if it fails. Then nothing is stored, and no number is used.
        """
        try:
            return self._write(writes)
        except sqlite3.Error as error:
            # The rollback has removed receipts that were counted already.
            with contextlib.suppress(sqlite3.Error):
                self._count()
            raise LogUnavailable(f"the log {self._path} cannot be written: {error}") from None

    def close(self) -> None:
        """Sync everything to the disk, and release the file."""
        with contextlib.suppress(sqlite3.Error, OSError):
            self._log_clock.note()
            self._life.end()
            # Closing the connection would do so, too, but after the mark, which must be the last change.
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._witness.mark_closed()
        self._connection.close()

    def _create_private(self) -> None:
        """Create the file for its owner only, unless it exists. SQLite copies the permissions to its other files.

        The permissions of an existing file are kept: a group may be allowed to read it.
        """
        # SQLite reports what makes this impossible.
        with contextlib.suppress(OSError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        with contextlib.suppress(OSError):
            if os.name == "posix" and Path(self._path).stat().st_mode & stat.S_IROTH:
                logger.warning("every user of this machine can read %s: run chmod 600 on it", self._path)

    def _open(self) -> Retained:
        # Before the first access in WAL mode: then the lock is kept until the file is closed, so that another process
        # is refused, and no shared memory is needed (sqlite.org/wal.html).
        self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        # Before the journal mode is changed: a database of another program must stay as it is.
        is_new = self._is_new()
        self._configure()
        if is_new:
            self._create()
        self._life = LifeTable(self._connection, self._path, self._witness, boot=self._boot, durable=self._durable)
        latest = self._life.read().latest
        was_closed = is_new or self._witness.was_closed()
        # Before the first commit: what may follow it is not in the file that the mark is about.
        self._witness.remove_mark()
        self._log_clock = FileClock(self._connection, boot=self._boot, clock=self._clock, wall_clock=self._wall_clock)
        with self._transaction():
            # Rows above the latest number were not written by unmissed, and would conflict with the next message.
            self._connection.execute("DELETE FROM messages WHERE number > ?", (latest,))
            self._connection.execute("DELETE FROM archive WHERE number > ?", (latest,))
            if not was_closed:
                self._life.leap(self._wall_clock)
            self._log_clock.note()
            self._open_tables()
            retained = self._read()
        # A file that loses its write-ahead log is still a log of this epoch.
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._life.begin()
        return retained

    def _create(self) -> None:
        """Begin an epoch at the time in microseconds, unless another first number was given."""
        first_number = self._first_number
        if first_number is None:
            first_number = int(self._wall_clock() * 1e6) + 1
        # In one transaction: the process may end at any time.
        self._connection.executescript(f"{_SCHEMA}{first_life(first_number)}COMMIT;")

    def _open_tables(self) -> None:
        """Count what is stored, and remove what is no longer retained."""
        self._receipts = StoredReceipts(self._connection, total=self._retention.max_keys)
        self._tail = Tail(self._connection, self._retention)
        self._archive = ArchiveTables(self._connection, self._retention)
        self._trim_at, self._trims_tail = 0, True
        while self._trims_tail:
            self._trim(self._log_clock.now_ms(), most=_TRIM_ROWS)

    def _count(self) -> None:
        """Count again what is stored, after a failed transaction."""
        for table in (self._receipts, self._tail, self._archive):
            table.count()

    def _read(self) -> Retained:
        """Return the stored messages, and archive those that a rule keeps which is new."""
        life = self._life.read()
        self._epoch, self._latest = life.epoch, life.latest
        now, now_ms = self._clock(), self._log_clock.now_ms()
        holes = stored_holes(self._connection)
        rows = self._tail.rows().fetchall()
        tail = [*decoded((row[:4] for row in rows), now=now, log_ms=now_ms)]
        for (number, unix_ms, log_ms, stored, archived), message in zip(rows, tail, strict=True):
            if not archived and isinstance(message, Message) and self._archive.keeps(message):
                self._archive.add(message, stored, unix_ms=unix_ms, log_ms=log_ms)
                self._tail.set_archived(number)
        return Retained(
            life.epoch,
            life.first_number,
            life.trimmed,
            archived=[*decoded(self._archive.rows(life.trimmed), now=now, log_ms=now_ms)],
            partial=self._archive.partial(),
            lost=self._archive.marks(),
            tail=[*continuous(tail, holes, after=life.trimmed, through=life.latest)],
            holes=holes,
        )

    def _configure(self) -> None:
        [mode] = self._fetch("PRAGMA journal_mode = WAL")
        if mode != "wal":
            raise ConfigurationError(f"{self._path} cannot be used for a log: it needs a file on a local disk")
        self._connection.execute("PRAGMA synchronous = FULL")

    def _is_new(self) -> bool:
        """Return whether the file has just been created. Raises ConfigurationError if it is no log."""
        [tables] = self._fetch("SELECT count(*) FROM sqlite_schema")
        [application_id] = self._fetch("PRAGMA application_id")
        [version] = self._fetch("PRAGMA user_version")
        if tables and application_id != _APPLICATION_ID:
            raise ConfigurationError(f"{self._path} is a database of another program: choose another path")
        if tables and version != _VERSION:
            raise ConfigurationError(
                f"{self._path} has the format {version}, and this version of unmissed reads {_VERSION}: "
                "move it away to begin a new log"
            )
        return not tables

    def _write(self, writes: Sequence[Write]) -> list[Publication | UnmissedError]:
        now_ms, latest = self._log_clock.now_ms(), self._latest
        results: list[Publication | UnmissedError] = []
        self._life.reserve(latest + sum(len(write.drafts) for write in writes))
        with self._transaction():
            for write in writes:
                answer = self._answer(write, now_ms) if write.key else None
                result = answer or self._insert(write, latest + 1, now_ms)
                if isinstance(result, Publication) and not result.repeated:
                    latest += len(result.messages)
                results.append(result)
            # In the same transaction as the messages, so that no number is used again after a failure.
            written_ns = self._life.advance(latest)
            self._log_clock.note()
            self._trim(now_ms, most=_TRIM_ROWS + latest - self._latest)
        # After the commit: a rollback uses no number.
        self._latest = latest
        self._life.confirm(written_ns)
        return results

    def _answer(self, write: Write, now_ms: int) -> Publication | UnmissedError | None:
        """Return the answer to a key that is known, or that there is no room for; None if the publish is stored."""
        oldest_ms = self._oldest_ms(now_ms)
        # First: a repeated key is answered also when there is no room for a new one.
        found = self._receipts.find(write, after_ms=oldest_ms)
        if isinstance(found, Receipt):
            return Publication(found, stamped(write.drafts, found, appended_at=self._clock()), repeated=True)
        return found or self._receipts.refusal(write, after_ms=oldest_ms, pause_ms=_TRIM_MS)

    def _insert(self, write: Write, first: int, now_ms: int) -> Publication:
        unix_ms = int(self._wall_clock() * 1000)
        receipt = Receipt(first, len(write.drafts), self._epoch, rfc3339(unix_ms / 1000))
        messages = stamped(write.drafts, receipt, appended_at=self._clock())
        rows: list[tuple[int, int, int, bool, bytes]] = []
        for message in messages:
            stored, archived = encode_message(message), self._archive.keeps(message)
            rows.append((message.sequence_number, unix_ms, now_ms, archived, stored))
            if archived:
                self._archive.add(message, stored, unix_ms=unix_ms, log_ms=now_ms)
        self._tail.add(rows)
        self._receipts.keep(write, receipt, unix_ms=unix_ms, log_ms=now_ms)
        return Publication(receipt, messages)

    def _trim(self, now_ms: int, *, most: int) -> None:
        """Remove some of what is no longer retained. The rest is removed with the next publishes."""
        oldest_ms = self._oldest_ms(now_ms)
        if now_ms >= self._trim_at:
            self._receipts.expire(oldest_ms)
            self._archive.begin_sweep()
            self._archive.forget_marks()
            self._trim_at, self._trims_tail = now_ms + _TRIM_MS, True
        if self._trims_tail or self._tail.is_overfull:
            trimmed = self._tail.trim(oldest_ms, most=most)
            self._archive_or_lose(trimmed.unarchived, oldest_ms, now_ms)
            self._trims_tail = not trimmed.is_finished
            if trimmed.through:
                self._life.trimmed(trimmed.through)
        self._archive.trim(now_ms, most=most)

    def _archive_or_lose(self, removed: Sequence[StoredRow], oldest_ms: int, now_ms: int) -> None:
        """Archive messages without a rule that the tail has no room for, if the window has: others fill the tail."""
        has_room = self._tail.unarchived < self._retention.max_messages
        kept = [row for row in removed if has_room and row[2] > oldest_ms]
        for row, message in zip(kept, decoded(kept, now=0.0, log_ms=now_ms), strict=True):
            number, unix_ms, log_ms, stored = row
            if isinstance(message, Message):
                self._archive.add(message, stored, unix_ms=unix_ms, log_ms=log_ms)
            else:
                self._archive.lose([(number, stored)])
        # After those that are kept only the ones that were too old or had no room: rows are in ascending order.
        if len(kept) < len(removed):
            self._archive.lose((row[0], row[3]) for row in removed[: len(removed) - len(kept)])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            # A failed commit may already have ended the transaction.
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    def _fetch(self, statement: str) -> tuple[Any, ...]:
        """Return the only row of a result."""
        row: tuple[Any, ...] = self._connection.execute(statement).fetchone()
        return row

    def _oldest_ms(self, now_ms: int) -> int:
        """Return the time on the clock of the log through which messages and receipts are no longer retained."""
        return now_ms - round(self._retention.max_age * 1000)

    def _refusal(self, error: sqlite3.Error | OSError) -> str:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_BUSY:
            return (
                f"{self._path} is in use by another process, and one file is the log of one process: "
                "choose another path, or share a log of redis:// or nats:// between processes"
            )
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return (
                f"{self._path} is damaged or no SQLite file ({error}): restore it, or move it away to begin a new log"
            )
        return f"{self._path} cannot be used for the log: {error}"
