"""Tells the hooks and the log output when connections begin and end."""

import logging
from collections.abc import Callable

from unmissed.application.hooks import Connected, Disconnected, Hooks
from unmissed.delivery.connection import Connection
from unmissed.security.redaction import redact

logger = logging.getLogger("unmissed")


class Lifecycle:
    """The events of all connections of a manager. ``clock`` returns monotonic seconds."""

    def __init__(self, hooks: Hooks, *, clock: Callable[[], float]) -> None:
        self._hooks = hooks
        self._clock = clock

    def opened(self, connection: Connection) -> None:
        """Call the hooks for a new connection."""
        if self._hooks.on_connect:
            self._hooks.connected(Connected(connection.id, connection.identity, connection.topics))

    def ended(self, connection: Connection, code: int, reason: str) -> None:
        """Log the end of a connection as one line, and call the hooks."""
        seconds, behind = self._clock() - connection.opened_at, connection.lag
        if logger.isEnabledFor(logging.INFO):
            fields = {
                "connection_id": connection.id,
                "user_id": connection.identity.user_id,
                "client": connection.client,
                "code": int(code),
                "reason": redact(reason),
                "seconds": round(seconds, 3),
                "position": connection.position,
                "behind": behind,
            }
            # Users control some of the values: repr() keeps them in one line.
            text = " ".join(f"{name}={value!r}" for name, value in fields.items())
            logger.info("connection ended: %s", text, extra=fields)
        if self._hooks.on_disconnect:
            event = Disconnected(connection.id, connection.identity, int(code), reason, seconds, behind)
            self._hooks.disconnected(event)
