"""The result of a run for people: a table of promises, counts, and the first violations with their events."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields

from rich.console import Console
from rich.table import Table

from unmissed.security.redaction import printable
from unmissed.verify.events import Event
from unmissed.verify.promises import Promise, Violation
from unmissed.verify.recorder import Recorder
from unmissed.verify.run import Result

_SHOWN = 3
_CHECKED = {
    Promise.NO_DUPLICATES: ("Delivered", "deliveries"),
    Promise.ORDER: ("Delivered", "deliveries"),
    Promise.NO_SILENT_LOSS: ("Ended", "clients"),
    Promise.NO_FALSE_GAP: ("gaps", "gaps"),
    Promise.SAME_BYTES: ("Delivered", "deliveries"),
    Promise.HONEST_RESETS: ("Joined", "connects and pages"),
    Promise.PRIVACY: ("Delivered", "deliveries"),
    Promise.PUBLISH: ("Acknowledged", "acknowledgements"),
}
"""What each promise was checked on: the name of a count, and how it is shown."""


def show(console: Console, result: Result, recorder: Recorder, *, seed: int) -> None:
    """Print the verdict."""
    for violation in result.violations[:_SHOWN]:
        _print(console, f"{violation.promise} is broken: {_whose(violation)}{violation.text}", style="red")
        for event in violation.excerpt:
            _print(console, f"    {line_of(event, since=recorder.events[0].at)}")
    console.print(_table(result.violations, recorder))
    _print(console, summary(recorder))
    _print(console, f"To repeat this run: --seed {seed}")
    if not result.broken:
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
        f"reconnects {counts['reconnects']:,}, gaps {counts['gaps']:,}, resets {counts['resets']:,}; "
        f"faults {len(recorder.incidents):,}: {done or 'none'}"
    )


def line_of(event: Event, *, since: float) -> str:
    """Return an event as one line, with its time after ``since`` in seconds."""
    values = {
        field.name: getattr(event, field.name) for field in fields(event) if field.name not in ("at", "submitted_at")
    }
    shown = " ".join(f"{name}={value}" for name, value in values.items() if value is not None)
    return f"{event.at - since:8.3f} s  {type(event).__name__} {shown}"


def _table(violations: Sequence[Violation], recorder: Recorder) -> Table:
    broken = Counter(violation.promise for violation in violations)
    table = Table("promise", "verdict", "checked on", "violations")
    for promise in Promise:
        count, unit = _CHECKED[promise]
        verdict = "[red]broken[/]" if broken[promise] else "[green]kept[/]"
        table.add_row(promise, verdict, f"{recorder.counts[count]:,} {unit}", f"{broken[promise]:,}")
    return table


def _whose(violation: Violation) -> str:
    return f"{violation.client}: " if violation.client else ""


def _print(console: Console, text: str, *, style: str | None = None) -> None:
    console.print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)
