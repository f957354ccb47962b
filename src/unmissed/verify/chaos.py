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


class ProcessFault(StrEnum):
    """What happens to a process."""

    KILL = "kill -9 of a node"
    SUSPEND = "suspension of a node"
    RESTART = "restart of a node"
    KILL_ENGINE = "kill -9 of the engine"


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """One fault. Times are in seconds."""

    pause: float
    """How long everything runs before."""
    fault: ProcessFault
    target: int
    """The index of the node or of the process of the engine."""
    down: float
    """How long the process is suspended, or not started again."""


def planned(chance: random.Random, *, seconds: float, nodes: int, engines: int) -> Iterator[PlannedFault]:
    """Yield faults without end for a run of so many seconds. The first kills a node, the second the engine, if any."""
    faults = [*ProcessFault] if engines else [ProcessFault.KILL, ProcessFault.SUSPEND, ProcessFault.RESTART]
    first = [ProcessFault.KILL, ProcessFault.KILL_ENGINE] if engines else [ProcessFault.KILL]
    for index, fault in enumerate(chain(first, iter(lambda: chance.choice(faults), None))):
        pause = chance.uniform(_LEAST_PAUSE, _MOST_PAUSE) if index else _FIRST_SHARE * seconds
        target = chance.randrange(engines if fault is ProcessFault.KILL_ENGINE else nodes)
        yield PlannedFault(pause, fault, target, chance.uniform(_LEAST_DOWN, _MOST_DOWN))


async def inject(
    cluster: Cluster, plan: Iterable[PlannedFault], *, seconds: float, note: Callable[[str, str], None]
) -> None:
    """Carry out a plan until shortly before the end of a run, one fault at a time. Everything runs again then."""
    loop = asyncio.get_running_loop()
    last = loop.time() + _LAST_SHARE * seconds
    for each in plan:
        if loop.time() + each.pause > last:
            return
        await asyncio.sleep(each.pause)
        await _carry_out(each, cluster, note)


async def _carry_out(each: PlannedFault, cluster: Cluster, note: Callable[[str, str], None]) -> None:
    if each.fault is ProcessFault.KILL_ENGINE and cluster.engine is not None:
        leader = await cluster.engine.leader()
        process = cluster.engine.processes[each.target if leader is None else leader]
    else:
        process = cluster.nodes[each.target]
    note(each.fault, process.name)
    if each.fault is ProcessFault.SUSPEND:
        process.suspend()
        await asyncio.sleep(each.down)
        process.resume()
        return
    await (process.terminate() if each.fault is ProcessFault.RESTART else process.kill())
    await asyncio.sleep(each.down)
    await process.start()
