"""The lease of a schema: one node at a time looks for rows of the outbox. It fences nothing, and saves queries."""

import contextlib
import secrets
import time

from unmissed.core.errors import LogUnavailable
from unmissed.logs.postgres.database import Database, Purpose
from unmissed.logs.postgres.schema import quoted

_LEASE_MS = 800
"""How long a holder that has stopped delays the messages of transactions. Everything else goes on."""

RENEW_SECONDS = 0.25


class Lease:
    """The part of one node in the lease of the schema at the address of ``database``, asked for on one connection."""

    def __init__(self, database: Database, *, purpose: Purpose) -> None:
        self._database = database
        self._purpose = purpose
        self._schema = quoted(database.address.schema)
        self._node = secrets.token_urlsafe(9)
        self._ask_at = 0.0
        self.is_held = False
        """Whether this node had the lease when it asked last."""

    @property
    def pause(self) -> float:
        """Seconds until it is time to ask for it again."""
        return max(0.0, self._ask_at - time.monotonic())

    async def ask(self) -> None:
        """Take or renew the lease if it is time. Raises LogUnavailable."""
        if self.pause:
            return
        async with self._database.connection(self._purpose) as connection:
            wait_ms = await connection.fetchval(f"SELECT {self._schema}.lead($1, $2)", self._node, _LEASE_MS)
        self.is_held = wait_ms == 0
        self._ask_at = time.monotonic() + (wait_ms / 1000 or RENEW_SECONDS)

    async def resign(self) -> None:
        """End the lease, so that another node takes it at once."""
        if self.is_held:
            with contextlib.suppress(LogUnavailable):
                async with self._database.connection(self._purpose) as connection:
                    await connection.execute(f"SELECT {self._schema}.resign($1)", self._node)
