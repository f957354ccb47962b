"""Publishing into a stream: each publish has its own subject, so that the stream stores it once."""

import asyncio
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from unmissed.core.errors import IdempotencyConflict, InvalidMessage, LogUnavailable, MessageTooLarge
from unmissed.core.messages import rfc3339
from unmissed.core.receipts import Receipt
from unmissed.logs.jetstream.nats_connection import NatsConnection
from unmissed.logs.jetstream.packets import (
    LINE_BYTES,
    NO_MESSAGE,
    OTHER_LAST_NUMBER,
    Packet,
    api_request,
    encode_body,
    encode_receipt,
    error_code,
    error_text,
    stored_body,
)
from unmissed.logs.jetstream.stream import StreamInfo
from unmissed.logs.writer import Stored, Write

_BEING_WRITTEN = 10164
"""Another message on this subject is being replicated."""

_MAX_BATCH = 1_000
"""The most messages in an atomic batch that a server accepts by default."""

_SENT_MESSAGES = 2_000
_SENT_BYTES = 8_388_608
_SENT_BATCHES = 30
"""The most messages, bytes of them, and atomic batches in one call of ``write``, unless a single publish is larger.

A server on a busy machine needs up to half a second for them: about 0.2 ms for a message, and 15 ms for a batch.
"""

_HEADER_BYTES = 512
_TRIES = 40
"""Attempts for publishes while another node, or an earlier one of these publishes, writes to their subject."""
_PAUSE_SECONDS = 0.02
"""Seconds between these attempts while another node writes."""


@dataclass(eq=False, slots=True)
class _Publishing:
    """A write on its way into the stream."""

    write: Write
    subjects: Sequence[str]
    """Those of the messages."""
    every_subject: str
    """Matches each subject that this publish may have: an earlier attempt may have another offset, or other rules."""
    last_sequence: int = 0
    """The sequence that the last message on these subjects is expected to have; 0 for none."""
    result: Stored | InvalidMessage | None = None

    def packets(self, *, unix_ms: int, log_ms: int) -> list[Packet]:
        """Return the messages. Several form an atomic batch, whose last message is answered."""
        drafts = self.write.drafts
        batch = {"Nats-Batch-Id": secrets.token_urlsafe(6)} if len(drafts) > 1 else {}
        packets = []
        for index, (draft, subject) in enumerate(zip(drafts, self.subjects, strict=True), start=1):
            is_last = index == len(drafts)
            headers = {**batch, "Nats-Batch-Sequence": str(index)} if batch else {}
            # Once: the first message of a batch changes what the others would find.
            if index == 1:
                headers["Nats-Expected-Last-Subject-Sequence"] = str(self.last_sequence)
                headers["Nats-Expected-Last-Subject-Sequence-Subject"] = self.every_subject
            if is_last and batch:
                headers["Nats-Batch-Commit"] = "1"
            receipt = encode_receipt(self.write) if is_last else None
            body = encode_body(draft, unix_ms=unix_ms, log_ms=log_ms, place=index, receipt=receipt)
            packets.append(Packet(subject, body, headers, answered=is_last))
        return packets


class StreamPublisher:
    """Stores publishes in one epoch of a stream.

    ``Nats-Msg-Id`` is refused in batches, and does not show whether the contents are the same. Instead, the subject is
    the key, and a message is refused if its subject has one already. The last one there has the receipt.
    """

    def __init__(
        self, connection: NatsConnection, stream: StreamInfo, *, above: int, unix_ms: int, log_ms: int
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._subjects, self._filing = stream.subjects, stream.filing
        self._numbered = f".{stream.numbering.last.offset}.{stream.filing.name}."
        self._above = above
        """Numbers up to this one are known to be used."""
        self._unix_ms = unix_ms
        self._log_ms = log_ms

    async def write(self, writes: Sequence[Write]) -> list[Stored | InvalidMessage]:
        """Return the results of the first writes, as many as take less than a second. See ``Engine.write``.

        Writes with the same subject are sent one after another.
        """
        publishes = [self._publishing(write) for write in _fitting(writes)]
        for publish in publishes:
            publish.result = self._refusal(publish.write)
        before = len(publishes) + 1
        for _ in range(_TRIES):
            waiting = [publish for publish in publishes if publish.result is None]
            if not waiting:
                break
            # No pause after progress: of several publishes with one subject, each attempt writes one.
            await asyncio.sleep(0 if len(waiting) < before else _PAUSE_SECONDS)
            before = len(waiting)
            await self._publish(_first_of_each_subject(waiting))
        # The caller passes the rest again, so the results end at the first write without one.
        results = []
        for publish in publishes:
            if publish.result is None:
                break
            results.append(publish.result)
        if not results:
            raise LogUnavailable("JetStream does not finish writing a message with the same key")
        return results

    def _publishing(self, write: Write) -> _Publishing:
        part = write.id if write.key is None else subject_part(write.key)
        own = self._subjects + part
        subjects = [own + self._numbered + self._filing.parts(draft) for draft in write.drafts]
        return _Publishing(write, subjects, f"{own}.>")

    def _refusal(self, write: Write) -> InvalidMessage | None:
        """Return why the server can never store this write, or None. It would close the connection."""
        if len(write.drafts) > _MAX_BATCH:
            return InvalidMessage(f"a batch has at most {_MAX_BATCH} messages on NATS: publish several batches")
        limit = self._connection.max_payload - _HEADER_BYTES - LINE_BYTES
        if any(draft.size_in_log > limit for draft in write.drafts):
            return MessageTooLarge("the message, for the max_payload of the NATS server,", limit=limit)
        return None

    async def _publish(self, publishes: Sequence[_Publishing]) -> None:
        """Send these publishes, and set the results that are known then."""
        packets = [
            packet for publish in publishes for packet in publish.packets(unix_ms=self._unix_ms, log_ms=self._log_ms)
        ]
        answers = await self._connection.exchange(packets)
        known = []
        for publish, answer in zip(publishes, answers, strict=True):
            code = error_code(answer)
            if code is None:
                publish.result = self._stored(publish.write, answer["seq"] + self._stream.numbering.last.offset)
            elif code == OTHER_LAST_NUMBER:
                known.append(publish)
            elif code != _BEING_WRITTEN:
                raise LogUnavailable(error_text(answer))
        if known:
            await self._look_up(known)

    async def _look_up(self, publishes: Sequence[_Publishing]) -> None:
        """Set the results of publishes whose subjects already have messages."""
        requests = [
            api_request(f"STREAM.MSG.GET.{self._stream.name}", {"last_by_subj": each.every_subject})
            for each in publishes
        ]
        for publish, answer in zip(publishes, await self._connection.exchange(requests), strict=True):
            code = error_code(answer)
            if code is None:
                self._take(publish, answer["message"])
            elif code == NO_MESSAGE:
                publish.last_sequence = 0
            else:
                raise LogUnavailable(error_text(answer))

    def _take(self, publish: _Publishing, message: Mapping[str, Any]) -> None:
        """Set the result from the last message of a subject."""
        stored = stored_body(message)
        if stored is None or not stored.is_last:
            # A part of a batch, which every reader skips. Other messages may follow it, so it cannot be completed with
            # contiguous numbers: store the whole batch again.
            publish.last_sequence = message["seq"]
        elif stored.is_of(publish.write):
            publish.result = self._receipt(self._stream.number_of(message), stored.place, stored.unix_ms, new=True)
        elif stored.has_drafts_of(publish.write):
            publish.result = self._receipt(self._stream.number_of(message), stored.place, stored.unix_ms, new=False)
        else:
            publish.result = IdempotencyConflict()

    def _stored(self, write: Write, last: int) -> Stored:
        # The number was used before, so the server has lost messages since the stream was checked.
        if last <= self._above:
            raise LogUnavailable(f"the stream {self._stream.name} has lost messages")
        return self._receipt(last, len(write.drafts), self._unix_ms, new=True)

    def _receipt(self, last: int, count: int, unix_ms: int, *, new: bool) -> Stored:
        return Stored(Receipt(last - count + 1, count, self._stream.epoch, rfc3339(unix_ms / 1000)), new)


def subject_part(key: str) -> str:
    """Return the part of a subject for an idempotency key: its digest, since a key may have any characters."""
    return sha256(key.encode()).hexdigest()


def _first_of_each_subject(publishes: Sequence[_Publishing]) -> list[_Publishing]:
    first: dict[str, _Publishing] = {}
    for publish in publishes:
        first.setdefault(publish.every_subject, publish)
    return [*first.values()]


def _fitting(writes: Sequence[Write]) -> Iterator[Write]:
    """Yield the writes that are sent together: at least one."""
    messages = size = batches = 0
    for index, write in enumerate(writes):
        messages += len(write.drafts)
        size += write.size
        batches += len(write.drafts) > 1
        if index > 0 and (messages > _SENT_MESSAGES or size > _SENT_BYTES or batches > _SENT_BATCHES):
            return
        yield write
