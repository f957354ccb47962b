"""The clock of a log in a file: it advances while no process uses the file, and over a restart of the machine."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_LINUX = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str | None:
    """Return an identifier of this boot of the machine, or None on systems that have none.

    A power loss ends a boot, and the end of a process does not.
    """
    if sys.platform == "darwin":
        found = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=False
        )
        return found.stdout.strip() or None
    return _LINUX.read_text().strip() if _LINUX.exists() else None


class FileClock:
    """The clock of a log, in milliseconds whose differences are ages. It continues from the row in ``clocks``.

    ``boot`` identifies this boot of the machine. ``clock`` returns monotonic seconds, and ``wall_clock`` Unix seconds.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        boot: str | None,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._wall_clock = wall_clock
        self._boot = boot
        self._ahead_ms = self._ms_after_pause() - clock() * 1000
        """The milliseconds of this clock minus those of ``clock``."""

    def now_ms(self) -> int:
        """Return the present time."""
        return int(self._clock() * 1000 + self._ahead_ms)

    def note(self) -> None:
        """Store the times of all clocks, from which the next user of the file continues."""
        monotonic, wall = self._clock(), self._wall_clock()
        self._connection.execute(
            "INSERT OR REPLACE INTO clocks VALUES (1, ?, ?, ?, ?)",
            (int(monotonic * 1000 + self._ahead_ms), int(wall * 1000), int(monotonic * 1000), self._boot),
        )

    def _ms_after_pause(self) -> int:
        """Return the time after a pause in which no process used the file.

        The monotonic clock goes on while the machine runs. Over a restart, only the wall clock shows how long the pause
        was: if it was set back in between, no time has passed, and more is retained than necessary.
        """
        found = self._connection.execute(
            "SELECT CAST(log_ms AS INTEGER), CAST(wall_ms AS INTEGER), CAST(monotonic_ms AS INTEGER), boot FROM clocks"
        ).fetchone()
        if found is None:
            return 0
        log_ms, wall_ms, monotonic_ms, boot = found
        passed = self._clock() * 1000 - monotonic_ms
        # Systems without a boot id: a monotonic clock that shows less than before belongs to another boot.
        if boot is None or boot != self._boot or passed < 0:
            passed = self._wall_clock() * 1000 - wall_ms
        return int(log_ms + max(0.0, passed))
