"""The SQLite file of a log: its epoch, the retained messages, and the receipts of idempotency keys."""

import contextlib
import logging
import os
import secrets
import sqlite3
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from unmissed.core.errors import (
    ConfigurationError,
    IdempotencyConflict,
    LogUnavailable,
    TooManyRequests,
    UnmissedError,
)
from unmissed.core.messages import Message, rfc3339
from unmissed.core.receipts import Receipt, has_room, owner_of
from unmissed.core.retention import Retention
from unmissed.logs.base import Publication
from unmissed.logs.codec import decode_message, encode_message
from unmissed.logs.feed import stamped
from unmissed.logs.sqlite.file_clock import FileClock, boot_id
from unmissed.logs.writer import Write

logger = logging.getLogger("unmissed")

_APPLICATION_ID = 0x756E6D73
_VERSION = 2
_BUSY_SECONDS = 1.0
_TRIM_MS = 60_000
_NO_BOOT = "unknown"

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE life (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch TEXT NOT NULL,
    first_number INTEGER NOT NULL,
    latest INTEGER NOT NULL,
    -- The boot of the machine in which commits may not have reached the disk yet; empty when all have.
    unsynced_boot TEXT NOT NULL
);
-- Three clocks at one moment: that of the log, whose differences are ages, the wall clock, and that of a boot.
CREATE TABLE clocks (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    log_ms INTEGER NOT NULL,
    wall_ms INTEGER NOT NULL,
    monotonic_ms INTEGER NOT NULL,
    boot TEXT
);
CREATE TABLE messages (
    number INTEGER PRIMARY KEY,
    unix_ms INTEGER NOT NULL,
    log_ms INTEGER NOT NULL,
    message BLOB NOT NULL
);
CREATE TABLE receipts (
    key TEXT PRIMARY KEY,
    unix_ms INTEGER NOT NULL,
    log_ms INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,
    first INTEGER NOT NULL,
    count INTEGER NOT NULL,
    epoch TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX receipts_by_age ON receipts (log_ms);
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
COMMIT;
"""


@dataclass(frozen=True, slots=True)
class StoredEpoch:
    """The epoch in a file."""

    epoch: str
    first_number: int
    latest: int
    unsynced_boot: str


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

    def open(self) -> tuple[StoredEpoch, list[Message]]:
        """Create the file, or continue its epoch; return it with the retained messages, oldest first.

        Raises ConfigurationError if the file cannot be used.
        """
        self._create_private()
        with contextlib.ExitStack() as stack:
            try:
                # Python begins no transactions: ``_transaction`` does, and inside one, some pragmas are refused.
                self._connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
                stack.callback(self._connection.close)
                opened = self._open(), self._retained()
            except sqlite3.Error as error:
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
                self._count_keys()
            raise LogUnavailable(f"the log {self._path} cannot be written: {error}") from None

    def close(self) -> None:
        """Sync everything to the disk, and release the file."""
        with contextlib.suppress(sqlite3.Error):
            self._log_clock.note()
            # The commit of the mark is synced, and with it all commits before it in the same write-ahead log.
            self._mark_unsynced("")
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

    def _open(self) -> StoredEpoch:
        boot = boot_id()
        # Before the first access in WAL mode: then the lock is kept until the file is closed, so that another process
        # is refused, and no shared memory is needed (sqlite.org/wal.html).
        self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        # Before the journal mode is changed: a database of another program must stay as it is.
        is_new = self._is_new()
        self._configure()
        if is_new:
            self._connection.executescript(_SCHEMA)
            self._begin_epoch(above=0)
        # Rows above the latest number were not written by unmissed, and would conflict with the next message.
        self._connection.execute("DELETE FROM messages WHERE number > (SELECT latest FROM life)")
        life = self._read_life()
        # The machine has restarted since commits that may not have reached the disk: numbers that clients have seen may
        # be missing in the file, and would be used again.
        if life.unsynced_boot not in ("", boot):
            self._begin_epoch(above=life.latest)
            life = self._read_life()
        self._epoch, self._latest = life.epoch, life.latest
        self._count_keys()
        self._log_clock = FileClock(self._connection, boot=boot, clock=self._clock, wall_clock=self._wall_clock)
        with self._transaction():
            self._log_clock.note()
            self._trim(self._latest, self._log_clock.now_ms())
        self._mark_unsynced("" if self._durable else boot or _NO_BOOT)
        # After the mark, which must be on the disk before the first commit that may not be.
        if not self._durable:
            self._connection.execute("PRAGMA synchronous = NORMAL")
        return life

    def _retained(self) -> list[Message]:
        """Return the newest messages, as many as fit into the window, oldest first.

        Messages before a missing or damaged one count as evicted, since clients may have missed that one.
        """
        now, now_ms = self._clock(), self._log_clock.now_ms()
        # Columns of SQLite hold values of any type: another program may have stored a text or a float in a row.
        rows = self._connection.execute(
            "SELECT number, CAST(unix_ms AS INTEGER), CAST(log_ms AS INTEGER), CAST(message AS BLOB) FROM messages "
            "ORDER BY number DESC"
        )
        messages: list[Message] = []
        size = 0
        for expected, (number, unix_ms, log_ms, stored) in zip(count(self._latest, -1), rows, strict=False):
            try:
                age = max(0, now_ms - log_ms) / 1000
                message = decode_message(stored, number=number, unix_ms=unix_ms, appended_at=now - age)
            except (ValueError, OverflowError) as error:
                logger.warning("message %d in %s is damaged, and skipped: %s", number, self._path, error)
                break
            size += message.size_in_log
            if number != expected or len(messages) == self._retention.max_messages or size > self._retention.max_bytes:
                break
            messages.append(message)
        return messages[::-1]

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

    def _begin_epoch(self, *, above: int) -> None:
        """Begin an empty epoch at the time in microseconds, or higher if a number could be used again.

        Receipts remain: a known key is answered with the number of its message in the old epoch.
        """
        # 2 above: one number is left out, for the reason given in ``MemoryLog``.
        first_number = max(int(self._wall_clock() * 1e6) + 1, above + 2)
        if self._first_number is not None and not above:
            first_number = self._first_number
        with self._transaction():
            self._connection.execute("DELETE FROM messages")
            self._connection.execute(
                "INSERT OR REPLACE INTO life VALUES (1, ?, ?, ?, '')",
                (secrets.token_urlsafe(9), first_number, first_number - 1),
            )

    def _read_life(self) -> StoredEpoch:
        found = self._connection.execute("SELECT epoch, first_number, latest, unsynced_boot FROM life").fetchone()
        life = found and StoredEpoch(*found)
        if not life or [str, int, int, str] != [*map(type, found)] or not 0 < life.first_number <= life.latest + 1:
            raise ConfigurationError(f"{self._path} is damaged: restore it, or move it away to begin a new log")
        return life

    def _mark_unsynced(self, boot: str) -> None:
        """Record on disk the boot of the machine whose commits a power failure may lose; empty if there are none."""
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("UPDATE life SET unsynced_boot = ?", (boot,))

    def _write(self, writes: Sequence[Write]) -> list[Publication | UnmissedError]:
        now_ms, latest = self._log_clock.now_ms(), self._latest
        results: list[Publication | UnmissedError] = []
        with self._transaction():
            for write in writes:
                # In this order: a repeated key is answered also when there is no room for a new one.
                result = self._known(write, now_ms) or self._no_room(write) or self._insert(write, latest + 1, now_ms)
                if isinstance(result, Publication) and not result.repeated:
                    latest += len(result.messages)
                results.append(result)
            # In the same transaction as the messages, so that no number is used again after a failure.
            self._connection.execute("UPDATE life SET latest = ?", (latest,))
            self._log_clock.note()
            if now_ms >= self._trim_at or latest - self._trimmed_through >= self._retention.max_messages:
                self._trim(latest, now_ms)
        # After the commit: a rollback uses no number.
        self._latest = latest
        return results

    def _known(self, write: Write, now_ms: int) -> Publication | IdempotencyConflict | None:
        """Return the answer to a key that is known, or None."""
        if not write.key:
            return None
        found = self._connection.execute(
            "SELECT fingerprint, first, count, epoch, unix_ms FROM receipts WHERE key = ? AND log_ms > ?",
            (write.key, self._oldest_ms(now_ms)),
        ).fetchone()
        if found is None:
            return None
        fingerprint, first, count, epoch, unix_ms = found
        if fingerprint != write.fingerprint:
            return IdempotencyConflict()
        receipt = Receipt(first, count, epoch, rfc3339(unix_ms / 1000))
        return Publication(receipt, stamped(write.drafts, receipt, appended_at=self._clock()), repeated=True)

    def _insert(self, write: Write, first: int, now_ms: int) -> Publication:
        unix_ms = int(self._wall_clock() * 1000)
        receipt = Receipt(first, len(write.drafts), self._epoch, rfc3339(unix_ms / 1000))
        messages = stamped(write.drafts, receipt, appended_at=self._clock())
        self._connection.executemany(
            "INSERT INTO messages VALUES (?, ?, ?, ?)",
            [(message.sequence_number, unix_ms, now_ms, encode_message(message)) for message in messages],
        )
        if write.key:
            # A receipt of this key that has expired may still be stored: expired ones are deleted once a minute.
            self._forget("key = ?", write.key)
            self._connection.execute(
                "INSERT INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?)",
                (write.key, unix_ms, now_ms, write.fingerprint, first, receipt.count, self._epoch),
            )
            self._key_count += 1
            self._keys_of[owner_of(write.key)] += 1
        return Publication(receipt, messages)

    def _no_room(self, write: Write) -> TooManyRequests | None:
        """Return the refusal of a new publish if there is no room for its key, or None."""
        if write.key is None:
            return None
        mine, used = self._keys_of[owner_of(write.key)], self._key_count + len(self._keys_of)
        if has_room(mine=mine, used=used, total=self._retention.max_keys):
            return None
        [oldest_ms] = self._fetch("SELECT min(log_ms) FROM receipts")
        wait_ms = 0 if oldest_ms is None else oldest_ms - self._oldest_ms(self._log_clock.now_ms())
        return TooManyRequests("too many idempotency keys are in use", retry_after=(wait_ms + _TRIM_MS) / 1000)

    def _count_keys(self) -> None:
        """Count the receipts of each owner, at the start and after a failed transaction."""
        keys = self._connection.execute("SELECT key FROM receipts")
        self._keys_of = Counter(owner_of(key) for (key,) in keys)
        self._key_count = self._keys_of.total()

    def _forget(self, which: str, value: object) -> None:
        """Delete receipts."""
        found = self._connection.execute(f"SELECT key FROM receipts WHERE {which}", (value,))  # noqa: S608  # our own
        for (key,) in found:
            owner = owner_of(key)
            self._key_count -= 1
            self._keys_of[owner] -= 1
            if not self._keys_of[owner]:
                del self._keys_of[owner]
        self._connection.execute(f"DELETE FROM receipts WHERE {which}", (value,))  # noqa: S608  # our own

    def _trim(self, latest: int, now_ms: int) -> None:
        """Delete what is no longer retained. Between two calls, up to twice as many messages may be stored."""
        oldest_ms = self._oldest_ms(now_ms)
        self._connection.execute(
            "DELETE FROM messages WHERE number <= ? OR log_ms <= ?", (latest - self._retention.max_messages, oldest_ms)
        )
        self._forget("log_ms <= ?", oldest_ms)
        self._trimmed_through, self._trim_at = latest, now_ms + _TRIM_MS

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

    def _refusal(self, error: sqlite3.Error) -> str:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            return (
                f"{self._path} is in use by another process, and one file is the log of one process: "
                "choose another path, or share a log of redis:// or nats:// between processes"
            )
        if error.sqlite_errorcode in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return (
                f"{self._path} is damaged or no SQLite file ({error}): restore it, or move it away to begin a new log"
            )
        return f"{self._path} cannot be used for the log: {error}"
