"""One run: disturbs everything for some time, lets it recover, and checks the histories."""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

import httpx

from unmissed.core.errors import ConfigurationError, ConnectionRefused
from unmissed.security.redaction import redact
from unmissed.verify.chaos import inject, planned
from unmissed.verify.cluster import Cluster
from unmissed.verify.credentials import Credentials
from unmissed.verify.events import Audience
from unmissed.verify.history import check
from unmissed.verify.participants import BROKEN, Load, Participants
from unmissed.verify.promises import Promise, Rules, Violation
from unmissed.verify.proxied import ProxiedNode, bearer
from unmissed.verify.proxy import FaultProxy, drawn
from unmissed.verify.recorder import Recorder

_SETTLE_SECONDS = 30.0
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Result:
    """What a run found. ``broken`` are the losses of the broken client, which must be found."""

    violations: Sequence[Violation]
    broken: Sequence[Violation]


async def run(cluster: Cluster, load: Load, *, credentials: Credentials, rules: Rules, recorder: Recorder) -> Result:
    """Verify a server. Raises ConfigurationError if it is not there, and ConnectionRefused if it refuses a token."""
    await _check_access(cluster, credentials)
    chance = random.Random(load.seed)
    async with _nodes(cluster, chance, recorder) as nodes, _http() as http:
        participants = Participants(nodes, load, credentials=credentials, chance=chance, recorder=recorder, http=http)
        await _disturb(cluster, load, participants, nodes=nodes, chance=chance, recorder=recorder)
        silence = await _settle(participants)
    found = check(recorder.events, readers=recorder.readers.values(), rules=rules, broken=BROKEN)
    broken = [each for each in found if each.client == BROKEN and each.promise is Promise.NO_SILENT_LOSS]
    return Result([*silence, *(each for each in found if each not in broken)], broken)


async def _check_access(cluster: Cluster, credentials: Credentials) -> None:
    """Request a page from each node, without faults."""
    token = credentials.token(credentials.reader("first", random.Random(0)))
    async with httpx.AsyncClient(trust_env=False) as http:
        for address in cluster.addresses:
            url = f"{address.messages_url}?limit=1"
            try:
                response = await http.get(url, headers=bearer(token), timeout=_ANSWER_SECONDS)
            except httpx.HTTPError as error:
                raise ConfigurationError(f"there is no server at {address.host}:{address.port}: {error}") from None
            if response.status_code != HTTPStatus.OK:
                raise ConnectionRefused(response.status_code, redact(response.text))


@asynccontextmanager
async def _nodes(cluster: Cluster, chance: random.Random, recorder: Recorder) -> AsyncIterator[list[ProxiedNode]]:
    async with AsyncExitStack() as stack:
        nodes = []
        for index, address in enumerate(cluster.addresses):
            draw = partial(drawn, random.Random(chance.random()))
            note = partial(recorder.note, target=f"proxy-{index}")
            proxy = FaultProxy(address.host, address.port, draw=draw, note=note)
            nodes.append(ProxiedNode(address, await stack.enter_async_context(proxy.serving())))
        yield nodes


@asynccontextmanager
async def _http() -> AsyncIterator[Callable[[], httpx.AsyncClient]]:
    """Create HTTP clients with a function, and close them afterwards. They share what takes time to load."""
    context, clients = ssl.create_default_context(), list[httpx.AsyncClient]()

    def create() -> httpx.AsyncClient:
        clients.append(httpx.AsyncClient(verify=context, trust_env=False))
        return clients[-1]

    try:
        yield create
    finally:
        for client in clients:
            await client.aclose()


async def _disturb(
    cluster: Cluster,
    load: Load,
    participants: Participants,
    *,
    nodes: Sequence[ProxiedNode],
    chance: random.Random,
    recorder: Recorder,
) -> None:
    """Cause faults for the time of the run. When it returns, everything runs, and nobody is connected or publishes."""
    async with (
        _running([each.run() for each in (*participants.clients, participants.edge_clients)]) as reading,
        _running([each.run() for each in participants.publishers]) as publishing,
    ):
        async with (
            _running([each.proxy.disturb(random.Random(chance.random())) for each in nodes]) as network_faults,
            _running([_inject(cluster, load, chance=chance, recorder=recorder)]) as process_faults,
        ):
            await _watch([*reading, *publishing, *network_faults, *process_faults], seconds=load.seconds)
            await asyncio.gather(*process_faults)
        for node in nodes:
            node.proxy.calm()
        for publisher in participants.publishers:
            publisher.stop()
        await _watch(publishing, seconds=_SETTLE_SECONDS)


async def _inject(cluster: Cluster, load: Load, *, chance: random.Random, recorder: Recorder) -> None:
    """Kill and suspend what the run started, if it may."""
    if load.chaos and cluster.nodes:
        engines = len(cluster.engine.processes) if cluster.engine else 0
        plan = planned(chance, seconds=load.seconds, nodes=len(cluster.nodes), engines=engines)
        await inject(cluster, plan, seconds=load.seconds, note=recorder.note)


async def _settle(participants: Participants) -> list[Violation]:
    """Publish a last message, and wait until every client has it. Return a violation if it cannot be published."""
    try:
        async with asyncio.timeout(_SETTLE_SECONDS):
            marker = await participants.publishers[0].publish([Audience()])
    except TimeoutError:
        return [Violation(Promise.PUBLISH, f"nothing was acknowledged for {_SETTLE_SECONDS:g} s after the last fault")]
    async with _running([each.finish(marker) for each in participants.clients]) as finishing:
        await _watch(finishing, seconds=_SETTLE_SECONDS)
    return []


async def _watch(tasks: Sequence[asyncio.Task[None]], *, seconds: float) -> None:
    """Wait until all tasks are done, but at most for some time. Raises what one of them raises."""
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


@asynccontextmanager
async def _running(work: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run coroutines as tasks while the context is open, and cancel those that are not done then."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
