"""The scenarios: memory, fan-out, event streams, handshakes, publishes, recoveries, and a reconnect of all clients."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial

import httpx

from unmissed.lab.bench.figures import Figure, percentile
from unmissed.lab.bench.load import (
    CALM_CLIENTS,
    CALM_PER_SECOND,
    Crowd,
    body_of,
    calm_clients,
    publish,
    publishing,
    request,
)
from unmissed.lab.bench.target import Target
from unmissed.lab.process import ManagedProcess

_WARM_UP = 50
_MISSED = 10
_BURST = 64
_LOG = 500
_MISSED_IN_STORM = 100
_RECOVERING = 16
_BATCH = 100
_PACED_CLIENTS = 100
_PACED_PER_SECOND = 100
_CALM_DELIVERIES_PER_SECOND = 20


@dataclass(frozen=True, slots=True)
class Workload:
    """The size of the load: connections, messages to each of them, and bytes of padding in each message."""

    connections: int = 1_000
    messages: int = 200
    size: int = 200

    @property
    def requests(self) -> int:
        """How many requests are measured where no connection gets messages."""
        return self.messages * 15

    @property
    def paced_seconds(self) -> float:
        """How long messages are published at a steady rate."""
        return self.messages / 40


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
    if target.recovers:
        # With all clients connected, none of whom it is for.
        yield await _publishes("publish to a user who is away", target, load, make=partial(body_of, users=["away"]))
    await crowd.leave()
    yield await _connects(target, crowd, load)
    await crowd.leave()
    if target.recovers:
        async for found in _publishing_alone(target, load):
            yield found
        await streams.join(_WARM_UP + load.connections)
        yield await _fan_out("event streams, one at a time", target, streams, load, in_flight=1)
        yield await _fan_out(f"event streams, {_BURST} at a time", target, streams, load, in_flight=_BURST)
        await streams.leave()
        await publish(target, count=_LOG, size=load.size, in_flight=_BURST)
        for missed in (_LOG, _MISSED):
            yield await _recoveries(target, load, missed=missed)
        yield await _storm(target, load)


async def measure_log(target: Target, load: Workload, *, show: Callable[[str], None]) -> list[Figure]:
    """Run the scenarios in which logs differ, and return the figures: publishes, and deliveries at a calm rate."""
    figures: list[Figure] = []
    async for found in _log_scenarios(target, load):
        show(f"{target.name}: {found[0].scenario} done")
        figures += found
    return figures


async def _log_scenarios(target: Target, load: Workload) -> AsyncIterator[list[Figure]]:
    async for found in _publishing_alone(target, load):
        yield found
    crowd = Crowd(target)
    await crowd.join(_PACED_CLIENTS)
    yield await _paced(target, crowd, load, per_second=_PACED_PER_SECOND)
    await crowd.join(max(0, load.connections - _PACED_CLIENTS))
    yield await _paced(target, crowd, load, per_second=_CALM_DELIVERIES_PER_SECOND)
    await crowd.leave()


async def _publishing_alone(target: Target, load: Workload) -> AsyncIterator[list[Figure]]:
    """Publish without a client, so that only the log and the request are measured."""
    yield await _publishes("publish, one at a time", target, load)
    yield await _publishes(f"publish, {_BURST} at a time", target, load, in_flight=_BURST)
    yield await _publishes(f"publish, batches of {_BATCH}", target, load, batch=_BATCH)


async def _publishes(
    scenario: str,
    target: Target,
    load: Workload,
    *,
    in_flight: int = 1,
    batch: int = 0,
    make: Callable[[int], bytes] = body_of,
) -> list[Figure]:
    """Publish messages, or arrays of ``batch`` messages, on ``in_flight`` connections that wait for each answer."""

    def body() -> bytes:
        return b"[%b]" % b",".join(make(load.size) for _ in range(batch)) if batch else make(load.size)

    each = max(1, (load.messages // 2 if batch else load.requests) // in_flight)
    watch = Stopwatch(target)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(in_flight):
            tasks.create_task(request(target, "POST", body, count=each))
    return watch.figures(scenario, "message", count=each * in_flight * (batch or 1))


async def _paced(target: Target, crowd: Crowd, load: Workload, *, per_second: int) -> list[Figure]:
    """Publish to all clients at a steady rate that the server can follow."""
    meter = crowd.meter
    scenario = f"{per_second} messages a second to {len(crowd)} clients"
    async with publishing(target, per_second=per_second, size=load.size):
        meter.late.clear()
        before = meter.messages
        watch = Stopwatch(target)
        await asyncio.sleep(load.paced_seconds)
        figures = watch.figures(scenario, "delivery", count=max(1, meter.messages - before))
    return [*figures, Figure(scenario, "latency p50", "ms", percentile(meter.late, 0.5) * 1e3)]


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


async def _recoveries(target: Target, load: Workload, *, missed: int) -> list[Figure]:
    """Request the missed messages repeatedly over a few connections."""
    path = f"/websocket/messages?since={_latest(target) - missed}"
    each = max(1, load.requests // _RECOVERING)
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
