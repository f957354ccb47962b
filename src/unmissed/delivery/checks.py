"""The periodic checks: about once a second for each connection, in several parts."""

import asyncio
import logging
import math
from collections.abc import Callable, Iterable

from unmissed.delivery.connection import SHUTTING_DOWN, Connection, for_each, reconnect_all
from unmissed.delivery.fanout import Limits
from unmissed.delivery.registry import Registry

logger = logging.getLogger("unmissed")

_SECONDS = 1.0
_PARTS = 5


class Checks:
    """Expires messages, sends heartbeats and pings, and ends expired, stalled and dead connections.

    ``clock`` returns monotonic seconds, and ``wall_clock`` the Unix seconds at which tokens must not have expired.
    When ``server_stops`` returns True, connections that it would wait for are drained.
    """

    def __init__(
        self,
        connections: Registry,
        *,
        limits: Limits,
        expire: Callable[[], None],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        server_stops: Callable[[], bool],
    ) -> None:
        self._connections = connections
        self._limits = limits
        self._server_stops = server_stops
        self._expire = expire
        self._clock = clock
        self._wall_clock = wall_clock
        self.problem: str | None = None
        """Why a check failed in the last round, or None."""
        self._interval = min(_SECONDS, limits.heartbeat_seconds / 4, limits.stall_seconds / 4)

    def run_once(self) -> None:
        """Check all connections now."""
        self._expire()
        self._check_server()
        self._check(self._connections)

    async def run(self) -> None:
        """Check each connection about once a second, or more often if heartbeats or stalls are shorter.

        A check that raises is reported, and repeated in the next round. It prevents no other check.
        """
        while True:
            problem = None
            # A copy, since connections begin and end during the pauses.
            connections = tuple(self._connections)
            for part in range(_PARTS):
                await asyncio.sleep(self._interval / _PARTS)
                # Each time, since the log expires a bounded number of messages at once.
                problem = self._problem_of(self._expire) or problem
                problem = self._problem_of(self._check_server) or problem
                problem = self._problem_of(self._check, connections[part::_PARTS]) or problem
            if self.problem is not None and problem is None:
                logger.warning("the periodic checks work again")
            self.problem = problem

    def _problem_of(self, check: Callable[..., None], *arguments: object) -> str | None:
        """Make a check, and return why it failed, or None. A row of failures is logged once."""
        try:
            check(*arguments)
        except Exception as error:
            if self.problem is None:
                logger.exception("the periodic checks failed, and are repeated")
            self.problem = f"the periodic checks fail: {error!r}"
            return self.problem
        return None

    def _check_server(self) -> None:
        """Drain the connections whose duration is bounded, and that are not closing yet, when the server stops."""
        if self._server_stops():
            bounded = [each for each in self._connections if each.ends_at < math.inf and not each.closing]
            reconnect_all(bounded, SHUTTING_DOWN, seconds=self._limits.drain_seconds)

    def _check(self, connections: Iterable[Connection]) -> None:
        """Send the heartbeats that are due, and end connections that are stalled, dead or expired."""
        now, unix_time, limits = self._clock(), self._wall_clock(), self._limits

        for_each(
            connections,
            lambda connection: connection.check(
                now,
                unix_time=unix_time,
                heartbeat_seconds=limits.heartbeat_seconds,
                stall_seconds=limits.stall_seconds,
            ),
        )
