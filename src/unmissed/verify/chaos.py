"""Kills, suspends and restarts the processes of a run, by a plan that the seed decides."""

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain

from unmissed.verify.cluster import Cluster

_FIRST_SHARE, _LAST_SHARE = 0.2, 0.85
_LEAST_PAUSE, _MOST_PAUSE = 0.5, 3.0
_LEAST_DOWN, _MOST_DOWN = 0.1, 2.5


class Blow(StrEnum):
    """What happens to a process."""

    KILL = "kill -9 of a node"
    SUSPEND = "suspension of a node"
    RESTART = "restart of a node"
    KILL_ENGINE = "kill -9 of the engine"


@dataclass(frozen=True, slots=True)
class Strike:
    """One blow. Times are in seconds."""

    pause: float
    """How long everything runs before."""
    blow: Blow
    target: int
    """The index of the node or of the process of the engine."""
    down: float
    """How long the process is suspended, or not started again."""


def planned(chance: random.Random, *, seconds: float, nodes: int, engines: int) -> Iterator[Strike]:
    """Yield strikes without end for a run of so many seconds. The first kills a node, the second the engine, if any."""
    blows = [*Blow] if engines else [Blow.KILL, Blow.SUSPEND, Blow.RESTART]
    first = [Blow.KILL, Blow.KILL_ENGINE] if engines else [Blow.KILL]
    for index, blow in enumerate(chain(first, iter(lambda: chance.choice(blows), None))):
        pause = chance.uniform(_LEAST_PAUSE, _MOST_PAUSE) if index else _FIRST_SHARE * seconds
        target = chance.randrange(engines if blow is Blow.KILL_ENGINE else nodes)
        yield Strike(pause, blow, target, chance.uniform(_LEAST_DOWN, _MOST_DOWN))


async def strike(
    cluster: Cluster, strikes: Iterable[Strike], *, seconds: float, note: Callable[[str, str], None]
) -> None:
    """Carry out strikes, one after the other, until shortly before the end of a run. Everything runs again then."""
    loop = asyncio.get_running_loop()
    last = loop.time() + _LAST_SHARE * seconds
    for each in strikes:
        if loop.time() + each.pause > last:
            return
        await asyncio.sleep(each.pause)
        await _carry_out(each, cluster, note)


async def _carry_out(each: Strike, cluster: Cluster, note: Callable[[str, str], None]) -> None:
    if each.blow is Blow.KILL_ENGINE and cluster.engine is not None:
        leader = await cluster.engine.leader()
        process = cluster.engine.processes[each.target if leader is None else leader]
    else:
        process = cluster.nodes[each.target]
    note(each.blow, process.name)
    if each.blow is Blow.SUSPEND:
        process.suspend()
        await asyncio.sleep(each.down)
        process.resume()
        return
    await (process.terminate() if each.blow is Blow.RESTART else process.kill())
    await asyncio.sleep(each.down)
    await process.start()
