"""``unmissed verify`` and ``unmissed bench``: the options of the laboratory, which is installed with an extra."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from unmissed.cli.options import TokenOption, seconds, token_or_own
from unmissed.client import clean_token
from unmissed.settings import Settings

_SEEDS = 1_000_000
_PACKAGES = ("matplotlib", "rich")
"""The packages of the extra."""

_MISSING = 2
"""The exit code without a package: 1 is that of a broken promise."""

Seconds = Annotated[
    float, typer.Option("--seconds", parser=seconds, metavar="DURATION", help="How long the faults last.")
]


def verify(
    *,
    clients: Annotated[int, typer.Option(help="Number of WebSocket clients.", min=1)] = 20,
    duration: Seconds = "30s",  # type: ignore[assignment]  # typer parses the default, too
    rate: Annotated[float, typer.Option(help="Messages a second, in total.", min=1)] = 200.0,
    seed: Annotated[int | None, typer.Option(help="Repeat the chances of another run. Default: random.")] = None,
    url: Annotated[
        list[str] | None, typer.Option(help="Verify the node at this URL instead of new ones. May be repeated.")
    ] = None,
    log: Annotated[
        Literal["memory", "sqlite", "postgres", "redis", "nats"], typer.Option(help="Where the log is stored.")
    ] = "memory",
    nodes: Annotated[
        int, typer.Option(help="Number of nodes to start; several need postgres, redis or nats.", min=1)
    ] = 1,
    engine_nodes: Annotated[int, typer.Option(help="Number of nats-server processes: 1 or 3.", min=1)] = 1,
    engine_persistence: Annotated[bool, typer.Option(help="Whether redis-server writes to disk.")] = True,
    pgbouncer: Annotated[bool, typer.Option("--pgbouncer", help="Connect to PostgreSQL through PgBouncer.")] = False,
    chaos: Annotated[bool, typer.Option(help="Kill, suspend and restart what was started.")] = True,
    token: TokenOption = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Plot the run to this PNG file.")] = None,
) -> None:
    """Disturb clients, networks and servers, and check that every promise is kept.

    The exit code is 1 if one was broken, and 2 if the run proves nothing. With --url, messages are published there.
    """
    with _laboratory("verify"):
        # The command line must start fast, and without the packages of the extra.
        from unmissed.lab.verify.deployment import Setup  # noqa: PLC0415
        from unmissed.lab.verify.participants import RunPlan  # noqa: PLC0415
        from unmissed.lab.verify.verification import verify as run  # noqa: PLC0415

        plot = None
        if plot_file is not None:
            # Before the run, so that a missing package is reported now and not after it.
            from unmissed.lab.charts import plot_run  # noqa: PLC0415

            plot = partial(plot_run, file=plot_file)
    plan = RunPlan(clients, duration, rate, secrets.randbelow(_SEEDS) if seed is None else seed, chaos=chaos)
    code = run(
        plan,
        Setup(log, nodes, engine_nodes, engine_persistence=engine_persistence, pgbouncer=pgbouncer),
        urls=url or [],
        token=clean_token(token) if token and token.strip() else None,
        retention=Settings.load().log_retention(),
        plot=plot,
    )
    raise typer.Exit(code)


def bench(
    *,
    connections: Annotated[int, typer.Option(help="Number of concurrent WebSockets.", min=1)] = 1_000,
    messages: Annotated[int, typer.Option(help="Number of messages that each of them receives.", min=1)] = 200,
    size: Annotated[int, typer.Option(help="Bytes of padding in each message.", min=0)] = 200,
    application: Annotated[
        str | None,
        typer.Option("--app", help="Measure this application, such as shop.main:app, in place of the built-in one."),
    ] = None,
    compare: Annotated[
        Literal["tutorial", "unmissed"] | None, typer.Option(help="Also measure this; ignored with --url.")
    ] = None,
    logs: Annotated[
        bool, typer.Option("--logs", help="Also measure each log; needs redis-server and nats-server.")
    ] = False,
    url: Annotated[
        str | None, typer.Option(help="Measure the server at this URL, with UNMISSED_TOKEN, instead of a new one.")
    ] = None,
    token: TokenOption = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file as JSON.")] = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", help="Write the tables to this file as Markdown.")
    ] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Plot the figures to this PNG file.")] = None,
) -> None:
    """Measure deliveries, handshakes, recoveries and memory. The benchmark puts the server under full load."""
    with _laboratory("bench"):
        # The benchmark needs uvloop, which Windows does not have.
        from unmissed.lab.bench.benchmark import Output, Subjects  # noqa: PLC0415
        from unmissed.lab.bench.benchmark import bench as run  # noqa: PLC0415
        from unmissed.lab.bench.scenarios import Workload  # noqa: PLC0415
        from unmissed.lab.bench.target import Target  # noqa: PLC0415

        plot = None
        if plot_file is not None:
            from unmissed.lab.charts import plot_figures  # noqa: PLC0415

            plot = partial(plot_figures, file=plot_file)
    target = Target.at(url, token_or_own(token)) if url else None
    run(
        Workload(connections, messages, size),
        Subjects(target, application, compare, logs=logs),
        Output(json_file, markdown_file, plot),
        show=typer.echo,
    )


@contextmanager
def _laboratory(command: str) -> Iterator[None]:
    """Import what the laboratory needs. A missing package of its extra ends the command with a line that names both."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _PACKAGES:
            raise
        typer.echo(f"unmissed: unmissed {command} needs {package}: pip install 'unmissed[lab]'", err=True)
        raise typer.Exit(_MISSING) from None
