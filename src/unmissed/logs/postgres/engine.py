"""PostgresEngine: publishers insert rows, one node at a time gives them numbers, and every node reads the table."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from typing import Any

from unmissed.core.errors import LogUnavailable, UnmissedError
from unmissed.core.retention import Retention
from unmissed.logs.codec import decode_draft, decode_ms
from unmissed.logs.engine import Archive, Seen, State
from unmissed.logs.feed import Record
from unmissed.logs.postgres.database import Database, SchemaMissing
from unmissed.logs.postgres.database_address import DatabaseAddress
from unmissed.logs.postgres.leadership import Leadership
from unmissed.logs.postgres.postgres_archive import read_archive
from unmissed.logs.postgres.schema import quoted
from unmissed.logs.postgres.sequencer import NOTHING_SEEN, SETTLE_MS, Sequencer
from unmissed.logs.postgres.upkeep import Upkeep
from unmissed.logs.writer import Stored, Write
from unmissed.tasks import end

logger = logging.getLogger("unmissed")

_READ_COUNT = 200
_IDLE_SECONDS = 1.0
_PACE_SECONDS = 1.0
"""How long the next pass waits at most for this node to read what the last one has numbered."""

_SETTLING_SECONDS = 0.25
_ARCHIVE_SECONDS = 60.0
"""The most that reading the archive takes: 100,000 messages take less than two."""

_NOTE = "note"
_NOTES_POLLS = 5
"""Without notifications, notes are looked for less often than messages."""


class PostgresEngine:
    """The schema at this address. ``first_number`` replaces the time on the server's clock as the first number.

    ``clock`` returns monotonic seconds. Nothing is stored for ``settle_ms`` after a restart or a failover.
    """

    def __init__(
        self,
        address: DatabaseAddress,
        *,
        retention: Retention,
        first_number: int | None,
        max_message_bytes: int,
        clock: Callable[[], float] = time.monotonic,
        settle_ms: int = SETTLE_MS,
    ) -> None:
        self.address = address
        self._max_message_bytes = max_message_bytes
        self._retention = retention
        self._database = Database(address, heard=self._heard)
        self._sequencer = Sequencer(
            self._database, retention=retention, first_number=first_number, clock=clock, settle_ms=settle_ms
        )
        self._seen: Seen | None = None
        """How far this node has read; None before it has asked for the state."""
        self._leading: asyncio.Task[None] | None = None
        self._read_through = 0
        self._unreadable = 0
        """The number of a message that another program has replaced, or 0: it is lost, and reading skips it."""

    async def connect(self) -> None:
        """Connect, and create the schema. Raises ConfigurationError if the database can never be used."""
        if self._leading is None:
            self._database.open()
            # Events belong to the event loop that uses them first.
            self._stored, self._noted = asyncio.Event(), asyncio.Event()
            self._read_on = asyncio.Condition()
        await self._sequencer.create(max_message_bytes=self._max_message_bytes)
        if self._leading is None:
            upkeep = Upkeep(self.address.schema, self._retention)
            self._leadership = Leadership(self._database, self._sequencer, upkeep, number=self._number)
            self._leading = asyncio.create_task(self._leadership.run())

    async def close(self) -> None:
        """Disconnect, and let another node lead."""
        try:
            if self._leading is not None:
                leading, self._leading = self._leading, None
                await end(leading)
                await self._leadership.resign()
        finally:
            await self._database.close()
            self._seen = None

    async def state(self, seen: Seen | None) -> State:
        """Return what the log holds. It begins an epoch if it has none, or if messages that were seen are missing.

        A node that starts waits until it is known whether this copy of the data is whole.
        """
        self._seen = seen or NOTHING_SEEN
        try:
            answer = await self._sequencer.look(self._seen)
        except SchemaMissing:
            await self._sequencer.create(max_message_bytes=self._max_message_bytes)
            answer = await self._sequencer.look(self._seen)
        while seen is None and answer.wait_ms:
            await asyncio.sleep(answer.wait_ms / 1000)
            answer = await self._sequencer.number([], NOTHING_SEEN)
        state = answer.state
        # Without this, the node would stop before a message that it cannot read for ever.
        return replace(state, oldest=state.oldest + 1) if state.oldest == self._unreadable else state

    async def read(self, after: int) -> AsyncGenerator[Sequence[Record]]:
        """Yield the messages after a number, and new ones for as long as the database can be reached."""
        query = (
            f"SELECT number, unix_ms, log_ms, draft, after FROM {quoted(self.address.schema)}.messages "
            f"WHERE number > $1 ORDER BY number LIMIT {_READ_COUNT}"
        )
        asked_at = time.monotonic()
        yield []
        while True:
            # Before the query: what is stored after it sets the event again.
            self._stored.clear()
            async with self._database.connection("read") as connection:
                rows = await connection.fetch(query, after)
            if rows:
                asked_at = time.monotonic()
                yield self._records(rows)
                after = rows[-1]["number"]
                await self._has_read(after)
            elif time.monotonic() >= asked_at + _IDLE_SECONDS:
                asked_at = time.monotonic()
                yield []
            else:
                await self._wait(self._stored, polls=1)

    async def archive(self, *, before: int) -> Archive:
        """Return what rules and keys retain below a number."""
        async with self._database.connection("note", seconds=_ARCHIVE_SECONDS) as connection:
            return await read_archive(connection, self.address.schema, self._retention, before=before)

    async def write(self, writes: Sequence[Write], seen: Seen) -> Sequence[Stored | UnmissedError]:
        """Store the first of these publishes, after what was committed before."""
        self._seen = seen
        some = _with_different_keys(writes)
        while True:
            answer = await self._sequencer.number(some, seen)
            if answer.wait_ms:
                raise LogUnavailable(
                    f"{self.address.label} was restarted or replaced: its nodes report what they have seen"
                )
            self._stored.set()
            if not answer.rows_left:
                return answer.results
            await self._until_read(answer.state.latest)

    async def send(self, note: bytes) -> None:
        """Send a note to every node."""
        async with self._database.connection("note") as connection:
            await connection.execute(f"SELECT {quoted(self.address.schema)}.send($1, $2)", note, self.address.channel)

    async def receive(self) -> AsyncGenerator[bytes]:
        """Yield an empty note when listening, then each note. Raises LogUnavailable when connections are renewed."""
        schema = quoted(self.address.schema)
        losses = self._database.losses
        async with self._database.connection("read"):
            pass  # It listens from now on.
        async with self._database.connection("note") as connection:
            after = await connection.fetchval(f"SELECT coalesce(max(id), 0) FROM {schema}.notes")
        yield b""
        while losses == self._database.losses:
            self._noted.clear()
            async with self._database.connection("note") as connection:
                rows = await connection.fetch(
                    f"SELECT id, note FROM {schema}.notes WHERE id > $1 OR $1 > (SELECT max(id) FROM {schema}.notes) "
                    "ORDER BY id",
                    after,
                )
            for row in rows:
                if row["id"] <= after:
                    # The table was emptied by a crash of the server, and ids begin again.
                    raise LogUnavailable(f"{self.address.label}: notes may be lost")
                after = row["id"]
                yield row["note"]
            if not rows:
                await self._wait(self._noted, polls=_NOTES_POLLS)
        raise LogUnavailable(f"{self.address.label}: the connections are renewed")

    def wake(self) -> None:
        """Give numbers to what a transaction of this process has published, which has committed."""
        if self._leading is not None:
            self._leadership.wake()

    def _records(self, rows: Sequence[Any]) -> list[Record]:
        """Return the messages in these rows, up to the first that is no message: the caller then asks for the state."""
        records: list[Record] = []
        for row in rows:
            number = row["number"]
            try:
                times = decode_ms(row["unix_ms"]), decode_ms(row["log_ms"])
                records.append(Record(number, *times, decode_draft(row["draft"]), row["after"]))
            except ValueError:
                if number != self._unreadable:
                    self._unreadable = number
                    logger.warning("message %d in %s cannot be read: skipped", number, self.address.label)
                break
        return records

    async def _number(self) -> None:
        """Give numbers to all that transactions have published. Nothing is trimmed before this node has read it."""
        seen = self._seen
        while seen is not None:
            answer = await self._sequencer.number([], seen)
            self._stored.set()
            if answer.wait_ms:
                # As after a restart: until then, it would be asked for again and again.
                await asyncio.sleep(min(answer.wait_ms / 1000, _SETTLING_SECONDS))
            if not answer.rows_left:
                return
            await self._until_read(answer.state.latest)
            seen = self._seen

    async def _until_read(self, number: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PACE_SECONDS), self._read_on:
                await self._read_on.wait_for(lambda: self._read_through >= number)

    async def _has_read(self, number: int) -> None:
        async with self._read_on:
            self._read_through = number
            self._read_on.notify_all()

    async def _wait(self, event: asyncio.Event, *, polls: int) -> None:
        """Wait for a notification, or as long as the pause between polls."""
        pause = _IDLE_SECONDS if self.address.notify else polls * self.address.poll_seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await event.wait()

    def _heard(self, payload: str) -> None:
        """Look for what was announced. An empty payload is for messages, or for the end of the connection."""
        (self._noted if payload == _NOTE else self._stored).set()


def _with_different_keys(writes: Sequence[Write]) -> Sequence[Write]:
    """Return the first publishes, up to one whose key an earlier one has: that one repeats what is stored by then."""
    keys: set[str] = set()
    for index, write in enumerate(writes):
        if write.key is not None:
            if write.key in keys:
                return writes[:index]
            keys.add(write.key)
    return writes
