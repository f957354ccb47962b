"""One verification: starts the server if needed, disturbs it for some time, lets it recover, judges, and reports."""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Any

import httpx
from rich.console import Console

from unmissed.core.errors import ConfigurationError, ConnectionRefused
from unmissed.core.retention import Retention, Rule, rules_from
from unmissed.lab.faults import drawn, planned
from unmissed.lab.proxy import FaultProxy
from unmissed.lab.verify.chaos import carry_out
from unmissed.lab.verify.database_writers import Transactions
from unmissed.lab.verify.deployment import Deployment, NodeAddress, ProxiedNode, Setup, bearer, started
from unmissed.lab.verify.facts import Addressees, Recorder
from unmissed.lab.verify.judge import check
from unmissed.lab.verify.participants import BROKEN, Credentials, ManyUsers, OneUser, Participants, RunPlan
from unmissed.lab.verify.promises import Findings, Promise, Rules, Violation
from unmissed.lab.verify.publishers import Wish
from unmissed.lab.verify.report import show, shown
from unmissed.security.redaction import redact
from unmissed.tasks import cancelled_by_sigterm, end

EXIT_KEPT, EXIT_BROKEN, EXIT_VOID = 0, 1, 2
"""The exit codes: every promise was kept, one was broken, or the run proves nothing."""

_LARGEST_BYTES = 4_096
"""More than any message of a run takes in the log."""

_OF_BROKEN = (Promise.NO_SILENT_LOSS, Promise.RULES)
"""What a client breaks that loses messages: after a gap or a reset, what it loses counts as not retained."""

_RULES = "verify.rooms.*=20/1h, @*=30/1h"
"""How the nodes of a run retain messages, unless the environment says it."""

_SETTLE_SECONDS = 30.0
_ANSWER_SECONDS = 5.0

PlotRun = Callable[[Recorder], None]


def verify(
    plan: RunPlan, setup: Setup, *, urls: Sequence[str], token: str | None, retention: Retention, plot: PlotRun | None
) -> int:
    """Verify the server at ``urls``, or else one that is started according to ``setup``, and return the exit code.

    Raises ConfigurationError and ConnectionRefused.
    """
    recorder = Recorder()
    try:
        findings = asyncio.run(_verify(plan, setup, urls=urls, token=token, retention=retention, recorder=recorder))
    except asyncio.CancelledError:
        # SIGTERM ends a run as Ctrl+C does.
        raise KeyboardInterrupt from None
    if plot is not None:
        plot(recorder)
    if not findings.broken:
        return EXIT_VOID
    return EXIT_BROKEN if findings.violations else EXIT_KEPT


async def _verify(
    plan: RunPlan, setup: Setup, *, urls: Sequence[str], token: str | None, retention: Retention, recorder: Recorder
) -> Findings:
    console = Console()
    if not urls and not retention.rules:
        retention = replace(retention, rules=rules_from(_RULES))
    fitting = min(retention.max_messages, retention.max_bytes // _LARGEST_BYTES)
    may_change = setup.may_lose_its_log(chaos=plan.chaos, foreign=bool(urls))
    restarts = plan.chaos and not urls
    rules = Rules(
        retention,
        fitting,
        epoch_may_change=may_change,
        restarts=restarts,
        has_past=bool(urls),
        several_nodes=max(setup.nodes, len(urls)) > 1,
    )
    console.print(f"unmissed verify --seed {plan.seed}", highlight=False)
    with cancelled_by_sigterm():
        async with (
            _deployment(setup, urls, retention.rules) as deployment,
            shown(console, recorder, seconds=plan.seconds),
        ):
            credentials = _credentials(deployment, token)
            running = asyncio.create_task(
                run(deployment, plan, credentials=credentials, rules=rules, recorder=recorder)
            )
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError:
                # The processes end first: on a busy machine, they take the CPU time that the end of the clients needs.
                deployment.kill()
                running.cancel()
                await asyncio.wait([running])
                raise
    findings = running.result()
    show(console, findings, recorder, seed=plan.seed)
    return findings


@asynccontextmanager
async def _deployment(setup: Setup, urls: Sequence[str], rules: Sequence[Rule]) -> AsyncIterator[Deployment]:
    if urls:
        yield Deployment([NodeAddress.of(url) for url in urls])
        return
    async with started(setup, rules) as deployment:
        yield deployment


def _credentials(deployment: Deployment, token: str | None) -> Credentials:
    if deployment.secret is not None:
        return ManyUsers.of_secret(deployment.secret)
    return OneUser(token) if token else ManyUsers.of_settings()


async def run(
    deployment: Deployment, plan: RunPlan, *, credentials: Credentials, rules: Rules, recorder: Recorder
) -> Findings:
    """Disturb a server, and judge. Raises ConfigurationError without a server, ConnectionRefused for its refusal."""
    await _check_access(deployment, credentials)
    chance = random.Random(plan.seed)
    async with _proxied(deployment, chance, recorder) as nodes, _http() as http:
        transactions = Transactions(deployment.database, recorder=recorder) if deployment.database else None
        participants = Participants(
            nodes,
            plan,
            credentials=credentials,
            chance=chance,
            recorder=recorder,
            http=http,
            transactions=transactions,
        )
        if transactions is not None:
            await transactions.create_table()
        await _disturb(deployment, plan, participants, nodes=nodes, chance=chance, recorder=recorder)
        silence = await _settle(participants)
    found = check(recorder.facts, witnesses=recorder.witnesses.values(), rules=rules, broken=BROKEN)
    broken = [each for each in found if each.client == BROKEN and each.promise in _OF_BROKEN]
    return Findings([*silence, *(each for each in found if each not in broken)], broken)


async def _check_access(deployment: Deployment, credentials: Credentials) -> None:
    """Request a page from each node, without faults."""
    token = credentials.token(credentials.witness("first", random.Random(0)))
    async with httpx.AsyncClient(trust_env=False) as http:
        for address in deployment.addresses:
            url = f"{address.messages_url}?limit=1"
            try:
                response = await http.get(url, headers=bearer(token), timeout=_ANSWER_SECONDS)
            except httpx.HTTPError as error:
                raise ConfigurationError(f"there is no server at {address.host}:{address.port}: {error}") from None
            if response.status_code != HTTPStatus.OK:
                raise ConnectionRefused(response.status_code, redact(response.text))


@asynccontextmanager
async def _proxied(
    deployment: Deployment, chance: random.Random, recorder: Recorder
) -> AsyncIterator[list[ProxiedNode]]:
    async with AsyncExitStack() as stack:
        nodes = []
        for index, address in enumerate(deployment.addresses):
            draw = partial(drawn, random.Random(chance.random()))
            note = partial(recorder.note, target=f"proxy-{index}")
            proxy = FaultProxy(address.host, address.port, draw=draw, note=note)
            nodes.append(ProxiedNode(address, await stack.enter_async_context(proxy.serving())))
        yield nodes


@asynccontextmanager
async def _http() -> AsyncIterator[Callable[[], httpx.AsyncClient]]:
    """Yield a function that creates HTTP clients, and close them afterwards. They share one TLS context."""
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
    deployment: Deployment,
    plan: RunPlan,
    participants: Participants,
    *,
    nodes: Sequence[ProxiedNode],
    chance: random.Random,
    recorder: Recorder,
) -> None:
    """Cause faults for the time of the run. Return when all processes run, and clients and publishers have ended."""
    async with (
        _running([each.run() for each in (*participants.clients, participants.edge_clients)]) as reading,
        _running([each.run() for each in participants.sources]) as publishing,
    ):
        async with (
            _running(_network_faults(plan, participants, nodes=nodes, chance=chance)) as network_faults,
            _running([_sabotage(deployment, plan, chance=chance, recorder=recorder)]) as process_faults,
        ):
            await _watch([*reading, *publishing, *network_faults, *process_faults], seconds=plan.seconds)
            # A process may be down just now. It runs again before the network is repaired.
            await asyncio.gather(*process_faults)
        # Publishers stop after the repair: they repeat a request until it is acknowledged.
        for node in nodes:
            node.proxy.calm()
        for publisher in participants.sources:
            publisher.stop()
        await _watch(publishing, seconds=_SETTLE_SECONDS)


def _network_faults(
    plan: RunPlan, participants: Participants, *, nodes: Sequence[ProxiedNode], chance: random.Random
) -> list[Coroutine[Any, Any, None]]:
    """Return what cuts connections: those to the nodes, and those to the database."""
    faults = [each.proxy.disturb(random.Random(chance.random())) for each in nodes]
    if plan.chaos and participants.transactions is not None:
        faults.append(participants.transactions.end_backends(random.Random(chance.random())))
    return faults


async def _sabotage(deployment: Deployment, plan: RunPlan, *, chance: random.Random, recorder: Recorder) -> None:
    """Kill and suspend what the run started, if it may."""
    if plan.chaos and deployment.nodes:
        engines = len(deployment.engine.servers) if deployment.engine else 0
        faults = planned(chance, seconds=plan.seconds, nodes=len(deployment.nodes), engines=engines)
        await carry_out(faults, deployment, seconds=plan.seconds, note=recorder.note)


async def _settle(participants: Participants) -> list[Violation]:
    """Publish a last message, and wait until every client has it. Return a violation if it cannot be published."""
    try:
        async with asyncio.timeout(_SETTLE_SECONDS):
            if participants.transactions is not None:
                # Before the last message, which has a higher number than what was committed until then.
                await participants.transactions.settle()
            marker = await participants.publishers[0].publish([Wish(Addressees())])
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
        # A library may swallow a cancellation, after which a client would continue for ever.
        await asyncio.gather(*map(end, tasks))
        # The first exception is raised by _watch, and those of other tasks are not reported.
        await asyncio.gather(*tasks, return_exceptions=True)
