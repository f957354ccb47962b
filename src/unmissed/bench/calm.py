"""Calm clients beside a publisher, in their own process: the load of a storm would delay what they measure."""

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe

import uvloop

from unmissed.bench.load import Crowd, publishing
from unmissed.bench.server import Target

CLIENTS = 50
PUBLISHED_PER_SECOND = 50
_SETTLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Calm:
    """What the calm clients saw: the latencies of their messages in seconds, and the rate of the publisher."""

    late: list[float]
    published_per_second: float


@asynccontextmanager
async def calm_clients(target: Target, *, size: int) -> AsyncIterator[Callable[[], Calm]]:
    """Run the calm clients while the context is open. The function stops measuring and returns what they saw."""
    loop = asyncio.get_running_loop()
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    process = spawning.Process(target=_run, args=(target, size, theirs), daemon=True)
    process.start()
    theirs.close()

    def result() -> Calm:
        ours.send(None)
        seen: Calm = ours.recv()
        return seen

    try:
        await loop.run_in_executor(None, ours.recv)
        yield result
    finally:
        ours.close()
        process.join()


def _run(target: Target, size: int, pipe: Pipe) -> None:
    uvloop.run(_measure(target, size, pipe))


async def _measure(target: Target, size: int, pipe: Pipe) -> None:
    loop = asyncio.get_running_loop()
    crowd = Crowd(target)
    await crowd.join(CLIENTS)
    async with publishing(target, per_second=PUBLISHED_PER_SECOND, size=size) as publisher:
        await asyncio.sleep(_SETTLE_SECONDS)
        crowd.arrivals.late.clear()
        before, started = publisher.answered, time.perf_counter()
        pipe.send(None)
        await loop.run_in_executor(None, pipe.recv)
        rate = (publisher.answered - before) / (time.perf_counter() - started)
        await crowd.arrivals.expect(crowd.arrivals.messages + 1)
        pipe.send(Calm(crowd.arrivals.late, rate))
