"""JetStreamEngine: a shared log in a stream of a NATS server or cluster."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from unmissed.core.errors import ConfigurationError, InvalidMessage, LogUnavailable
from unmissed.core.retention import Retention
from unmissed.logs.engine import Archive, Seen, State
from unmissed.logs.feed import Record
from unmissed.logs.jetstream.address import StreamAddress
from unmissed.logs.jetstream.consumer import StreamConsumer
from unmissed.logs.jetstream.keeper import SETTLE_SECONDS, StreamKeeper, stored_message
from unmissed.logs.jetstream.nats_connection import NatsConnection
from unmissed.logs.jetstream.packets import (
    NO_RESPONDERS,
    Packet,
    api_request,
    error_code,
    error_text,
    stored_body,
)
from unmissed.logs.jetstream.publisher import StreamPublisher
from unmissed.logs.jetstream.stream import StreamInfo, unix_ms_of
from unmissed.logs.jetstream.stream_archives import StreamArchives
from unmissed.logs.writer import Stored, Write

if TYPE_CHECKING:
    from nats.aio.msg import Msg

_VERSION = (2, 12)
"""The first version with atomic batches."""

_NOT_ENABLED = (NO_RESPONDERS, 10039, 10076)

MAX_WAITING_NOTE_BYTES = 67_108_864
"""The most bytes of notes that wait to be handled. Beyond that, the node subscribes again and asks what it missed."""

_NOTE_OVERHEAD = 200
"""Bytes that a note takes in memory besides its content."""

_CLOSE_SECONDS = 1.0
"""The most that closing waits for the server before it disconnects."""


class JetStreamEngine:
    """Stores messages in the stream at ``address``. ``wall_clock`` returns Unix seconds, ``clock`` monotonic ones.

    ``first_number`` replaces the time in microseconds as the first number of the first epoch.
    """

    def __init__(
        self,
        address: StreamAddress,
        *,
        retention: Retention,
        first_number: int | None = None,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        self._address = address
        self._notes = f"{address.name}-nodes"
        self._retention = retention
        self._keep = partial(
            StreamKeeper,
            address,
            retention=retention,
            first_number=first_number,
            wall_clock=wall_clock,
            settle_seconds=settle_seconds,
        )
        self._keeper = self._keep()
        self._clock = clock
        self._lock = asyncio.Lock()
        self._connection: NatsConnection | None = None
        self._stream: StreamInfo | None = None
        """The stream as this connection has found it, with every message that this node had seen."""
        self._server_ahead_ms = 0.0
        """The server's Unix milliseconds minus those of ``clock``, which do not jump when the wall clock is set."""
        self._log_ahead_ms: float | None = None
        """The milliseconds of the log's clock minus those of ``clock``, or None before the first look at the stream."""

    async def connect(self) -> None:
        """Connect, and create the stream if it does not exist."""
        async with self._lock:
            try:
                await self._keeper.usable(await self._connected(), None)
            except ConfigurationError:
                await self.close()
                raise

    async def close(self) -> None:
        """Disconnect. The last node records before that it has closed."""
        # A lock belongs to the event loop that uses it first, and the engine may be used again on another one.
        self._lock = asyncio.Lock()
        keeper, self._keeper = self._keeper, self._keep()
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            if self._stream is not None and connection.lost is None:
                with contextlib.suppress(LogUnavailable, ConfigurationError, TimeoutError):
                    async with asyncio.timeout(_CLOSE_SECONDS):
                        await keeper.close(connection)
        finally:
            await connection.close()

    async def state(self, seen: Seen | None) -> State:
        """Return what the stream holds. See ``Engine.state``."""
        async with self._lock:
            return await self._look(seen, to_read=True)

    async def read(self, after: int) -> AsyncGenerator[Sequence[Record]]:
        """Yield the messages after a number. See ``Engine.read``."""
        connection, stream = self._connection, self._stream
        if connection is None or stream is None:
            raise LogUnavailable("the state of the stream is not known")
        reading = StreamConsumer(connection, stream=stream)
        messages = reading.after(after)
        try:
            async for records in messages:
                if records:
                    self._set_log_clock(records[-1].log_ms)
                    self._keeper.has_read(Seen(stream.epoch, records[-1].number, records[-1].unix_ms))
                yield records
        finally:
            await messages.aclose()

    async def send(self, note: bytes) -> None:
        """Send a note to every node. See ``Channel.send``."""
        connection = self._connection
        if connection is None or connection.lost is not None:
            raise LogUnavailable(f"{self._address.label} is not connected")
        if len(note) > connection.max_payload:
            raise LogUnavailable(f"a note of {len(note)} bytes exceeds max_payload of NATS, {connection.max_payload}")
        await connection.send(Packet(self._notes, note, answered=False))

    async def receive(self) -> AsyncGenerator[bytes]:
        """Yield the notes of every node. See ``Channel.receive``."""
        async with self._lock:
            connection = await self._connected_again()
        notes: asyncio.Queue[bytes | None] = asyncio.Queue()
        waiting = 0

        async def received(message: "Msg") -> None:
            nonlocal waiting
            waiting += len(message.data) + _NOTE_OVERHEAD
            if waiting > MAX_WAITING_NOTE_BYTES:
                notes.put_nowait(None)
            elif message.data:  # The empty note means that listening has begun.
                notes.put_nowait(message.data)

        _, unsubscribe = await connection.subscribe(
            received, on_end=lambda: notes.put_nowait(None), subject=self._notes
        )
        try:
            # An answer on the same connection shows that the server knows the subscription.
            await connection.ask(api_request("INFO"))
            yield b""
            while (note := await notes.get()) is not None:
                waiting -= len(note) + _NOTE_OVERHEAD
                yield note
            # None also comes at the end of the connection, which is the better reason.
            connection.check()
            raise LogUnavailable("notes arrive faster than this node handles them")
        finally:
            await unsubscribe()

    async def archive(self, *, before: int) -> Archive:
        """Return what the server keeps below the tail. See ``Engine.archive``."""
        connection, stream = self._connection, self._stream
        if connection is None or stream is None:
            raise LogUnavailable("the state of the stream is not known")
        return await StreamArchives(connection, stream, self._address, self._retention, before=before).read()

    async def write(self, writes: Sequence[Write], seen: Seen) -> Sequence[Stored | InvalidMessage]:
        """Store the first of these publishes, at least one. See ``Engine.write``.

        On a new connection, check the stream first: a server that has lost messages would use numbers again.
        """
        if not self._is_known:
            # Otherwise, do not wait for the lock: many calls of ``state`` may be waiting for it.
            async with self._lock:
                if not self._is_known:
                    await self._look(seen, to_read=False)
        connection, stream = self._connection, self._stream
        if connection is None or stream is None or stream.epoch != seen.epoch:
            raise LogUnavailable("a new epoch has begun")
        if not writes:
            return []
        unix_ms = int(self._clock() * 1000 + self._server_ahead_ms)
        try:
            return await StreamPublisher(
                connection, stream, above=seen.latest, unix_ms=unix_ms, log_ms=int(self._log_ms(stream))
            ).write(writes)
        except LogUnavailable:
            # The server may have been replaced by one with fewer messages: the next write checks the stream first.
            self._stream = None
            raise

    @property
    def _is_known(self) -> bool:
        """Whether the stream has been checked on the present connection."""
        return self._stream is not None and self._connection is not None and self._connection.lost is None

    async def _look(self, seen: Seen | None, *, to_read: bool) -> State:
        """Return what the stream holds, and allow writes on this connection.

        Reading needs a new consumer, which only the leader of the cluster can create. Writing does not.
        """
        connection = await self._connected_again()
        if to_read and error_code(answer := await connection.ask(api_request("INFO"))) is not None:
            raise LogUnavailable(error_text(answer))
        try:
            stream = await self._keeper.usable(connection, seen)
            latest = await self._whole_through(connection, stream, seen)
            oldest = await self._readable_from(connection, stream, seen, latest)
        except ConfigurationError as error:
            # The stream was changed while this node runs.
            raise LogUnavailable(str(error)) from None
        # Not before: from now on, ``write`` uses the stream without checking it again.
        self._stream = stream
        self._keeper.has_read(Seen(stream.epoch, latest, 0))
        self._server_ahead_ms = stream.server_ms - self._clock() * 1000
        log_ms = self._log_ms(stream)
        return State(stream.epoch, stream.first_number, oldest, latest, log_ms, stream.numbering.lost)

    async def _connected_again(self) -> NatsConnection:
        """Return the connection, or a new one.

        The server may have been changed while this node runs, and a server that starts has no JetStream yet.
        """
        try:
            return await self._connected()
        except ConfigurationError as error:
            raise LogUnavailable(str(error)) from None

    async def _connected(self) -> NatsConnection:
        """Return the connection, or a new one to a server that this log can use."""
        if self._connection is not None and self._connection.lost is None:
            return self._connection
        if self._connection is not None:
            await self._connection.close()
        self._stream = None
        self._connection = NatsConnection(self._address)
        await self._connection.open()
        try:
            await self._require_jetstream(self._connection)
            await self._keeper.connected(self._connection)
        except ConfigurationError:
            await self._connection.close()
            raise
        return self._connection

    async def _require_jetstream(self, connection: NatsConnection) -> None:
        if connection.version < _VERSION:
            version = ".".join(map(str, connection.version))
            raise ConfigurationError(
                f"{self._address.label} runs NATS {version}: the log needs 2.12 or newer, for atomic batches"
            )
        answer = await connection.ask(api_request("INFO"))
        if error_code(answer) in _NOT_ENABLED:
            raise ConfigurationError(
                f"{self._address.label} has no JetStream: start nats-server with --jetstream and --store_dir, "
                "or enable it for the account of this user"
            )

    async def _whole_through(self, connection: NatsConnection, stream: StreamInfo, seen: Seen | None) -> int:
        """Return the latest number, without an incomplete batch at the end, which readers hold back."""
        if stream.is_empty or (seen and (stream.epoch, stream.latest) == (seen.epoch, seen.latest)):
            return stream.latest
        answer = await stored_message(connection, stream, stream.last_sequence)
        body = None if error_code(answer) is not None else stored_body(answer["message"])
        if body is None:
            return stream.latest
        # Only a node that has just started uses the wall clock of the server, for the time since the latest message.
        idle_ms = 0.0 if self._log_ahead_ms is not None else stream.server_ms - unix_ms_of(answer["message"]["time"])
        self._set_log_clock(body.log_ms + max(0.0, idle_ms))
        if body.is_last:
            return stream.latest
        return max(stream.newest - body.place, stream.oldest - 1, stream.numbering.lost)

    def _log_ms(self, stream: StreamInfo) -> float:
        """Return the present time on the clock of the log.

        It advances with the monotonic clocks of the nodes, and messages carry it from node to node. A new log begins
        with the time of the server.
        """
        if self._log_ahead_ms is None:
            self._set_log_clock(stream.server_ms)
        return self._clock() * 1000 + (self._log_ahead_ms or 0.0)

    def _set_log_clock(self, log_ms: float) -> None:
        """Set the clock of the log forward to this time, unless it shows it already."""
        ahead_ms = log_ms - self._clock() * 1000
        if self._log_ahead_ms is None or ahead_ms > self._log_ahead_ms:
            self._log_ahead_ms = ahead_ms

    async def _readable_from(
        self, connection: NatsConnection, stream: StreamInfo, seen: Seen | None, latest: int
    ) -> int:
        """Return the oldest number to read: the window has room for no more messages than are retained."""
        if stream.is_empty:
            return latest + 1
        first = stream.last_sequence - self._retention.max_messages + 1
        oldest = stream.oldest if first <= stream.first_sequence else min(stream.numbering.number(first), latest + 1)
        if seen is None or seen.epoch != stream.epoch or oldest > seen.latest + 1 or seen.latest >= stream.latest:
            return oldest
        if not stream.deleted and seen.latest >= stream.numbering.lost:
            return oldest
        # A damaged store has holes, and so have numbers that have skipped ahead: continue after the hole.
        request = {"seq": stream.numbering.sequence_after(seen.latest), "next_by_subj": f"{stream.subjects}>"}
        answer = await connection.ask(api_request(f"STREAM.MSG.GET.{stream.name}", request))
        if error_code(answer) is None:
            return max(oldest, stream.number_of(answer["message"]))
        return max(oldest, stream.numbering.lost + 1)
