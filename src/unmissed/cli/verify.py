"""``unmissed verify``: the options of the verification."""

import secrets
from pathlib import Path
from typing import Annotated, Literal

import typer

from unmissed.cli.options import TokenOption, seconds
from unmissed.security.bearer import clean_token
from unmissed.settings import Settings

_SEEDS = 1_000_000

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
        Literal["memory", "sqlite", "redis", "nats"], typer.Option(help="Where the log is stored.")
    ] = "memory",
    nodes: Annotated[int, typer.Option(help="Number of nodes to start; several need redis or nats.", min=1)] = 1,
    engine_nodes: Annotated[int, typer.Option(help="Number of nats-server processes: 1 or 3.", min=1)] = 1,
    engine_persistence: Annotated[bool, typer.Option(help="Whether redis-server writes to disk.")] = True,
    chaos: Annotated[bool, typer.Option(help="Kill, suspend and restart what was started.")] = True,
    token: TokenOption = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Plot the run to this PNG file.")] = None,
) -> None:
    """Disturb clients, networks and servers, and check that every promise is kept.

    The exit code is 1 if one was broken, and 2 if the run proves nothing. With --url, messages are published there.
    """
    from unmissed.verify.cluster import Setup  # noqa: PLC0415
    from unmissed.verify.command import verify as run  # noqa: PLC0415
    from unmissed.verify.participants import Load  # noqa: PLC0415  # the command line must start fast

    code = run(
        Load(clients, duration, rate, secrets.randbelow(_SEEDS) if seed is None else seed, chaos=chaos),
        Setup(log, nodes, engine_nodes, engine_persistence=engine_persistence),
        urls=url or [],
        token=clean_token(token) if token and token.strip() else None,
        retention=Settings.load().retention(),
        plot_file=plot_file,
    )
    raise typer.Exit(code)
