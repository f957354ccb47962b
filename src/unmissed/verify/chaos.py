"""Kills, suspends and restarts the processes of a run, by a plan that the seed decides."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from unmissed.verify.cluster import Cluster

_FIRST_SHARE, _LAST_SHARE = 0.15, 0.85
_EVERY_SECONDS = 3.0
_LEAST_SECONDS, _MOST_SECONDS = 0.1, 2.5


class Blow(StrEnum):
    """What happens to a process."""

    KILL = "kill -9 of a node"
    SUSPEND = "suspension of a node"
    RESTART = "restart of a node"
    KILL_ENGINE = "kill -9 of the engine"


@dataclass(frozen=True, slots=True)
class Strike:
    """One blow: seconds after the start at the earliest, which process, and how long until it runs again."""

    at: float
    blow: Blow
    target: int
    seconds: float


def planned(chance: random.Random, *, seconds: float, nodes: int, engines: int) -> list[Strike]:
    """Return the strikes of a run of so many seconds, in order. The first is always a kill."""
    blows = [Blow.KILL, Blow.SUSPEND, Blow.RESTART, *([Blow.KILL_ENGINE] * 2 if engines else [])]
    strikes: list[Strike] = []
    at = _FIRST_SHARE * seconds
    while at <= _LAST_SHARE * seconds:
        blow = chance.choice(blows) if strikes else Blow.KILL
        target = chance.randrange(engines if blow is Blow.KILL_ENGINE else nodes)
        strikes.append(Strike(at, blow, target, chance.uniform(_LEAST_SECONDS, _MOST_SECONDS)))
        at += chance.uniform(0.5, 1.5) * _EVERY_SECONDS
    return strikes


async def strike(cluster: Cluster, strikes: Sequence[Strike], *, note: Callable[[str, str], None]) -> None:
    """Carry out a plan, one strike after the other. Everything runs again when it returns."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    for each in strikes:
        await asyncio.sleep(started + each.at - loop.time())
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
        await asyncio.sleep(each.seconds)
        process.resume()
        return
    await (process.terminate() if each.blow is Blow.RESTART else process.kill())
    await asyncio.sleep(each.seconds)
    await process.start()
