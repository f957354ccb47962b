"""What a Redis server loses if it fails, and how to wait until a change is on its disk."""

import asyncio
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

_POLL_SECONDS = 0.02
_EVERY_SECOND_MS = 2_000
"""With ``appendfsync everysec``, a command is on the disk after a second. Redis blocks before it is late by another."""


@dataclass(frozen=True, slots=True)
class Durability:
    """What a server that fails has kept.

    ``keeps_all``: everything that it has answered. ``hold_ms``: the milliseconds after which a change is on its disk.
    ``can_mark``: whether that is known. Otherwise, an orderly close leaves no mark.
    """

    keeps_all: bool = False
    hold_ms: int = 0
    can_mark: bool = False
    saves: bool = False
    """Whether the disk has snapshots only, so that a change must be saved."""


async def durability_of(redis: Redis) -> Durability:
    """Return what the settings of the server say. A server that hides them may lose anything."""
    try:
        info: dict[str, Any] = await redis.info("persistence")
        settings = {**await redis.config_get("appendfsync"), **await redis.config_get("save")}
    except RedisError:
        return Durability()
    if not info.get("aof_enabled"):
        has_snapshots = bool(settings.get("save"))
        return Durability(hold_ms=_EVERY_SECOND_MS if has_snapshots else 0, can_mark=has_snapshots, saves=has_snapshots)
    match settings.get("appendfsync"):
        case "always":
            return Durability(keeps_all=True)
        case "everysec":
            return Durability(hold_ms=_EVERY_SECOND_MS, can_mark=True)
        case _:
            return Durability()


async def save(redis: Redis, *, seconds: float) -> bool:
    """Save a snapshot that has everything up to now, and return whether that was done in so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    await redis.bgsave()
                    break
                except RedisError as error:
                    # A snapshot that is being saved may have begun too early.
                    if "in progress" not in str(error):
                        return False
                    await asyncio.sleep(_POLL_SECONDS)
            while (info := await redis.info("persistence"))["rdb_bgsave_in_progress"]:
                await asyncio.sleep(_POLL_SECONDS)
    except (TimeoutError, RedisError, OSError):
        return False
    return bool(info["rdb_last_bgsave_status"] == "ok")
