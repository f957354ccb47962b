"""Shows how a run goes: a live line on a terminal, and otherwise a line every few seconds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from unmissed.verify.recorder import Recorder

_LIVE_SECONDS = 0.2
_LINE_SECONDS = 5.0


@asynccontextmanager
async def shown(console: Console, recorder: Recorder, *, seconds: float) -> AsyncIterator[None]:
    """Show the counts while the context is open. ``seconds`` is how long the faults last."""
    showing = asyncio.create_task((_live if console.is_terminal else _lines)(console, recorder, seconds))
    try:
        yield
    finally:
        showing.cancel()
        with suppress(asyncio.CancelledError):
            await showing


async def _live(console: Console, recorder: Recorder, seconds: float) -> None:
    columns = (TimeElapsedColumn(), BarColumn(), TextColumn("{task.description}"))
    started = recorder.clock()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=seconds)
        while True:
            elapsed = recorder.clock() - started
            state = "" if elapsed < seconds else ", recovering"
            progress.update(task, completed=min(elapsed, seconds), description=f"{_counts(recorder)}{state}")
            await asyncio.sleep(_LIVE_SECONDS)


async def _lines(console: Console, recorder: Recorder, seconds: float) -> None:
    started = recorder.clock()
    while True:
        await asyncio.sleep(_LINE_SECONDS)
        elapsed = recorder.clock() - started
        console.print(f"{elapsed:.0f} of {seconds:g} s: {_counts(recorder)}", highlight=False, soft_wrap=True)


def _counts(recorder: Recorder) -> str:
    counts = recorder.counts
    return (
        f"published {counts['Acknowledged']:,}, delivered {counts['Delivered']:,}, "
        f"reconnects {counts['reconnects']:,}, faults {len(recorder.incidents):,}"
    )
