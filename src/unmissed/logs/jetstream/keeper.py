"""Finding, creating and replacing the stream of a log, so that no number is used twice."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from unmissed.core.errors import ConfigurationError, LogUnavailable
from unmissed.core.retention import Retention
from unmissed.logs.engine import Seen
from unmissed.logs.jetstream.address import StreamAddress
from unmissed.logs.jetstream.archive_streams import arrange
from unmissed.logs.jetstream.filing import Filing
from unmissed.logs.jetstream.life import Life, LifeRecord
from unmissed.logs.jetstream.nats_connection import NatsConnection
from unmissed.logs.jetstream.packets import NO_STREAM, STREAM_EXISTS, api_request, error_code, error_text, stored_body
from unmissed.logs.jetstream.segments import Numbering
from unmissed.logs.jetstream.stream import StreamInfo, addressed, settings
from unmissed.logs.jetstream.witnesses import Witnesses, furthest

logger = logging.getLogger("unmissed")

_NEVER = (10052, 10065, 10074)
"""Invalid settings, subjects of another stream, and replicas without a cluster."""

_FIND_TRIES = 5
"""Attempts to find or create the stream while other nodes create or delete it."""

_RECORD_TRIES = 100
"""Attempts to write the record: of the nodes that try at the same time, one succeeds."""

_LOOK_AGAIN_SECONDS = 0.25
_LOOK_AGAIN_IN_CLUSTER_SECONDS = 2.0
"""Seconds before a stream that seems to have lost messages is checked again, and then replaced."""

_ASK_SECONDS = 0.25
"""How long one question waits for its answers."""

_UNKNOWN = 2**53 - 1
"""Above all numbers."""

SETTLE_SECONDS = 1.5
"""How long a node that starts waits for reports of running ones, if nothing else vouches for the stream."""


class StreamKeeper:
    """Keeps the stream at ``address`` in order, for one node. See ``JetStreamEngine`` for the arguments."""

    def __init__(
        self,
        address: StreamAddress,
        *,
        retention: Retention,
        first_number: int | None = None,
        wall_clock: Callable[[], float] = time.time,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        self._address = address
        self._retention = retention
        self._first_number = first_number
        self._wall_clock = wall_clock
        self._settle_seconds = settle_seconds
        self._record = LifeRecord(address)
        self._witnesses = Witnesses(f"{address.name}-life.ask", lambda: self._seen)
        self._seen: Seen | None = None
        """How far this node has read."""
        self._created: str | None = None
        """The epoch that this node has begun on the present connection."""
        self._opened: tuple[str, str] | None = None
        """The epoch and the run of the server for which this node has written the record, on the present connection."""

    async def connected(self, connection: NatsConnection) -> None:
        """Report to other nodes on a new connection, and forget what was found on an earlier one.

        It may lead to a server with an older copy of the stream.
        """
        self._created = self._opened = None
        await self._witnesses.join(connection)

    def has_read(self, seen: Seen) -> None:
        """Keep how far this node has read, for nodes that ask, and for the next look at the stream."""
        if self._seen is None or seen.epoch != self._seen.epoch or seen.latest >= self._seen.latest:
            self._seen = seen

    async def found(self, connection: NatsConnection, seen: Seen | None) -> StreamInfo:
        """Return the stream. Create it if it does not exist. Another node may do so at the same time."""
        for _ in range(_FIND_TRIES):
            answer = await connection.ask(api_request(f"STREAM.INFO.{self._address.name}"))
            if error_code(answer) == NO_STREAM:
                answer = await self._create(connection, seen)
            if error_code(answer) is None:
                stream = StreamInfo.of(answer, self._address, self._retention)
                if answer.get("did_create"):
                    self._created = stream.epoch
                return await self._with_offsets(connection, stream)
            if error_code(answer) in _NEVER:
                raise ConfigurationError(f"UNMISSED_LOG_URL: {error_text(answer)}")
            if error_code(answer) != STREAM_EXISTS:
                break
        raise LogUnavailable(error_text(answer))

    async def usable(self, connection: NatsConnection, seen: Seen | None) -> StreamInfo:
        """Return the stream, at whose end new messages get numbers that were never used.

        If the stream lacks what a node has seen, it is another stream, which begins an epoch. If it may lack what no
        node has seen, its numbers skip ahead.
        """
        if seen is not None and self._seen is not None and self._seen.epoch == seen.epoch:
            seen = max(seen, self._seen, key=lambda each: each.latest)
        for _ in range(_RECORD_TRIES):
            stream = await self._intact(connection, seen)
            if self._opened == (stream.epoch, _run(connection, stream)):
                return stream
            if opened := await self._open(connection, stream, seen):
                return opened
        raise LogUnavailable(f"other nodes keep changing the record of the stream {self._address.name}")

    async def close(self, connection: NatsConnection) -> None:
        """Record that the last node has closed, if this one is the last."""
        if self._opened is None:
            return
        life = await self._record.read(connection)
        await self._witnesses.leave()
        # Another node that starts after the record was read replaces it, so that this one cannot.
        if (life.epoch, life.run) != self._opened or not await self._witnesses.none_left(connection):
            return
        # A stream that was deleted in between is created, and has another epoch.
        stream = await self.found(connection, None)
        if self._opened == (stream.epoch, _run(connection, stream)):
            await self._record.replace(connection, life, closed=stream.latest)

    async def _open(self, connection: NatsConnection, stream: StreamInfo, seen: Seen | None) -> StreamInfo | None:
        """Record that this node is running, and return the stream. Return None if another node has recorded the same.

        A node that starts relies on what vouches for the end of the stream: the same run of the server, another node
        that is running, or the record of the last one that has closed.
        """
        if seen is None:
            # Before messages are filed by these rules, and only at the start: other nodes may still have other rules.
            await arrange(connection, self._address, self._retention, before=stream.filing.rules)
        life = await self._record.read(connection)
        if life.is_of(stream, _run(connection, stream)):
            # Usually the same. Otherwise, the node that has decided it has ended before it could do it.
            stream = await self._renumbered(connection, stream, Numbering.of(life.numbering))
            is_whole = True
        else:
            is_whole = self._address.sync_always or stream.epoch in (self._created, seen and seen.epoch)
        closed_in_order = life.closed_in_order(stream)
        if not is_whole and not closed_in_order:
            witness = await self._settled(connection, stream, life)
            stream = await self._intact(connection, witness)
            is_whole = witness is not None
        numbering = stream.numbering if is_whole else self._ahead(stream, lossy=not closed_in_order)
        run = _run(connection, stream)
        changes = {"epoch": stream.epoch, "run": run, "numbering": numbering.text, "closed": None}
        if not await self._record.replace(connection, life, **changes):
            return None
        self._opened = stream.epoch, run
        if numbering.lost != stream.numbering.lost:
            logger.warning(
                "the stream %s may have lost messages: its numbers continue at %d, and clients receive a gap",
                *(stream.name, numbering.last.base),
            )
        stream = await self._renumbered(connection, stream, numbering)
        return stream if seen is not None else await self._filed(connection, stream)

    async def _filed(self, connection: NatsConnection, stream: StreamInfo) -> StreamInfo:
        """Return the stream, after it has begun to take messages that are filed by the rules of this node."""
        filing = Filing(self._retention.rules)
        if filing.name == stream.filing.name and stream.filed_since < _UNKNOWN:
            return stream
        # Other nodes may write until the server refuses what is filed otherwise. Then it is known what they wrote.
        for filed_since in (_UNKNOWN, None):
            since = stream.latest if filed_since is None else filed_since
            changes = addressed(stream.name, stream.epoch, stream.numbering, filing, filed_since=since)
            stream = await self._changed(connection, stream, changes)
        return stream

    async def _settled(self, connection: NatsConnection, stream: StreamInfo, life: Life) -> Seen | None:
        """Return the furthest that a running node has read, after it had the time to connect again.

        Stop when another node that starts has replaced the record.
        """
        reports = list[Seen | None]()
        for _ in range(max(1, round(self._settle_seconds / _ASK_SECONDS))):
            reports.append(await self._witnesses.furthest(connection, epoch=stream.epoch, seconds=_ASK_SECONDS))
            if await self._record.read(connection) != life:
                break
        return furthest(reports)

    def _ahead(self, stream: StreamInfo, *, lossy: bool) -> Numbering:
        """Return the numbering that continues above all numbers that can have been used: they follow the clocks."""
        now = max(int(self._wall_clock() * 1e6), int(stream.server_ms * 1e3))
        # One number is left out, for the reason given in ``MemoryLog``.
        return stream.numbering.continued(
            stream.last_sequence + 1,
            number=max(now, stream.latest + 2),
            lossy=lossy,
            oldest=stream.first_sequence,
        )

    async def _renumbered(self, connection: NatsConnection, stream: StreamInfo, numbering: Numbering) -> StreamInfo:
        """Return the stream, after the server has begun to give new messages these numbers."""
        if numbering == stream.numbering:
            return stream
        filed_since = stream.filed_since
        changes = addressed(stream.name, stream.epoch, numbering, stream.filing, filed_since=filed_since)
        return await self._changed(connection, stream, changes)

    async def _changed(self, connection: NatsConnection, stream: StreamInfo, changes: Mapping[str, Any]) -> StreamInfo:
        answer = await connection.ask(api_request(f"STREAM.UPDATE.{stream.name}", {**stream.config, **changes}))
        if error_code(answer) is not None:
            raise LogUnavailable(error_text(answer))
        return await self.found(connection, None)

    async def _create(self, connection: NatsConnection, seen: Seen | None) -> dict[str, Any]:
        wanted = settings(
            self._address,
            self._retention,
            epoch=secrets.token_urlsafe(9),
            first_number=self._first_above(seen),
        )
        return await connection.ask(api_request(f"STREAM.CREATE.{self._address.name}", wanted))

    def _first_above(self, seen: Seen | None) -> int:
        """Return the first number of a new epoch, above every number used so far."""
        if seen is None and self._first_number is not None:
            return self._first_number
        # One number is left out, for the reason given in ``MemoryLog``.
        return max(int(self._wall_clock() * 1e6), 0 if seen is None else seen.latest + 1) + 1

    async def _intact(self, connection: NatsConnection, seen: Seen | None) -> StreamInfo:
        """Return the stream if it has everything that was seen, or else a new one, which begins an epoch."""
        stream = await self.found(connection, seen)
        if seen is None or not await self._has_lost(connection, stream, seen):
            return stream
        # Look again: another node may have replaced the stream in between, and in a cluster, a leader that is about to
        # be replaced may lag behind.
        await asyncio.sleep(_LOOK_AGAIN_SECONDS if self._address.replicas == 1 else _LOOK_AGAIN_IN_CLUSTER_SECONDS)
        stream = await self.found(connection, seen)
        if not await self._has_lost(connection, stream, seen):
            return stream
        # A leader that hears from no majority may have been replaced: it must not delete what the new one has.
        if not stream.leader_is_certain:
            raise LogUnavailable(f"most replicas of the stream {stream.name} cannot be reached")
        await connection.ask(api_request(f"STREAM.DELETE.{stream.name}"))
        return await self.found(connection, seen)

    async def _has_lost(self, connection: NatsConnection, stream: StreamInfo, seen: Seen) -> bool:
        stored_ms = None
        if stream.epoch == seen.epoch and stream.oldest <= seen.latest <= stream.latest:
            stored_ms = await self._stored_ms(connection, stream, seen.latest)
        return stream.has_lost(seen, stored_ms=stored_ms)

    async def _stored_ms(self, connection: NatsConnection, stream: StreamInfo, number: int) -> int | None:
        """Return when the message with this number was stamped: 0 for one of another program, and None without one."""
        answer = await stored_message(connection, stream, stream.numbering.sequence_after(number - 1))
        if error_code(answer) is not None or stream.number_of(answer["message"]) != number:
            return None
        body = stored_body(answer["message"])
        return 0 if body is None else body.unix_ms

    async def _with_offsets(self, connection: NatsConnection, stream: StreamInfo) -> StreamInfo:
        """Return the stream with the offsets of its oldest and its newest message, which may differ from the plan."""
        if len(stream.numbering.segments) == 1 or stream.is_empty:
            return stream
        first = await self._offset(connection, stream, stream.first_sequence)
        last = await self._offset(connection, stream, stream.last_sequence)
        return replace(
            stream,
            first_offset=stream.first_offset if first is None else first,
            last_offset=stream.last_offset if last is None else last,
        )

    async def _offset(self, connection: NatsConnection, stream: StreamInfo, sequence: int) -> int | None:
        answer = await stored_message(connection, stream, sequence)
        return None if error_code(answer) is not None else stream.number_of(answer["message"]) - sequence


async def stored_message(connection: NatsConnection, stream: StreamInfo, sequence: int) -> dict[str, Any]:
    """Return the answer of the server with the message of this sequence."""
    return await connection.ask(api_request(f"STREAM.MSG.GET.{stream.name}", {"seq": sequence}))


def _run(connection: NatsConnection, stream: StreamInfo) -> str:
    """Return a name for the run of the server, or of the leader of a cluster, that stores the stream; "" if unknown."""
    return stream.leader_run if stream.is_clustered else connection.server_id
