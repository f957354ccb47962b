"""``unmissed bench``: the options of the benchmark."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from unmissed.cli.options import TokenOption, token_or_own


def bench(
    *,
    connections: Annotated[int, typer.Option(help="Number of concurrent WebSockets.", min=1)] = 1_000,
    messages: Annotated[int, typer.Option(help="Number of messages that each of them receives.", min=1)] = 200,
    size: Annotated[int, typer.Option(help="Bytes of padding in each message.", min=0)] = 200,
    compare: Annotated[Literal["tutorial"] | None, typer.Option(help="Also measure this; ignored with --url.")] = None,
    url: Annotated[
        str | None, typer.Option(help="Measure the server at this URL, with UNMISSED_TOKEN, instead of a new one.")
    ] = None,
    token: TokenOption = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file as JSON.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Plot the figures to this PNG file.")] = None,
) -> None:
    """Measure deliveries, handshakes, recoveries and memory. The benchmark puts the server under full load."""
    from unmissed.bench.command import bench as run  # noqa: PLC0415  # needs uvloop, which Windows does not have
    from unmissed.bench.scenarios import Load  # noqa: PLC0415
    from unmissed.bench.server import Target  # noqa: PLC0415

    run(
        Load(connections, messages, size),
        target=Target.at(url, token_or_own(token)) if url else None,
        compare=compare,
        json_file=json_file,
        plot_file=plot_file,
        show=typer.echo,
    )
