"""The scenarios: idle memory, fan-out, bursts, event streams, handshakes, a reconnect of all clients, recoveries."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvloop

from unmissed.lab.bench.figures import Figure, as_json, percentile, table
from unmissed.lab.bench.load import CALM_CLIENTS, CALM_PER_SECOND, Crowd, calm_clients, publish, request
from unmissed.lab.bench.target import Target, load_on_other_cores, local
from unmissed.lab.process import ManagedProcess

_WARM_UP = 50
_MISSED = 10
_BURST = 64
_LOG = 500
_MISSED_IN_STORM = 100
_RECOVERIES = 3_000
_RECOVERING = 16

PlotFigures = Callable[[dict[str, Sequence[Figure]]], None]


@dataclass(frozen=True, slots=True)
class Workload:
    """The size of the load: connections, messages, and bytes of padding in each message."""

    connections: int = 1_000
    messages: int = 200
    size: int = 200


class Stopwatch:
    """Measures wall time and the CPU time of the server."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._cpu, self._clock = target.cpu_seconds(), time.perf_counter()

    def figures(self, scenario: str, of: str, *, count: int) -> list[Figure]:
        """Return the average CPU time of ``count`` operations if it can be measured, and their rate."""
        seconds, cpu = time.perf_counter() - self._clock, self._target.cpu_seconds() - self._cpu
        rate = Figure(scenario, f"rate of {of}", "1/s", count / seconds)
        return [Figure(scenario, f"CPU of a {of}", "us", cpu / count * 1e6), rate] if self._target.process else [rate]


async def measure(target: Target, load: Workload, *, show: Callable[[str], None]) -> list[Figure]:
    """Run every scenario that the server supports, one after the other, and return the figures."""
    figures: list[Figure] = []
    async for found in _scenarios(target, load):
        show(f"{target.name}: {found[0].scenario} done")
        figures += found
    return figures


async def _scenarios(target: Target, load: Workload) -> AsyncIterator[list[Figure]]:
    crowd, streams = Crowd(target), Crowd(target, transport="events")
    if target.process:
        yield await _memory("idle connection", target.process, crowd, load)
        if target.recovers:
            # While the WebSockets are still connected: otherwise the streams would use their memory again.
            yield await _memory("idle event stream", target.process, streams, load)
            await streams.leave()
    else:
        await crowd.join(_WARM_UP + load.connections)
    yield await _fan_out("one at a time", target, crowd, load, in_flight=1)
    yield await _fan_out(f"{_BURST} at a time", target, crowd, load, in_flight=_BURST)
    await crowd.leave()
    yield await _connects(target, crowd, load)
    await crowd.leave()
    if target.recovers:
        await streams.join(_WARM_UP + load.connections)
        yield await _fan_out("event streams, one at a time", target, streams, load, in_flight=1)
        yield await _fan_out(f"event streams, {_BURST} at a time", target, streams, load, in_flight=_BURST)
        await streams.leave()
        await publish(target, count=_LOG, size=load.size, in_flight=_BURST)
        for missed in (_LOG, _MISSED):
            yield await _recoveries(target, missed=missed)
        yield await _storm(target, load)


async def _memory(name: str, server: ManagedProcess, crowd: Crowd, load: Workload) -> list[Figure]:
    """Connect all clients, and measure the memory of an idle connection."""
    await crowd.join(_WARM_UP)
    before = server.resident_bytes
    await crowd.join(load.connections)
    await asyncio.sleep(0.5)
    each = (server.resident_bytes - before) / load.connections
    return [Figure("memory", name, "kB", each / 1_000)]


async def _fan_out(scenario: str, target: Target, crowd: Crowd, load: Workload, *, in_flight: int) -> list[Figure]:
    """Publish to all clients, ``in_flight`` messages at a time, and wait until every message is delivered."""
    meter = crowd.meter
    meter.late.clear()
    deliveries = len(crowd) * load.messages
    watch = Stopwatch(target)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(meter.expect(meter.messages + deliveries))
        tasks.create_task(publish(target, count=load.messages, size=load.size, in_flight=in_flight))
    return [
        *watch.figures(scenario, "delivery", count=deliveries),
        Figure(scenario, "latency p50", "ms", percentile(meter.late, 0.5) * 1e3),
        Figure(scenario, "latency p99", "ms", percentile(meter.late, 0.99) * 1e3),
    ]


async def _connects(target: Target, crowd: Crowd, load: Workload) -> list[Figure]:
    """Connect all clients, each with a token and, if the server supports recovery, with ten missed messages."""
    query = ""
    if target.recovers:
        await publish(target, count=_MISSED, size=load.size)
        query = f"?since={_latest(target) - _MISSED}"
    watch = Stopwatch(target)
    await crowd.join(load.connections, query=query)
    return watch.figures("connect", "handshake", count=load.connections)


async def _recoveries(target: Target, *, missed: int) -> list[Figure]:
    """Request the missed messages repeatedly over a few connections."""
    path = f"/websocket/messages?since={_latest(target) - missed}"
    each = _RECOVERIES // _RECOVERING
    watch = Stopwatch(target)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(_RECOVERING):
            tasks.create_task(request(target, "GET", bytes, count=each, in_flight=2, path=path))
    return watch.figures(f"recovery of {missed}", "recovery", count=each * _RECOVERING)


async def _storm(target: Target, load: Workload) -> list[Figure]:
    """Let all clients reconnect at once, each with many missed messages, beside a publisher and calm clients."""
    query = f"?since={_latest(target) - _MISSED_IN_STORM}"
    async with calm_clients(target, size=load.size) as result:
        returning = Crowd(target)
        started = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(returning.meter.expect(load.connections * _MISSED_IN_STORM))
            tasks.create_task(returning.join(load.connections, query=query, at_once=load.connections))
        seconds = time.perf_counter() - started
        calm = result()
    await returning.leave()
    return [
        Figure("reconnect storm", "all are back after", "s", seconds),
        Figure(
            "reconnect storm", f"latency p99 of {CALM_CLIENTS} calm clients", "ms", percentile(calm.late, 0.99) * 1e3
        ),
        Figure("reconnect storm", f"publisher of {CALM_PER_SECOND}/s", "1/s", calm.published_per_second),
    ]


def _latest(target: Target) -> int:
    url = f"http://{target.host}:{target.port}/websocket/messages?limit=1"
    latest: int = httpx.get(url, headers={"Authorization": f"Bearer {target.token}"}).json()["latest"]
    return latest


def bench(
    load: Workload,
    *,
    target: Target | None,
    compare: str | None,
    json_file: Path | None,
    plot: PlotFigures | None,
    show: Callable[[str], None],
) -> None:
    """Measure ``target``, or else a new server and then ``compare``; show, save and plot the figures.

    Both servers are measured in one run, on the same core, so that the ratios mean something.
    """
    runs: dict[str, Sequence[Figure]] = {}
    with load_on_other_cores() as core:
        if target is not None:
            runs[target.name] = _run(target, load, show=show)
        else:
            for name in ("unmissed", *([compare] if compare else [])):
                with local(name, core=core) as own:
                    runs[name] = _run(own, load, show=show)
    show(f"\n{table(runs)}")
    if json_file is not None:
        json_file.write_text(as_json(runs))
    if plot is not None:
        plot(runs)


def _run(target: Target, load: Workload, *, show: Callable[[str], None]) -> list[Figure]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measure(target, load, show=show))
