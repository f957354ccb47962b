"""RedisEngine: one Lua script in Redis or Valkey stamps and stores, and every node reads the stream that it fills."""

import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from importlib import resources
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    RedisError,
)

from unmissed.core.errors import ConfigurationError, IdempotencyConflict, LogUnavailable, NotRunning
from unmissed.core.messages import rfc3339
from unmissed.core.receipts import Receipt
from unmissed.core.window import Retention
from unmissed.logs.codec import decode_draft, encode_draft
from unmissed.logs.feed import Record
from unmissed.logs.shared.engine import Position, State
from unmissed.logs.shared.redis.clients import Clients
from unmissed.logs.writer import Stored, Write

logger = logging.getLogger("unmissed")

OLDEST_VERSION = (6, 2)
SETTLE_MS = 1_500
"""How long nothing is stored after a restart of Redis, or after a failover. All nodes connect meanwhile."""

_RETRY_MS = 60_000
"""How long a publish without an idempotency key is recognised when it is tried again."""

_BLOCK_MS = 1_000
_READ_COUNT = 200
_NOTHING_SEEN = Position("", 0, 0)
_SCRIPT = resources.files(__package__).joinpath("script.lua").read_text()


class RedisEngine:
    """The keys ``{name}:*`` in a Redis or Valkey server.

    ``connect`` returns new clients, and ``shown`` is its address without a password. ``first_number`` replaces the
    time on the server's clock as the first number of the first epoch.
    """

    def __init__(
        self,
        connect: Callable[[], Clients],
        *,
        shown: str,
        name: str,
        retention: Retention,
        first_number: int | None,
    ) -> None:
        self._new_clients = connect
        self._shown = shown
        self._prefix = f"{{{name}}}"
        self._retention = retention
        self._first_number = first_number
        self._clients: Clients | None = None

    async def connect(self) -> None:
        """Connect. Raises ConfigurationError for a wrong password and for a version that is too old."""
        if self._clients is None:
            self._clients = self._new_clients()
            self._script = self._clients.redis.register_script(_SCRIPT)
            # Channels are shared by all databases of a server.
            database = self._clients.redis.connection_pool.connection_kwargs.get("db") or 0
            self._channel_name = f"{self._prefix}:{database}:nodes"
        with self._errors():
            try:
                info = await self._redis.info("server")
                memory = await self._redis.info("memory")
            except (AuthenticationError, AuthorizationError) as error:
                raise ConfigurationError(f"UNMISSED_LOG_URL: {self._shown} refuses the login: {error}") from None
        _check_version(info)
        _warn_about_evictions(memory)

    async def state(self, seen: Position | None) -> State:
        """Return what Redis holds. An epoch begins if there is none, or if messages that were seen are missing."""
        return (await self._run([], seen or _NOTHING_SEEN))[1]

    async def read(self, after: int) -> AsyncGenerator[Sequence[Record]]:
        """Yield the messages after a number, and new ones for as long as Redis can be reached."""
        stream = f"{self._prefix}:messages"
        while True:
            with self._errors():
                found: Any = await self._redis.xread({stream: f"{after}-0"}, count=_READ_COUNT, block=_BLOCK_MS)
            records = _records(found) if found else []
            # Without messages, the caller looks whether another epoch has begun, whose messages do not follow.
            yield records
            if records:
                after = records[-1].number

    async def write(self, writes: Sequence[Write], seen: Position) -> Sequence[Stored | IdempotencyConflict]:
        """Store these publishes in one call of the script."""
        status, _, results = await self._run(writes, seen)
        if status == "settling":
            raise LogUnavailable(f"{self._shown} was restarted or replaced: its nodes report what they have seen")
        return [
            _result(write, is_new, receipt)
            for write, is_new, receipt in zip(writes, results[::2], results[1::2], strict=True)
        ]

    async def send(self, note: bytes) -> None:
        """Publish a note to the nodes that listen."""
        with self._errors():
            await self._redis.publish(self._channel_name, note)

    async def receive(self) -> AsyncGenerator[bytes]:
        """Yield an empty note when subscribed, and then what is published."""
        async with self._redis.pubsub() as subscription:
            with self._errors():
                await subscription.subscribe(self._channel_name)
            while True:
                with self._errors():
                    message = await subscription.get_message(timeout=_BLOCK_MS / 1000)
                if message is None:
                    continue
                if message["type"] != "message":
                    yield b""
                elif message["data"]:  # An empty note has a meaning of its own.
                    yield message["data"]

    async def close(self) -> None:
        """Disconnect."""
        if self._clients is not None:
            await self._clients.close()
            self._clients = None

    @property
    def _redis(self) -> Redis:
        if self._clients is None:
            raise NotRunning
        return self._clients.redis

    async def _run(self, writes: Sequence[Write], seen: Position) -> tuple[str, State, list[Any]]:
        """Call the script."""
        max_age_ms = round(self._retention.max_age * 1000)
        keys = [f"{self._prefix}:life", f"{self._prefix}:messages"]
        arguments: list[str | bytes | int] = [
            *(seen.epoch, seen.latest, seen.unix_ms),
            *(secrets.token_urlsafe(9), self._first_number or 0),
            *(self._retention.max_messages, max_age_ms, SETTLE_MS),
        ]
        for write in writes:
            keys.append(f"{self._prefix}:receipt:{write.key or write.id}")
            arguments += [write.fingerprint.hex(), max_age_ms if write.key else _RETRY_MS, len(write.drafts)]
            arguments += map(encode_draft, write.drafts)
        with self._errors():
            answer = await self._script(keys=keys, args=arguments, client=self._redis)
        status, epoch, first, oldest, latest, now_ms = (value.decode() for value in answer[:6])
        kept = max(int(oldest), int(latest) + 1 - self._retention.max_messages)
        return status, State(epoch, int(first), kept, int(latest), float(now_ms)), answer[6:]

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Tell the errors of the client and of the network in the words of a log."""
        try:
            yield
        except (RedisError, OSError) as error:
            raise LogUnavailable(f"{self._shown}: {error}") from error


def _records(found: list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]) -> list[Record]:
    """Return the messages in what XREAD has found in the one stream."""
    [(_, entries)] = found
    return [
        Record(int(entry_id.partition(b"-")[0]), int(fields[b"ms"]), decode_draft(fields[b"draft"]))
        for entry_id, fields in entries
    ]


def _result(write: Write, is_new: int, receipt: bytes) -> Stored | IdempotencyConflict:
    first, count, unix_ms, epoch, fingerprint = receipt.decode().split(" ")
    if fingerprint != write.fingerprint.hex():
        return IdempotencyConflict()
    # Without a key, nobody else can have published it: an earlier attempt of the same publish has.
    return Stored(
        Receipt(int(first), int(count), epoch, rfc3339(int(unix_ms) / 1000)), new=bool(is_new) or write.key is None
    )


def _check_version(info: dict[str, Any]) -> None:
    version = str(info["redis_version"])
    if tuple(map(int, version.split(".")[:2])) < OLDEST_VERSION:
        oldest = ".".join(map(str, OLDEST_VERSION))
        raise ConfigurationError(f"UNMISSED_LOG_URL: Redis {version} is too old: {oldest} or newer is needed")


def _warn_about_evictions(memory: dict[str, Any]) -> None:
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and memory.get("maxmemory"):
        logger.warning(
            "Redis may evict the log, which begins a new epoch: set its maxmemory-policy to noeviction, not %s", policy
        )
