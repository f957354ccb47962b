"""RedisEngine: one Lua script in Redis or Valkey stamps and stores, and every node reads the stream that it fills."""

import asyncio
import contextlib
import logging
import math
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterCrossSlotError,
    ClusterDownError,
    RedisError,
)

from unmissed.core.errors import (
    ConfigurationError,
    IdempotencyConflict,
    LogUnavailable,
    NotRunning,
    TooManyRequests,
    UnmissedError,
)
from unmissed.core.messages import rfc3339
from unmissed.core.receipts import Receipt, owner_of
from unmissed.core.retention import Retention
from unmissed.logs.codec import decode_draft, decode_ms, encode_draft
from unmissed.logs.engine import Archive, Seen, State
from unmissed.logs.feed import Record
from unmissed.logs.redis.durability import Durability, durability_of, save
from unmissed.logs.redis.redis_archive import ArchiveReader, Argument, arguments_of, rules_text
from unmissed.logs.redis.redis_clients import RedisClients
from unmissed.logs.writer import Stored, Write

logger = logging.getLogger("unmissed")

_OLDEST_VERSION = (6, 2)
SETTLE_MS = 1_500
"""How long nothing is stored after a restart of Redis, or after a failover, so that all nodes can connect first."""

_CLOSE_SECONDS = 1.0
"""The most that is waited for the mark of an orderly close."""

_CLOSE_TRIES = 5
_CLOSE_TRY_SECONDS = 0.05
"""Attempts to leave the mark, and the pause between them: the server learns late that this node no longer listens."""

_RETRY_MS = 60_000
"""How long a retry of a publish without an idempotency key is recognised."""

_JUMP_MS = 7_200_000
"""How far the clock of the server may jump before messages and idempotency keys expire early."""

_SLICES = 8
"""Idempotency keys are forgotten in slices of an eighth of ``max_age``, as in ``Keys``."""

_FINGERPRINT_BYTES = 12
_BLOCK_MS = 1_000
_STORED, _NO_ROOM = 1, 2
_READ_COUNT = 200
_LAST_OF_NUMBER = 2**64 - 1
"""The second part of the highest entry id that begins with a number. The script stores 0."""
_CLUSTER = (
    "is a node of a Redis Cluster, which cannot hold the log: use one Redis without cluster mode, with replicas and "
    "Sentinels to survive its loss, or nats://"
)
_NOTHING_SEEN = Seen("", 0, 0)
_SCRIPT = "".join(resources.files(__package__).joinpath(name).read_text() for name in ("archive.lua", "script.lua"))


@dataclass(frozen=True, slots=True)
class _ScriptAnswer:
    """What the script returns. ``wait_ms`` are the milliseconds until it stores messages."""

    wait_ms: int
    state: State
    results: list[Any]
    has_changed_mark: bool


class RedisEngine:
    """The keys ``{name}:*`` in a Redis or Valkey server.

    ``connect`` returns new clients, and ``shown`` is its address without a password. ``first_number`` replaces the
    time on the server's clock as the first number of the first epoch. ``clock`` returns monotonic seconds.
    """

    def __init__(
        self,
        connect: Callable[[], RedisClients],
        *,
        shown: str,
        name: str,
        retention: Retention,
        first_number: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._new_clients = connect
        self._shown = shown
        self._prefix = f"{{{name}}}"
        self._retention = retention
        self._first_number = first_number
        self._clock = clock
        self._log_ahead_ms: float | None = None
        """The milliseconds of the log's clock minus those of ``clock``, or None before the first answer."""
        self._clients: RedisClients | None = None
        self._errors = 0
        """The number of errors of the server and the network so far."""
        self._durability = Durability()
        self._run_id = ""
        """The run of the server that answered last. It changes with a restart, and with a failover."""
        self._epoch = ""
        self._latest = 0
        """The latest number that the script has reported."""
        self._unreadable = 0
        """The number of a message that another program has replaced, or 0: it is lost, and reading skips it."""

    async def connect(self) -> None:
        """Connect. Raises ConfigurationError for a wrong password, a version that is too old, and a Redis Cluster."""
        if self._clients is None:
            self._clients = self._new_clients()
            self._script = self._clients.redis.register_script(_SCRIPT)
            # All databases of a server share its channels, so the name contains the database.
            database = self._clients.redis.connection_pool.connection_kwargs.get("db") or 0
            self._channel_name = f"{self._prefix}:{database}:nodes"
        async with self._server() as redis:
            try:
                info = await redis.info()
            except (AuthenticationError, AuthorizationError) as error:
                raise ConfigurationError(f"UNMISSED_LOG_URL: {self._shown} refuses the login: {error}") from None
        _check_version(info)
        if info.get("cluster_enabled"):
            raise ConfigurationError(f"UNMISSED_LOG_URL: {self._shown} {_CLUSTER}")
        _warn_about_evictions(info)
        async with self._server() as redis:
            self._durability = await durability_of(redis)

    async def state(self, seen: Seen | None) -> State:
        """Return what Redis holds. It begins an epoch if it has none, or if messages that were seen are missing.

        A node that starts waits until it is known whether a restart of Redis has lost messages.
        """
        answer = await self._run([], seen or _NOTHING_SEEN)
        while seen is None and answer.wait_ms:
            await asyncio.sleep(answer.wait_ms / 1000)
            answer = await self._run([], _NOTHING_SEEN)
        return answer.state

    async def read(self, after: int) -> AsyncGenerator[Sequence[Record]]:
        """Yield the messages after a number, and new ones for as long as Redis can be reached."""
        stream = f"{self._prefix}:messages"
        # Returns at once and reads nothing. If the stream cannot be read, it raises before a success is reported.
        async with self._server() as redis:
            await redis.xread({stream: "$"}, count=1)
        yield []
        while True:
            # From before the request: what it returns may be older than what the script reports before it is looked at.
            latest = self._latest
            async with self._server() as redis:
                found: Any = await redis.xread(
                    {stream: f"{after}-{_LAST_OF_NUMBER}"}, count=_READ_COUNT, block=_BLOCK_MS
                )
            records = self._records(found[0][1], latest=latest) if found else []
            # After an empty block, the caller checks for a new epoch, whose messages do not continue these numbers.
            yield records
            if records:
                after = records[-1].number

    async def archive(self, *, before: int) -> Archive:
        """Return what rules and keys retain below a number."""
        async with self._server() as redis:
            reader = ArchiveReader(redis, prefix=self._prefix, epoch=self._epoch)
            return await reader.read(self._retention, before=before)

    async def write(self, writes: Sequence[Write], seen: Seen) -> Sequence[Stored | UnmissedError]:
        """Store these publishes in one call of the script."""
        answer = await self._run(writes, seen)
        if answer.wait_ms:
            raise LogUnavailable(f"{self._shown} was restarted or replaced: its nodes report what they have seen")
        return [
            _result(write, outcome, receipt)
            for write, outcome, receipt in zip(writes, answer.results[::2], answer.results[1::2], strict=True)
        ]

    async def send(self, note: bytes) -> None:
        """Publish a note to the listening nodes."""
        async with self._server() as redis:
            await redis.publish(self._channel_name, note)

    async def receive(self) -> AsyncGenerator[bytes]:
        """Yield an empty note when subscribed, then each note. Raises LogUnavailable when connections are renewed."""
        async with self._server() as redis, redis.pubsub() as subscription:
            # After an error of any call, all connections are replaced: the address may now lead to another server. This
            # subscription would stay with the old one, and hear nothing.
            errors = self._errors
            await subscription.subscribe(self._channel_name)
            while errors == self._errors:
                message = await subscription.get_message(timeout=_BLOCK_MS / 1000)
                if message is None:
                    continue
                if message["type"] != "message":
                    yield b""
                elif message["data"]:  # The empty note means that listening has begun.
                    yield message["data"]
        raise LogUnavailable(f"{self._shown}: the connections are renewed")

    async def close(self) -> None:
        """Disconnect, and leave a mark of an orderly close if no other node runs."""
        if self._clients is None:
            return
        try:
            if self._durability.can_mark and self._epoch:
                with contextlib.suppress(LogUnavailable, TimeoutError):
                    async with asyncio.timeout(_CLOSE_SECONDS):
                        await self._leave_mark()
        finally:
            await self._clients.close()
            self._clients = None

    async def _leave_mark(self) -> None:
        """Mark the latest number as the last one. Without the mark, a later restart of Redis counts as a loss."""
        seen = Seen(self._epoch, 0, 0)
        for _ in range(_CLOSE_TRIES):
            answer = await self._run([], seen, closing=True)
            if answer.has_changed_mark:
                break
            await asyncio.sleep(_CLOSE_TRY_SECONDS)
        # The mark must be removed from the disk later, which takes as long, and may be forbidden.
        if answer.has_changed_mark and self._durability.saves:
            async with self._server() as redis:
                if not await save(redis, seconds=_CLOSE_SECONDS / 2):
                    await redis.hdel(f"{self._prefix}:life", "closed")

    async def _run(self, writes: Sequence[Write], seen: Seen, *, closing: bool = False) -> _ScriptAnswer:
        """Call the script."""
        max_age_ms = round(self._retention.max_age * 1000)
        slice_ms = max(1, math.ceil(max_age_ms / _SLICES))
        log_ms = -1 if self._log_ahead_ms is None else int(self._clock() * 1000 + self._log_ahead_ms)
        keys = [f"{self._prefix}:life", f"{self._prefix}:messages", f"{self._prefix}:keys:"]
        arguments: list[Argument] = [
            *(seen.epoch, seen.latest, seen.unix_ms),
            *(secrets.token_urlsafe(9), self._first_number or 0),
            *(self._retention.max_messages, max_age_ms + 2 * slice_ms + _JUMP_MS, SETTLE_MS, log_ms),
            *(self._retention.max_keys, slice_ms, _RETRY_MS),
            *(self._run_id, int(self._durability.keeps_all), self._durability.hold_ms),
            *(self._channel_name if closing else "", rules_text(self._retention)),
            *(self._prefix, self._retention.max_bytes),
        ]
        for write in writes:
            keys.append(f"{self._prefix}:receipt:{write.id}")
            key = write.key or ""
            drafts: list[Argument] = []
            for draft in write.drafts:
                drafts += [encode_draft(draft), *arguments_of(draft, self._retention)]
            arguments += [_fingerprint(write), key, owner_of(key), len(write.drafts), len(drafts), *drafts]
        async with self._server() as redis:
            answer = await self._script(keys=keys, args=arguments, client=redis)
        wait_ms, epoch, first, oldest, latest, log_time, lost, run_id = (value.decode() for value in answer[:8])
        if answer[8]:
            logger.warning("%s had messages in %s that unmissed did not write: removed", self._shown, keys[1])
        self._epoch, self._latest = epoch, int(latest)
        # Only forward: each answer is late by its time on the network, and would set the clock back by that.
        ahead_ms = float(log_time) - self._clock() * 1000
        if self._log_ahead_ms is None or ahead_ms > self._log_ahead_ms:
            self._log_ahead_ms = ahead_ms
        kept = int(oldest)
        # The message cannot be read: without this, the node would stop before it for ever.
        if kept == self._unreadable:
            kept += 1
        state = State(epoch, int(first), kept, self._latest, float(log_time), int(lost))
        has_changed_mark = bool(answer[9])
        if run_id != self._run_id:
            self._run_id = run_id
            async with self._server() as redis:
                self._durability = await durability_of(redis)
        if has_changed_mark and not closing and self._durability.saves:
            # No message is stored before this ends, or before the time that it may take is over.
            async with self._server() as redis:
                await save(redis, seconds=self._durability.hold_ms / 1000)
        return _ScriptAnswer(int(wait_ms), state, answer[10:], has_changed_mark)

    def _records(self, entries: Sequence[tuple[bytes, dict[bytes, bytes]]], *, latest: int) -> list[Record]:
        """Return the messages in these entries, up to the first that is no message: the caller then reads the state.

        ``latest`` is the latest number when they were asked for.
        """
        records: list[Record] = []
        for entry_id, fields in entries:
            number, *_ = entry_id.partition(b"-")
            try:
                unix_ms, log_ms = decode_ms(fields[b"ms"]), decode_ms(fields[b"log"])
                after = int(fields[b"after"]) if b"after" in fields else None
                records.append(Record(int(number), unix_ms, log_ms, decode_draft(fields[b"draft"]), after))
            except (KeyError, ValueError):
                # Above the latest number, the script removes the entry. Otherwise, it is in place of a message.
                if latest >= int(number) != self._unreadable:
                    self._unreadable = int(number)
                    logger.warning("message %d in %s cannot be read: skipped", int(number), self._shown)
                break
        return records

    @contextlib.asynccontextmanager
    async def _server(self) -> AsyncIterator[Redis]:
        """Yield the client, and raise its errors and those of the network as LogUnavailable.

        After an error, all connections are replaced: the address may now lead to another server, as after a failover
        that leaves the old one running. Connections in use are closed when they return to the pool.
        """
        if self._clients is None:
            raise NotRunning
        redis, errors = self._clients.redis, self._errors
        try:
            yield redis
        except (RedisError, OSError) as error:
            self._errors += 1
            reason = _CLUSTER if isinstance(error, (AskError, ClusterDownError, ClusterCrossSlotError)) else str(error)
            raise LogUnavailable(f"{self._shown}: {reason}") from error
        finally:
            if errors != self._errors:
                with contextlib.suppress(RedisError, OSError):
                    await redis.connection_pool.disconnect(inuse_connections=False)


def _fingerprint(write: Write) -> str:
    """Return a short digest of the drafts: receipts are kept longer than messages."""
    return urlsafe_b64encode(write.fingerprint[:_FINGERPRINT_BYTES]).decode()


def _result(write: Write, outcome: int, receipt: bytes) -> Stored | UnmissedError:
    if outcome == _NO_ROOM:
        return TooManyRequests("too many idempotency keys are in use", retry_after=int(receipt) / 1000)
    first, count, unix_ms, epoch, fingerprint = receipt.decode().split(" ")
    if fingerprint != _fingerprint(write):
        return IdempotencyConflict()
    # Without a key, only an earlier attempt of the same publish can have stored it.
    return Stored(
        Receipt(int(first), int(count), epoch, rfc3339(int(unix_ms) / 1000)),
        new=outcome == _STORED or write.key is None,
    )


def _check_version(info: dict[str, Any]) -> None:
    version = str(info["redis_version"])
    if tuple(map(int, version.split(".")[:2])) < _OLDEST_VERSION:
        oldest = ".".join(map(str, _OLDEST_VERSION))
        raise ConfigurationError(f"UNMISSED_LOG_URL: Redis {version} is too old: {oldest} or newer is needed")


def _warn_about_evictions(memory: dict[str, Any]) -> None:
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and memory.get("maxmemory"):
        logger.warning(
            "Redis may evict the log, which begins a new epoch: set its maxmemory-policy to noeviction, not %s", policy
        )
