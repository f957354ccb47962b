"""Writers in a database: transactions of every kind, which publish, and are committed, rolled back or cut off."""

import asyncio
import json
import math
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import count
from typing import Any

from unmissed.lab.verify.facts import Addressees, Recorder, Written
from unmissed.lab.verify.observing import content_of
from unmissed.logs.postgres.database_address import DatabaseAddress
from unmissed.logs.postgres.schema import quoted

_CALL_SECONDS = 5.0
_RETRY_SECONDS = 0.2
_OPEN_SECONDS = 0.05
_FLIGHT_SECONDS = 0.003
"""About how long a COMMIT takes: its connection is cut before, during or after it."""

_MOST_MESSAGES, _MANY_MESSAGES = 3, 1_000
_MOST_PADDING = 300
_EVERYONE_SHARE = 0.6
_LARGE_SHARE, _ROLLBACK_SHARE, _CUT_SHARE = 0.01, 0.2, 0.1
_LEAST_PAUSE, _MOST_PAUSE = 0.5, 3.0

_CREATE = "CREATE TABLE IF NOT EXISTS unmissed_verify (id text PRIMARY KEY, written boolean NOT NULL)"
_WRITE = "INSERT INTO unmissed_verify VALUES ($1, true)"
# It waits for transactions that have written one of these rows, and others cannot write it afterwards.
_FORBID = "INSERT INTO unmissed_verify SELECT unnest($1::text[]), false ON CONFLICT DO NOTHING"
_COMMITTED = "SELECT id FROM unmissed_verify WHERE written AND id = ANY ($1)"
_PREPARED = "SELECT gid FROM pg_prepared_xacts WHERE starts_with(gid, $1)"
_END_BACKEND = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1"
)

DriverConnection = Any
"""A connection of asyncpg."""


class TransactionKind(StrEnum):
    """How a transaction writes and ends."""

    PLAIN = "plain"
    REPEATABLE_READ = "repeatable read"
    SERIALIZABLE = "serializable"
    SAVEPOINT = "savepoint"
    """A part of it is rolled back."""
    TWO_PHASE = "two-phase"
    ASYNCHRONOUS = "asynchronous"
    """Its COMMIT is answered before it is on the disk."""
    LARGE = "large"
    """It publishes 1,000 messages at once."""


_USUAL = [kind for kind in TransactionKind if kind is not TransactionKind.LARGE]
_BEGIN = {
    TransactionKind.REPEATABLE_READ: "BEGIN ISOLATION LEVEL REPEATABLE READ",
    TransactionKind.SERIALIZABLE: "BEGIN ISOLATION LEVEL SERIALIZABLE",
    TransactionKind.ASYNCHRONOUS: "BEGIN; SET LOCAL synchronous_commit = off",
}


@dataclass(slots=True)
class Transaction:
    """A transaction, with what it has published so far."""

    id: str
    kind: TransactionKind
    messages: list[Written] = field(default_factory=list)
    committed: bool | None = False
    """None if that is not known: it was asked to commit, and has not answered."""


class Transactions:
    """What became of the transactions of a run, in the database at a URL of a log."""

    def __init__(self, url: str, *, recorder: Recorder) -> None:
        address = DatabaseAddress.of(url)
        schema = quoted(address.schema)
        self.publish = f"SELECT {schema}.publish('verify', each, $2) FROM unnest($1::jsonb[]) AS each"  # noqa: S608  # quoted
        """Publishes messages with these data, for these topics."""
        self._dsn = address.dsn
        self._recorder = recorder
        self._unknown: list[Transaction] = []

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[DriverConnection]:
        """Yield a connection, which is cut at the end. Raises ConnectionError if it is lost, and for a rollback."""
        import asyncpg  # noqa: PLC0415  # the driver is an extra, which other logs do not need

        lost = (
            *(OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresConnectionError),
            *(asyncpg.exceptions.OperatorInterventionError, asyncpg.exceptions.TransactionRollbackError),
            *(asyncpg.exceptions.InsufficientResourcesError, asyncpg.LockNotAvailableError),
            # Another connection has ended, or is ending, a prepared transaction.
            *(asyncpg.UndefinedObjectError, asyncpg.ObjectNotInPrerequisiteStateError),
        )
        try:
            # Without prepared statements, which would be on another connection behind PgBouncer.
            connection = await asyncpg.connect(
                self._dsn, statement_cache_size=0, timeout=_CALL_SECONDS, command_timeout=_CALL_SECONDS
            )
            try:
                yield connection
            finally:
                connection.terminate()
        except lost as error:
            raise ConnectionError(str(error)) from error

    def take(self, transaction: Transaction) -> None:
        """Record a transaction that has ended."""
        if transaction.committed is None:
            self._unknown.append(transaction)
            return
        now, committed = self._recorder.clock(), transaction.committed
        for message in transaction.messages:
            self._recorder.add(replace(message, at=now, committed=message.committed and committed))
        self._recorder.counts["transactions"] += 1
        self._recorder.counts["committed"] += committed

    async def create_table(self) -> None:
        """Create the table in which each transaction writes a row."""
        async with self.connected() as connection:
            await connection.execute(_CREATE)

    async def settle(self) -> None:
        """Find out how the transactions ended of which this is not known. No writer may run any more."""
        while True:
            with suppress(ConnectionError):
                committed = await self._committed([each.id for each in self._unknown])
                break
            await asyncio.sleep(_RETRY_SECONDS)
        for each in self._unknown:
            each.committed = each.id in committed
            self.take(each)

    async def _committed(self, ids: Sequence[str]) -> set[str]:
        """Return which of these transactions are committed, after the end of all of them."""
        async with self.connected() as connection:
            await _finish_prepared(connection, "", commit=True)
            async with connection.transaction():
                # Not for ever: a transaction may have been prepared just now.
                await connection.execute("SET LOCAL lock_timeout = '1s'")
                await connection.execute(_FORBID, ids)
            return {row["id"] for row in await connection.fetch(_COMMITTED, ids)}

    async def end_backends(self, chance: random.Random) -> None:
        """End the connection of a writer or of a node at the server, again and again, until cancelled."""
        while True:
            await asyncio.sleep(chance.uniform(_LEAST_PAUSE, _MOST_PAUSE))
            with suppress(ConnectionError):
                async with self.connected() as connection:
                    await connection.execute(_END_BACKEND)
                self._recorder.note("end of a backend")


async def _finish_prepared(connection: DriverConnection, prefix: str, *, commit: bool) -> None:
    """Commit the prepared transactions whose names begin with ``prefix``, or roll them back."""
    for row in await connection.fetch(_PREPARED, prefix):
        await connection.execute(f"{'COMMIT' if commit else 'ROLLBACK'} PREPARED '{row['gid']}'")


class DatabaseWriter:
    """One writer, which begins ``rate`` transactions a second, one after the other, and often loses its connection."""

    def __init__(
        self,
        name: str,
        transactions: Transactions,
        *,
        topics: Sequence[str],
        rate: float,
        chance: random.Random,
        recorder: Recorder,
    ) -> None:
        self._name = name
        self._transactions = transactions
        self._topics = topics
        self._rate = rate
        self._chance = chance
        self._recorder = recorder
        self._ids = count(1)
        self._stopping = False

    async def run(self) -> None:
        """Write until stopped."""
        while not self._stopping:
            with suppress(ConnectionError):
                async with self._transactions.connected() as connection:
                    await _finish_prepared(connection, f"{self._name}-", commit=self._chance.random() < 0.5)
                    while not self._stopping:
                        await asyncio.sleep(self._chance.expovariate(self._rate))
                        await self._transact(connection)
            await asyncio.sleep(self._chance.uniform(0, _RETRY_SECONDS))

    def stop(self) -> None:
        """Let ``run`` end with its transaction."""
        self._stopping = True

    async def _transact(self, connection: DriverConnection) -> None:
        kind = TransactionKind.LARGE if self._chance.random() < _LARGE_SHARE else self._chance.choice(_USUAL)
        transaction = Transaction(f"{self._name}-{next(self._ids)}", kind)
        try:
            await self._write(connection, transaction)
            await self._end(connection, transaction)
        finally:
            # Also one whose connection is lost: what was not asked to commit never does.
            self._transactions.take(transaction)

    async def _write(self, connection: DriverConnection, transaction: Transaction) -> None:
        """Write a row, publish, and stay open for a while."""
        await connection.execute(_BEGIN.get(transaction.kind, "BEGIN"))
        await connection.execute(_WRITE, transaction.id)
        if transaction.kind is TransactionKind.LARGE:
            await self._publish(connection, transaction, number=_MANY_MESSAGES)
        if transaction.kind is TransactionKind.SAVEPOINT:
            await connection.execute("SAVEPOINT part")
            await self._publish(connection, transaction, number=1, kept=False)
            await connection.execute("ROLLBACK TO SAVEPOINT part")
        for _ in range(self._chance.randint(1, _MOST_MESSAGES)):
            await self._publish(connection, transaction, number=1)
            await asyncio.sleep(self._chance.expovariate(1 / _OPEN_SECONDS))

    async def _publish(
        self, connection: DriverConnection, transaction: Transaction, *, number: int, kept: bool = True
    ) -> None:
        is_for_everyone = self._chance.random() < _EVERYONE_SHARE
        topics = [] if is_for_everyone else [self._chance.choice(self._topics)]
        now, bodies = self._recorder.clock(), list[str]()
        for place in range(len(transaction.messages), len(transaction.messages) + number):
            data = {"id": f"{transaction.id}-{place}", "pad": "x" * self._chance.randrange(_MOST_PADDING)}
            content = content_of({"type": "verify", "data": data, **({"topics": topics} if topics else {})})
            addressees = Addressees(topics=frozenset(topics))
            bodies.append(json.dumps(data))
            transaction.messages.append(
                Written(math.inf, now, data["id"], content, transaction.id, place, kept, addressees)
            )
        await connection.execute(self._transactions.publish, bodies, topics or None)

    async def _end(self, connection: DriverConnection, transaction: Transaction) -> None:
        """Commit, roll back, or cut the connection."""
        fate = self._chance.random()
        if fate < _ROLLBACK_SHARE:
            await connection.execute("ROLLBACK")
        elif fate < _ROLLBACK_SHARE + _CUT_SHARE:
            raise ConnectionAbortedError("cut off before COMMIT")
        elif transaction.kind is TransactionKind.TWO_PHASE:
            transaction.committed = None
            await self._execute(connection, f"PREPARE TRANSACTION '{transaction.id}'")
            await asyncio.sleep(self._chance.expovariate(1 / _OPEN_SECONDS))
            await self._execute(connection, f"COMMIT PREPARED '{transaction.id}'")
            transaction.committed = True
        else:
            transaction.committed = None
            status = await self._execute(connection, "COMMIT")
            # What is not on the disk may still be lost with the server.
            if transaction.kind is not TransactionKind.ASYNCHRONOUS:
                transaction.committed = status == "COMMIT"

    async def _execute(self, connection: DriverConnection, statement: str) -> str:
        """Return the answer to a statement. Some connections are cut while it is executed."""
        executing = asyncio.ensure_future(connection.execute(statement))
        if self._chance.random() < _CUT_SHARE:
            await asyncio.sleep(self._chance.uniform(0, _FLIGHT_SECONDS))
            connection.terminate()
        status: str = await executing
        return status
