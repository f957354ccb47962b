"""The epoch of a log in its file: its numbers, and what shows after an unclean end whether numbers may be lost."""

import contextlib
import logging
import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from unmissed.core.errors import ConfigurationError
from unmissed.logs.sqlite.file_witness import FileIdentity, FileWitness
from unmissed.logs.sqlite.number_holes import Hole, store_hole

logger = logging.getLogger("unmissed")

_NO_BOOT = "unknown"
_RESERVED = 100_000
"""How many numbers are reserved, on the disk, for commits that may not reach it."""

LIFE_SCHEMA = """
CREATE TABLE life (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch TEXT NOT NULL,
    first_number INTEGER NOT NULL,
    latest INTEGER NOT NULL,
    -- Messages through this one were removed from the tail in order.
    trimmed INTEGER NOT NULL,
    -- Higher numbers have not been used, although commits may be lost.
    reserved INTEGER NOT NULL,
    -- The boot of the machine in which commits may not have reached the disk yet; empty when all have.
    unsynced_boot TEXT NOT NULL,
    -- The Unix time of the last commit in nanoseconds, and the files of its process, as JSON.
    written_ns INTEGER NOT NULL,
    files TEXT NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class StoredEpoch:
    """The epoch in a file, and what shows whether the file has lost a part of it."""

    epoch: str
    first_number: int
    latest: int
    trimmed: int
    reserved: int
    unsynced_boot: str
    written_ns: int
    files: str


def first_life(first_number: int) -> str:
    """Return the statement that begins an epoch in a new file."""
    before = first_number - 1
    # The epoch has letters, digits, - and _ only.
    return (
        f"INSERT INTO life VALUES (1, '{secrets.token_urlsafe(9)}', {first_number}, {before}, {before}, 0, '', 0, '');"  # noqa: S608
    )


class LifeTable:
    """The only row of ``life``. ``boot`` identifies this boot of the machine; if ``durable``, each commit is synced."""

    def __init__(
        self, connection: sqlite3.Connection, path: str, witness: FileWitness, *, boot: str | None, durable: bool
    ) -> None:
        self._connection = connection
        self._path = path
        self._witness = witness
        self._boot = boot
        self._durable = durable

    def read(self) -> StoredEpoch:
        """Return the row. Raises ConfigurationError if it is missing or damaged."""
        found = self._connection.execute(
            "SELECT epoch, first_number, latest, trimmed, reserved, unsynced_boot, written_ns, files FROM life"
        ).fetchone()
        life = found and StoredEpoch(*found)
        types = [str, int, int, int, int, str, int, str]
        if not life or types != [*map(type, found)] or not 0 < life.first_number <= life.latest + 1:
            raise ConfigurationError(f"{self._path} is damaged: restore it, or move it away to begin a new log")
        return life

    def leap(self, wall_clock: Callable[[], float]) -> None:
        """Leave out all numbers that may have been used after the last one that is stored: go on at the wall clock.

        Their messages are lost, unless the file shows that there are none.
        """
        life = self.read()
        # 2 above: one number is left out, for the reason given in ``MemoryLog``.
        through = max(int(wall_clock() * 1e6), max(life.latest, life.reserved) + 1)
        files = FileIdentity.decoded(life.files)
        is_complete = life.unsynced_boot in ("", self._boot) and self._witness.is_untouched(files, life.written_ns)
        if not is_complete:
            logger.warning(
                "%s may have lost its newest messages, as after a restored copy or a loss of power: clients get a gap",
                self._path,
            )
        store_hole(self._connection, Hole(life.latest, through, lost=not is_complete))
        self._connection.execute("UPDATE life SET latest = ?", (through,))

    def begin(self) -> None:
        """Record, on the disk, which files this process uses, before its first publish."""
        life = self.read()
        if self._durable:
            self._sync("", reserved=life.reserved)
        else:
            self._sync(self._boot or _NO_BOOT, reserved=life.latest + _RESERVED)

    def reserve(self, number: int) -> None:
        """Make sure that numbers up to this one may be used: after a loss of power, higher ones follow."""
        if not self._durable and number > self._reserved:
            self._sync(self._boot or _NO_BOOT, reserved=number + _RESERVED)

    def end(self) -> None:
        """Sync all commits to the disk, after the last one."""
        # With this commit, all commits before it in the same write-ahead log are synced.
        self._sync("", reserved=self._reserved)

    def advance(self, latest: int) -> int:
        """Store the latest number, in the transaction of its message; return the time for ``confirm``."""
        written_ns = self._witness.now_ns()
        self._connection.execute("UPDATE life SET latest = ?, written_ns = ?", (latest, written_ns))
        return written_ns

    def confirm(self, written_ns: int) -> None:
        """After a commit: store its time again if the commit was delayed, as on a busy machine."""
        if not self._witness.is_late(written_ns):
            return
        # What was committed is stored, whether this succeeds or not.
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("UPDATE life SET written_ns = ?", (self._witness.now_ns(),))

    def trimmed(self, through: int) -> None:
        """Store that messages through this one were removed from the tail."""
        self._connection.execute("UPDATE life SET trimmed = ?", (through,))

    def _sync(self, unsynced_boot: str, *, reserved: int) -> None:
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(
            "UPDATE life SET unsynced_boot = ?, reserved = ?, files = ?, written_ns = ?",
            (unsynced_boot, reserved, self._witness.identity().encoded(), self._witness.now_ns()),
        )
        self._reserved = reserved
        # After this commit, which must be on the disk before the first one that may not be.
        if not self._durable:
            self._connection.execute("PRAGMA synchronous = NORMAL")
