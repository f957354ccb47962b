"""TransactionOutbox: where the transactions of an application publish."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unmissed.core.errors import ConfigurationError
from unmissed.core.messages import Draft, TransactionOptions
from unmissed.logs.postgres.database_address import SCHEMES, DatabaseAddress
from unmissed.settings import Settings
from unmissed.transactions.statements import Statement, position_statement, publish_statement
from unmissed.transactions.targets import Wake, execute_in, execute_in_sync

if TYPE_CHECKING:
    from unmissed.transactions.relay import Relay

OUTBOX_SCHEMA = "unmissed_outbox"
"""The schema of an outbox whose URL has no ``name``."""


class TransactionOutbox:
    """Publishes in transactions: see ``ConnectionManager.publish_in``. It may be used in any thread.

    The schema is that of the log, or, with ``UNMISSED_OUTBOX_URL``, another one. Raises ConfigurationError for both.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._log = DatabaseAddress.of(settings.log_url) if is_database(settings.log_url) else None
        self._relayed = outbox_address(settings) if settings.outbox_url else None
        if self._log is not None and self._relayed is not None:
            raise ConfigurationError("UNMISSED_OUTBOX_URL: the log in PostgreSQL has an outbox: leave this one out")
        self._wake: Wake | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def connect(self, wake: Wake) -> None:
        """Call ``wake`` on the running event loop after commits, from now on."""
        self._loop, self._wake = asyncio.get_running_loop(), wake

    def disconnect(self) -> None:
        """Call nothing after commits any more: the node that gives numbers is another one, or starts later."""
        self._loop = self._wake = None

    def relay(self, publish: Callable[[Sequence[Draft], str], Awaitable[object]]) -> "Relay | None":
        """Return the relay of an outbox that is not in the log itself."""
        if self._relayed is None:
            return None
        try:
            from unmissed.transactions.relay import Relay  # noqa: PLC0415  # asyncpg is optional
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"UNMISSED_OUTBOX_URL needs {error.name}: pip install 'unmissed[postgres]'"
            ) from None
        return Relay(
            self._relayed,
            publish=publish,
            max_messages=self._settings.max_messages,
            max_message_bytes=self._settings.max_message_bytes,
        )

    async def publish(self, target: Any, message: Mapping[str, Any], options: TransactionOptions) -> None:
        """Publish in the transaction of an asynchronous target."""
        await execute_in(target, self._publish_statement(message, options), self._committed)

    def publish_sync(self, target: Any, message: Mapping[str, Any], options: TransactionOptions) -> None:
        """Publish in the transaction of a synchronous target."""
        execute_in_sync(target, self._publish_statement(message, options), self._committed)

    async def position(self, target: Any) -> int:
        """Return the position of the log in the snapshot of an asynchronous target."""
        return int(await execute_in(target, position_statement(self._log_schema()), None))

    def position_sync(self, target: Any) -> int:
        """Return the position of the log in the snapshot of a synchronous target."""
        return int(execute_in_sync(target, position_statement(self._log_schema()), None))

    def _committed(self) -> None:
        """Let this node look at once for what was published."""
        loop, wake = self._loop, self._wake
        if loop is not None and wake is not None and not loop.is_closed():
            loop.call_soon_threadsafe(wake)

    def _publish_statement(self, message: Mapping[str, Any], options: TransactionOptions) -> Statement:
        schema = self._log_schema() if self._relayed is None else self._relayed.schema
        return publish_statement(schema, message, options, max_bytes=self._settings.max_message_bytes)

    def _log_schema(self) -> str:
        if self._log is None:
            raise ConfigurationError(
                "publish_in needs a log in PostgreSQL (UNMISSED_LOG_URL=postgresql://...), or an outbox "
                "(UNMISSED_OUTBOX_URL=postgresql://...); position_in needs the log"
            )
        return self._log.schema


def is_database(url: str) -> bool:
    """Return whether the log at this URL is in PostgreSQL."""
    return url.partition(":")[0] in SCHEMES


def outbox_address(settings: Settings) -> DatabaseAddress:
    """Return where the outbox is. Raises ConfigurationError."""
    return DatabaseAddress.of(settings.outbox_url, setting="UNMISSED_OUTBOX_URL", schema=OUTBOX_SCHEMA)
