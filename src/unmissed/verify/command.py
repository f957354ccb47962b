"""The command: starts the server if needed, runs, and reports."""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from rich.console import Console

from unmissed.core.window import Retention
from unmissed.verify.cluster import Cluster, Setup, started
from unmissed.verify.credentials import Credentials, ManyUsers, OneUser
from unmissed.verify.figures import plot, require_matplotlib
from unmissed.verify.participants import Load
from unmissed.verify.progress import shown
from unmissed.verify.promises import Rules
from unmissed.verify.proxied import Address
from unmissed.verify.recorder import Recorder
from unmissed.verify.report import show
from unmissed.verify.run import run

KEPT, BROKEN, VOID = 0, 1, 2
"""The exit codes: every promise was kept, one was broken, or the run proves nothing."""

_LARGEST_BYTES = 4_096
"""More than any message of a run takes in the log."""


def verify(
    load: Load, setup: Setup, *, urls: Sequence[str], token: str | None, retention: Retention, plot_file: Path | None
) -> int:
    """Verify the server at ``urls``, or else one that is started as ``setup`` says, and return the exit code.

    Raises ConfigurationError and ConnectionRefused.
    """
    if plot_file is not None:
        require_matplotlib()
    before = signal.getsignal(signal.SIGTERM)
    try:
        return asyncio.run(_verify(load, setup, urls=urls, token=token, retention=retention, plot_file=plot_file))
    finally:
        signal.signal(signal.SIGTERM, before)


async def _verify(
    load: Load, setup: Setup, *, urls: Sequence[str], token: str | None, retention: Retention, plot_file: Path | None
) -> int:
    # Ctrl+C cancels the main task of asyncio.run, which ends the processes. Make SIGTERM do the same.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    console, recorder = Console(), Recorder()
    epoch_may_change = may_lose_its_log(setup, chaos=load.chaos, foreign=bool(urls))
    fitting = min(retention.max_messages, retention.max_bytes // _LARGEST_BYTES)
    rules = Rules(fitting, retention.max_age, epoch_may_change=epoch_may_change)
    console.print(f"unmissed verify --seed {load.seed}", highlight=False)
    async with _server(setup, urls) as cluster, shown(console, recorder, seconds=load.seconds):
        credentials = _credentials(cluster, token)
        result = await run(cluster, load, credentials=credentials, rules=rules, recorder=recorder)
    show(console, result, recorder, seed=load.seed)
    if plot_file is not None:
        plot(recorder, plot_file)
    if not result.broken:
        return VOID
    return BROKEN if result.violations else KEPT


def may_lose_its_log(setup: Setup, *, chaos: bool, foreign: bool) -> bool:
    """Return whether a new epoch is legitimate: only a log in memory may be lost, and only with its process."""
    in_memory = setup.log == "memory" or not setup.engine_persistence
    return in_memory and (chaos or foreign)


@asynccontextmanager
async def _server(setup: Setup, urls: Sequence[str]) -> AsyncIterator[Cluster]:
    if urls:
        yield Cluster([Address.of(url) for url in urls])
        return
    async with started(setup) as cluster:
        yield cluster


def _credentials(cluster: Cluster, token: str | None) -> Credentials:
    if cluster.secret is not None:
        return ManyUsers.of_secret(cluster.secret)
    return OneUser(token) if token else ManyUsers.of_settings()
