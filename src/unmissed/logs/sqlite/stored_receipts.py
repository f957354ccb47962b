"""The receipts of idempotency keys in the file of a log."""

import sqlite3
from collections import Counter

from unmissed.core.errors import IdempotencyConflict, TooManyRequests
from unmissed.core.messages import rfc3339
from unmissed.core.receipts import Receipt, has_room, owner_of
from unmissed.logs.writer import Write

RECEIPTS_SCHEMA = """
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
"""


class StoredReceipts:
    """The table of receipts, and how many keys each owner has in it. ``total`` bounds the keys of all.

    Methods that write are called in the transaction of the messages.
    """

    def __init__(self, connection: sqlite3.Connection, *, total: int) -> None:
        self._connection = connection
        self._total = total
        self.count()

    def count(self) -> None:
        """Count the keys of each owner, at the start and after a failed transaction."""
        keys = self._connection.execute("SELECT key FROM receipts")
        self._keys_of = Counter(owner_of(key) for (key,) in keys)
        self._key_count = self._keys_of.total()

    def find(self, write: Write, *, after_ms: int) -> Receipt | IdempotencyConflict | None:
        """Return the answer to the key of a publish if it was stored after a time on the clock of the log, or None."""
        if not write.key:
            return None
        found = self._connection.execute(
            "SELECT fingerprint, first, count, epoch, unix_ms FROM receipts WHERE key = ? AND log_ms > ?",
            (write.key, after_ms),
        ).fetchone()
        if found is None:
            return None
        fingerprint, first, count, epoch, unix_ms = found
        if fingerprint != write.fingerprint:
            return IdempotencyConflict()
        return Receipt(first, count, epoch, rfc3339(unix_ms / 1000))

    def refusal(self, write: Write, *, after_ms: int, pause_ms: int) -> TooManyRequests | None:
        """Return the refusal of a new publish if there is no room for its key, or None.

        Keys are forgotten in intervals of ``pause_ms``, when they were stored at ``after_ms`` or before.
        """
        if write.key is None:
            return None
        mine, used = self._keys_of[owner_of(write.key)], self._key_count + len(self._keys_of)
        if has_room(mine=mine, used=used, total=self._total):
            return None
        [oldest_ms] = self._connection.execute("SELECT min(log_ms) FROM receipts").fetchone()
        wait_ms = 0 if oldest_ms is None else oldest_ms - after_ms
        return TooManyRequests("too many idempotency keys are in use", retry_after=(wait_ms + pause_ms) / 1000)

    def keep(self, write: Write, receipt: Receipt, *, unix_ms: int, log_ms: int) -> None:
        """Store the receipt of a publish that has a key."""
        if not write.key:
            return
        # A receipt of this key that has expired may still be stored: expired ones are deleted once a minute.
        self._forget("key = ?", write.key)
        self._connection.execute(
            "INSERT INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?)",
            (write.key, unix_ms, log_ms, write.fingerprint, receipt.first, receipt.count, receipt.epoch),
        )
        self._key_count += 1
        self._keys_of[owner_of(write.key)] += 1

    def expire(self, through_ms: int) -> None:
        """Delete the receipts that were stored up to a time on the clock of the log."""
        self._forget("log_ms <= ?", through_ms)

    def _forget(self, which: str, value: object) -> None:
        found = self._connection.execute(f"SELECT key FROM receipts WHERE {which}", (value,))  # noqa: S608  # our own
        for (key,) in found:
            owner = owner_of(key)
            self._key_count -= 1
            self._keys_of[owner] -= 1
            if not self._keys_of[owner]:
                del self._keys_of[owner]
        self._connection.execute(f"DELETE FROM receipts WHERE {which}", (value,))  # noqa: S608  # our own
