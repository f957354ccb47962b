"""Kills, suspends and restarts the processes of a deployment, according to a plan."""

import asyncio
import signal
from collections.abc import Callable, Iterable

from unmissed.lab.faults import PlannedFault, ProcessFault
from unmissed.lab.process import ManagedProcess
from unmissed.lab.verify.deployment import Deployment

_LAST_SHARE = 0.85

Note = Callable[[str, str], None]
"""Called with each fault that is carried out, and the name of its process."""


async def carry_out(plan: Iterable[PlannedFault], deployment: Deployment, *, seconds: float, note: Note) -> None:
    """Follow a plan until shortly before the end of a run of ``seconds``, one fault at a time.

    On return, all processes run again.
    """
    loop = asyncio.get_running_loop()
    last = loop.time() + _LAST_SHARE * seconds
    for each in plan:
        if loop.time() + each.pause > last:
            return
        await asyncio.sleep(each.pause)
        process = await _target(each, deployment)
        note(each.fault, process.name)
        await _inflict(each, process)


async def _target(each: PlannedFault, deployment: Deployment) -> ManagedProcess:
    """Return the process that a fault is for. Of a cluster, the leader is killed, if it has one."""
    engine = deployment.engine
    if each.fault is not ProcessFault.KILL_ENGINE or engine is None:
        return deployment.nodes[each.target]
    leader = await asyncio.to_thread(engine.leader)
    return engine.servers[each.target if leader is None else leader]


async def _inflict(each: PlannedFault, process: ManagedProcess) -> None:
    """Disturb a process, and return when it runs again."""
    match each.fault:
        case ProcessFault.SUSPEND:
            process.signal(signal.SIGSTOP)
            await asyncio.sleep(each.down)
            process.signal(signal.SIGCONT)
            return
        case ProcessFault.RESTART:
            await process.terminate()
        case ProcessFault.KILL | ProcessFault.KILL_ENGINE:
            process.kill()
    await asyncio.sleep(each.down)
    await process.launch()
