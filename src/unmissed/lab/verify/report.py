"""Shows how a run goes and what it found: the promises, counts, and the first violations with the facts around them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import fields

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from unmissed.lab.verify.facts import Fact, Recorder
from unmissed.lab.verify.promises import CHECKED_ON, Findings, Promise, Violation
from unmissed.security.redaction import printable

_SHOWN = 3
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


def show(console: Console, findings: Findings, recorder: Recorder, *, seed: int) -> None:
    """Print the verdict."""
    for violation in findings.violations[:_SHOWN]:
        _print(console, f"{violation.promise} is broken: {_whose(violation)}{violation.text}", style="red")
        for fact in violation.excerpt:
            _print(console, f"    {line_of(fact, since=recorder.facts[0].at)}")
    console.print(_table(findings.violations, recorder))
    _print(console, summary(recorder))
    _print(console, f"To repeat this run: --seed {seed}")
    if not findings.broken:
        text = (
            "This run proves nothing: a client that loses messages was not found. Use more --seconds, or more --rate."
        )
        _print(console, text, style="red")


def summary(recorder: Recorder) -> str:
    """Return the counts of a run in one line."""
    counts = recorder.counts
    faults = Counter(incident.kind for incident in recorder.incidents)
    done = ", ".join(f"{kind} {count}" for kind, count in sorted(faults.items()))
    return (
        f"published {counts['Acknowledged']:,} (repeats {counts['repeats']:,}), delivered {counts['Delivered']:,}, "
        f"reconnects {counts['reconnects']:,}, gaps {counts['gaps']:,}, resets {counts['resets']:,}, "
        f"states {counts['StateComplete']:,}, ephemeral {counts['SentLive']:,} (received {counts['DeliveredLive']:,}), "
        f"transactions {counts['transactions']:,} (committed {counts['committed']:,}); "
        f"faults {len(recorder.incidents):,}: {done or 'none'}"
    )


def line_of(fact: Fact, *, since: float) -> str:
    """Return a fact as one line, with its time after ``since`` in seconds."""
    values = {
        field.name: getattr(fact, field.name) for field in fields(fact) if field.name not in ("at", "submitted_at")
    }
    shown = " ".join(f"{name}={value}" for name, value in values.items() if value is not None)
    return f"{fact.at - since:8.3f} s  {type(fact).__name__} {shown}"


def _table(violations: Sequence[Violation], recorder: Recorder) -> Table:
    broken = Counter(violation.promise for violation in violations)
    table = Table("promise", "verdict", "checked on", "violations")
    for promise in Promise:
        count, unit = CHECKED_ON[promise]
        if promise is Promise.TRANSACTIONS and not recorder.counts[count]:
            # Only a log in a database has any.
            continue
        verdict = "[red]broken[/]" if broken[promise] else "[green]kept[/]"
        table.add_row(promise, verdict, f"{recorder.counts[count]:,} {unit}", f"{broken[promise]:,}")
    return table


def _whose(violation: Violation) -> str:
    return f"{violation.client}: " if violation.client else ""


def _print(console: Console, text: str, *, style: str | None = None) -> None:
    console.print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)
