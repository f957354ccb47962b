"""Holes in the numbers of a file: what its users left out because the file may have lost numbers that were used."""

import sqlite3
from dataclasses import dataclass

HOLES_SCHEMA = """
CREATE TABLE holes (
    after INTEGER PRIMARY KEY,
    through INTEGER NOT NULL,
    lost INTEGER NOT NULL
);
"""

_MOST = 100


@dataclass(frozen=True, slots=True)
class Hole:
    """Numbers above ``after``, up to ``through``, that the file has no messages for.

    A client with a position among them has seen messages that the file does not know. With ``lost``, so may every
    client whose position is below ``through``.
    """

    after: int
    through: int
    lost: bool


def store_hole(connection: sqlite3.Connection, hole: Hole, *, most: int = _MOST) -> None:
    """Add a hole above the latest number, in the transaction of the caller.

    Of more than ``most`` holes, the oldest are forgotten: everything up to the last of these counts as lost.
    """
    before = connection.execute("SELECT after, lost FROM holes WHERE through = ?", (hole.after,)).fetchone()
    # Nothing was published between the two.
    if before is not None:
        hole = Hole(before[0], hole.through, lost=hole.lost or bool(before[1]))
    connection.execute("INSERT OR REPLACE INTO holes VALUES (?, ?, ?)", (hole.after, hole.through, hole.lost))
    oldest = connection.execute("SELECT after FROM holes ORDER BY after DESC LIMIT 1 OFFSET ?", (most,)).fetchone()
    if oldest is not None:
        connection.execute("DELETE FROM holes WHERE after < ?", oldest)
        connection.execute("UPDATE holes SET lost = 1 WHERE after = ?", oldest)


def stored_holes(connection: sqlite3.Connection) -> list[Hole]:
    """Return the holes in ascending order."""
    rows = connection.execute("SELECT after, through, lost FROM holes ORDER BY after")
    return [Hole(after, through, bool(lost)) for after, through, lost in rows]
