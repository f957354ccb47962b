"""One run of the benchmark: which servers and logs are measured, in which order, and where the figures go."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from unmissed.core.errors import ConfigurationError
from unmissed.lab.bench.figures import Figure, as_json, as_markdown, table
from unmissed.lab.bench.scenarios import Workload, measure, measure_log
from unmissed.lab.bench.target import BUILT_IN, Target, load_on_other_cores, local
from unmissed.lab.engine_servers import EngineServer, NatsServer, RedisServer
from unmissed.lab.postgres_servers import PostgresServer

Runs = dict[str, Sequence[Figure]]
PlotFigures = Callable[[Runs], None]
Measure = Callable[..., Awaitable[list[Figure]]]


@dataclass(frozen=True, slots=True)
class Subjects:
    """What is measured: a server that runs already, or new ones in turn, and also each log."""

    target: Target | None = None
    application: str | None = None
    """Such as ``shop.main:app``, in place of the built-in application."""
    compare: str | None = None
    logs: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """Where the figures go, besides the screen."""

    json_file: Path | None = None
    markdown_file: Path | None = None
    plot: PlotFigures | None = None


def bench(load: Workload, subjects: Subjects, output: Output, *, show: Callable[[str], None]) -> None:
    """Measure the subjects; show, save and plot the figures.

    All servers are measured in one run, on the same core, so that the ratios mean something.
    """
    servers: Runs = {}
    logs: Runs = {}
    with load_on_other_cores() as core:
        if subjects.target is not None:
            servers[subjects.target.name] = _run(measure, subjects.target, load, show=show)
        else:
            for name, application in _servers(subjects):
                with local(name, core=core, application=application) as own:
                    servers[name] = _run(measure, own, load, show=show)
        if subjects.logs:
            with _log_urls() as urls:
                for name, url in urls:
                    with local(name, core=core, log_url=url) as own:
                        logs[name] = _run(measure_log, own, load, show=show)
    tables = [servers, *([logs] if logs else [])]
    for runs in tables:
        show(f"\n{table(runs)}")
    if output.json_file is not None:
        output.json_file.write_text(as_json({**servers, **logs}))
    if output.markdown_file is not None:
        output.markdown_file.write_text("\n".join(as_markdown(runs) for runs in tables))
    if output.plot is not None:
        output.plot(servers)


def _servers(subjects: Subjects) -> list[tuple[str, str | None]]:
    """Return the name of each server that is started, and its application if it is not its own."""
    first = (subjects.application or BUILT_IN, subjects.application)
    return [first, *([(subjects.compare, None)] if subjects.compare else [])]


@contextmanager
def _log_urls() -> Iterator[Iterator[tuple[str, str]]]:
    """Start an engine when its turn comes; without Redis or NATS, the run ends before it begins."""
    for engine in (RedisServer, NatsServer):
        engine.path()
    with TemporaryDirectory() as name, ExitStack() as engines:
        yield _each_log(Path(name), engines)


def _each_log(folder: Path, engines: ExitStack) -> Iterator[tuple[str, str]]:
    yield "memory", "memory:"
    yield "SQLite", f"sqlite:{folder}/full.db"
    yield "SQLite normal", f"sqlite:{folder}/normal.db?synchronous=normal"
    if _is_installed(PostgresServer):
        postgres = engines.enter_context(PostgresServer(_new(folder, "postgres")))
        yield "PostgreSQL", postgres.url
        postgres.kill()
    redis = engines.enter_context(RedisServer(_new(folder, "redis"), options=["--appendfsync", "everysec"]))
    yield "Redis", redis.url
    redis.kill()
    yield "NATS", engines.enter_context(NatsServer(_new(folder, "nats"))).url


def _is_installed(engine: type[EngineServer]) -> bool:
    try:
        engine.path()
    except ConfigurationError:
        return False
    return True


def _new(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir()
    return made


def _run(run: Measure, target: Target, load: Workload, *, show: Callable[[str], None]) -> list[Figure]:
    async def figures() -> list[Figure]:
        return await run(target, load, show=show)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(figures())
