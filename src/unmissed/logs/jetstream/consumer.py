"""Reading a stream: each node has its own pull consumer, and requests messages when it is ready for them."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from unmissed.core.errors import LogUnavailable
from unmissed.logs.feed import VOID, Record
from unmissed.logs.jetstream.nats_connection import NatsConnection
from unmissed.logs.jetstream.packets import Body, Packet, api_request, decode_body, error_code, error_text
from unmissed.logs.jetstream.stream import StreamInfo

if TYPE_CHECKING:
    from nats.aio.msg import Msg

logger = logging.getLogger("unmissed")

_PULL_MESSAGES = 1_000
_PULL_BYTES = 8_388_608
"""The most messages, and bytes of them, that are on the way to a node."""

_PULL_SECONDS = 30
_HEARTBEAT_SECONDS = 1
_SILENCE_SECONDS = 3.5
"""Seconds of silence after which the server has lost the consumer, or cannot be reached."""

_INACTIVE_SECONDS = 300
"""How long a server keeps the consumer of a node that is gone, or too busy to pull messages."""

_PULL_ENDED = ("Request Timeout", "Interest Expired", "Batch Completed", "Message Size Exceeds MaxBytes", "No Messages")


class StreamConsumer:
    """A pull consumer: the messages of one stream after a number, over one connection.

    The server ends each pull after ``pull_seconds``, a whole number.
    """

    def __init__(self, connection: NatsConnection, *, stream: StreamInfo, pull_seconds: int = _PULL_SECONDS) -> None:
        self._connection = connection
        self._stream = stream.name
        self._subjects = stream.subjects
        self._numbering = stream.numbering
        # Of each message, these are asked.
        self._offsets = {str(offset): offset for offset in stream.numbering.offsets}
        self._lossy, self._lost = stream.numbering.lossy, stream.numbering.lost
        self._pull_seconds = pull_seconds
        self._consumer = secrets.token_hex(8)
        self._arrived: list[Msg] = []
        self._wake = asyncio.Event()
        self._position = _Position(0, 0)
        """Where the newest message is that has arrived."""
        self._pulls = 0
        self._expected = 0
        """How many messages the current pull may still return."""
        self._batch: list[Record] = []
        """The first messages of a batch whose last one has not arrived."""
        self._place = 0
        """The place of the last of them in their batch."""

    async def after(self, number: int) -> AsyncGenerator[Sequence[Record]]:
        """Yield the messages after a number, and new ones as they are stored. See ``Engine.read``."""
        self._inbox, unsubscribe = await self._connection.subscribe(self._receive, on_end=self._wake.set)
        try:
            first = self._numbering.begin_after(number)
            self._position = _Position(first - 1, number)
            await self._create_consumer(first)
            yield []
            while True:
                if not self._expected:
                    await self._pull()
                if records := self._records(await self._next()):
                    yield records
                    if self._position.before_loss:
                        # The numbers before the next message are lost: the caller asks for the state again.
                        yield []
        finally:
            await unsubscribe()
            # Raising here would replace a cancellation.
            with contextlib.suppress(LogUnavailable):
                await self._connection.send(api_request(f"CONSUMER.DELETE.{self._stream}.{self._consumer}"))

    async def _receive(self, message: "Msg") -> None:
        self._arrived.append(message)
        self._wake.set()

    async def _create_consumer(self, first: int) -> None:
        answer = await self._connection.ask(
            api_request(
                f"CONSUMER.CREATE.{self._stream}.{self._consumer}",
                {"stream_name": self._stream, "config": _consumer(self._consumer, first)},
            )
        )
        if error_code(answer) is not None:
            raise LogUnavailable(error_text(answer))

    async def _pull(self) -> None:
        """Request more messages. The caller has taken all earlier ones, so that they do not accumulate."""
        self._pulls += 1
        self._expected = _PULL_MESSAGES
        pull = api_request(
            f"CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}",
            {
                "batch": _PULL_MESSAGES,
                # A message that exceeds this would end the pull without being delivered.
                "max_bytes": max(_PULL_BYTES, 2 * self._connection.max_payload),
                "expires": self._pull_seconds * 1_000_000_000,
                "idle_heartbeat": _HEARTBEAT_SECONDS * 1_000_000_000,
            },
        )
        await self._connection.send(Packet(pull.subject, pull.body), reply=f"{self._inbox}.{self._pulls}")

    async def _next(self) -> list["Msg"]:
        """Return the messages that have arrived, as soon as one has."""
        try:
            async with asyncio.timeout(_SILENCE_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            raise LogUnavailable(f"nothing is heard of the stream {self._stream}") from None
        # The end of the connection has woken this, too.
        self._connection.check()
        self._wake.clear()
        arrived, self._arrived = self._arrived, []
        return arrived

    def _records(self, arrived: Sequence["Msg"]) -> list[Record]:
        """Return the records that these messages publish. The last message of a batch publishes all of it."""
        records: list[Record] = []
        foreign: list[int] = []
        for message in arrived:
            # Only a message of the stream has a reply. Headers cannot decide: a publisher may set those of a status.
            if not message.reply:
                self._take_status(message)
                continue
            self._expected -= 1
            after, here = self._position, self._positioned(message)
            if here.number <= after.number:
                # It was read before: the sequence to begin with was only that of the plan.
                self._position = after._replace(sequence=here.sequence)
                continue
            self._position = here
            skipped_from = self._skipped_from(after)
            try:
                self._take(here.number, decode_body(message.data), records, after=skipped_from)
            except ValueError:
                # The server gave this number to a message of another program, so no message of unmissed is missing.
                self._end_part(records)
                records.append(Record(here.number, 0, 0, VOID, skipped_from))
                foreign.append(here.number)
            if here.before_loss:
                self._end_part(records)  # What follows has other numbers.
        if foreign:
            logger.warning(
                "the stream %s has %d messages that unmissed did not write, from number %d: skipped",
                *(self._stream, len(foreign), foreign[0]),
            )
        return records

    def _positioned(self, message: "Msg") -> "_Position":
        """Return where a message is. Its subject has the offset that its publisher has expected."""
        parts = message.subject.split(".", 4)
        offset = self._offsets.get(parts[3]) if len(parts) > 4 and message.subject.startswith(self._subjects) else None
        if offset is None:
            raise LogUnavailable(f"the stream {self._stream} has begun another epoch, or has other numbers")
        sequence = _sequence(message.reply)
        number = sequence + offset
        return _Position(sequence, number, number < self._lost and _is_last(message.reply))

    def _skipped_from(self, after: "_Position") -> int | None:
        """Return the number before the newest message, if none that was ever used is between the two, or None."""
        here = self._position
        if here.number == after.number + 1 or here.sequence != after.sequence + 1:
            return None
        return after.number if here.number - here.sequence not in self._lossy else None

    def _take_status(self, message: "Msg") -> None:
        """Record the end of a pull. Raises LogUnavailable at the end of the consumer."""
        headers = message.headers or {}
        status, description = headers.get("Status"), headers.get("Description", "")
        if status == "100":
            return
        if not description.startswith(_PULL_ENDED):
            raise LogUnavailable(f"reading the stream {self._stream} ended: {description or status}")
        # The status of an earlier pull may arrive late. It does not end the present one.
        if message.subject == f"{self._inbox}.{self._pulls}":
            self._expected = 0

    def _take(self, number: int, body: Body, records: list[Record], *, after: int | None) -> None:
        """Add a message to the records, with the ones before it in its batch, or hold it back until the batch ends."""
        if self._batch and (number, body.place) != (self._batch[-1].number + 1, self._place + 1):
            self._end_part(records)
        record = Record(number, body.unix_ms, body.log_ms, body.draft, after)
        if not body.is_last:
            self._batch.append(record)
            self._place = body.place
            return
        if self._batch:
            records += self._batch
            self._batch.clear()
        records.append(record)

    def _end_part(self, records: list[Record]) -> None:
        """Void the held messages of a batch, because something else follows them.

        A single server that is killed while it stores a batch keeps a part of it. It was not reported as stored,
        and its publisher stores the whole of it later.
        """
        if self._batch:
            first, last = self._batch[0].number, self._batch[-1].number
            logger.warning(
                "numbers %d to %d of the stream %s are a part of a batch that was never published: skipped",
                *(first, last, self._stream),
            )
            records += [replace(part, draft=VOID) for part in self._batch]
            self._batch.clear()


def _consumer(name: str, first: int) -> dict[str, Any]:
    return {
        "name": name,
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": first,
        "ack_policy": "none",
        "replay_policy": "instant",
        "inactive_threshold": _INACTIVE_SECONDS * 1_000_000_000,
        "mem_storage": True,
        "num_replicas": 1,
    }


class _Position(NamedTuple):
    """The sequence and the number of a message, and whether only lost numbers follow: the server has none after it."""

    sequence: int
    number: int
    before_loss: bool = False


def _sequence(reply: str) -> int:
    """Return the sequence in ``$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<delivered>.<time>.<following>``.

    Servers with a domain put it and an account before the stream.
    """
    parts = reply.split(".")
    return int(parts[5] if len(parts) == 9 else parts[7])


def _is_last(reply: str) -> bool:
    """Return whether the server had no message after this one."""
    parts = reply.split(".")
    return (parts[8] if len(parts) == 9 else parts[10]) == "0"
