"""The connections of one node to its database, and what their errors mean."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal

import asyncpg

from unmissed.core.errors import ConfigurationError, LogUnavailable, NotRunning
from unmissed.logs.postgres.database_address import DatabaseAddress

logger = logging.getLogger("unmissed")

OLDEST_VERSION = 13
CONNECT_SECONDS = 2.0
CALL_SECONDS = 3.0
"""The most that one use of a connection takes. After this time, the server counts as lost."""

_CLOSE_SECONDS = 0.5

Purpose = Literal["number", "read", "note", "look", "trim"]
"""What a connection is for. Each is used by one task at a time, and none waits for another."""

DatabaseConnection = Any
"""A connection of asyncpg: that it is a generic class is of no use here."""

_REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.exceptions.ClientConfigurationError,
)
_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.ReadOnlySQLTransactionError,
)
"""Errors of the server after which this connection leads nowhere, or to a server that only reads."""

_MISSING = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedFunctionError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedColumnError,
)


class SchemaMissing(LogUnavailable):
    """The schema was removed, or never created."""


class Database:
    """A connection for each purpose, opened when it is used.

    After the loss of one, all are replaced: the address may now lead to another server, as after a failover that leaves
    the old one running. The connection for reading also listens, and calls ``heard`` with the payload of each
    notification, and with an empty text when the connection ends.
    """

    def __init__(self, address: DatabaseAddress, *, heard: Callable[[str], None] | None = None) -> None:
        self.address = address
        self._heard = heard
        self._connections: dict[Purpose, DatabaseConnection] = {}
        self._locks: dict[Purpose, asyncio.Lock] = {}
        self._is_open = False
        self._has_connected = False
        self.losses = 0
        """The number of connections that were lost so far."""

    def open(self) -> None:
        """Allow connections. Locks belong to the event loop that uses them first."""
        self._locks = {}
        self._is_open = True

    async def close(self) -> None:
        """Disconnect."""
        self._is_open = False
        for connection in self._take_all():
            await _close(connection)

    @contextlib.asynccontextmanager
    async def connection(
        self, purpose: Purpose, *, seconds: float | None = CALL_SECONDS
    ) -> AsyncIterator[DatabaseConnection]:
        """Yield the connection for this purpose, alone, for a time.

        Raises LogUnavailable for every error of the server and the network, and SchemaMissing for a missing table or
        function. Raises ConfigurationError for a database that can never be used.
        """
        async with self._locks.setdefault(purpose, asyncio.Lock()):
            connection = self._connections.get(purpose)
            if connection is None:
                connection = await self._connected(purpose)
            with self._errors():
                async with asyncio.timeout(seconds):
                    yield connection

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (LogUnavailable, ConfigurationError):
            raise
        except _MISSING as error:
            raise SchemaMissing(self._reason(error)) from error
        except asyncpg.PostgresError as error:
            if isinstance(error, _LOST):
                self._lose_all()
            raise LogUnavailable(self._reason(error)) from error
        except TimeoutError:
            self._lose_all()
            raise LogUnavailable(f"{self.address.label} does not answer in time") from None
        except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            # Also errors of the driver itself: it may raise them when the server ends a connection.
            self._lose_all()
            raise LogUnavailable(self._reason(error)) from error

    async def _connected(self, purpose: Purpose) -> DatabaseConnection:
        """Return a new connection. Once one was found, the database can be used, and a refusal is temporary."""
        if not self._is_open:
            raise NotRunning
        try:
            connection = await self._connect()
        except ConfigurationError as error:
            if self._has_connected:
                raise LogUnavailable(str(error)) from None
            raise
        self._has_connected = True
        self._connections[purpose] = connection
        if purpose == "read" and self.address.channel:
            with self._errors():
                async with asyncio.timeout(CALL_SECONDS):
                    await self._listen(connection)
        return connection

    async def _connect(self) -> DatabaseConnection:
        """Return a new connection to a server that a log can use."""
        options: dict[str, Any] = {}
        if self.address.notify:
            options["server_settings"] = {
                "application_name": "unmissed",
                "default_transaction_isolation": "read committed",
                # Ours is in the driver. That of the role may be for the requests of an application.
                "statement_timeout": "0",
            }
        else:
            options["statement_cache_size"] = 0
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await asyncpg.connect(self.address.dsn, **options)
        except _REFUSED as error:
            raise ConfigurationError(f"{self.address.setting}: {self._reason(error)}") from None
        except asyncpg.ProtocolViolationError as error:
            # PgBouncer does not know the parameters of a session.
            raise ConfigurationError(
                f"{self.address.setting}: {self._reason(error)}: behind PgBouncer, add ?notify=false to the URL"
            ) from None
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            raise LogUnavailable(self._reason(error)) from error
        except TimeoutError:
            raise LogUnavailable(f"{self.address.label} cannot be reached in time") from None
        version = connection.get_server_version().major
        if version < OLDEST_VERSION:
            await _close(connection)
            raise ConfigurationError(f"PostgreSQL {version} is too old: {OLDEST_VERSION} or newer is needed")
        if (encoding := connection.get_settings().server_encoding) != "UTF8":
            await _close(connection)
            raise ConfigurationError(
                f"{self.address.setting}: the database has the encoding {encoding}: use one in UTF8"
            )
        return connection

    def _reason(self, error: BaseException) -> str:
        text = str(error) or type(error).__name__
        return f"{self.address.label}: {text.splitlines()[0]}"

    def _lose_all(self) -> None:
        self.losses += 1
        for connection in self._take_all():
            connection.terminate()

    def _take_all(self) -> list[DatabaseConnection]:
        connections = [*self._connections.values()]
        self._connections.clear()
        return connections

    async def _listen(self, connection: DatabaseConnection) -> None:
        heard = self._heard
        if heard is not None:
            await connection.add_listener(self.address.channel, lambda *event: heard(event[-1]))
            connection.add_termination_listener(lambda _: heard(""))


async def _close(connection: DatabaseConnection) -> None:
    try:
        await connection.close(timeout=_CLOSE_SECONDS)
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        connection.terminate()
