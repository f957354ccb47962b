"""``unmissed tail``: shows messages live, drops its own connection on request, and counts what was recovered."""

import asyncio
import contextlib
import json
import logging
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import typer

from unmissed.cli.options import TokenOption, UrlOption, seconds, token_or_own
from unmissed.client import Event, Gap, ReceivedMessage, Reset, Stream, Unreadable, connect


@dataclass
class Tally:
    """The counts of one run."""

    received: int = 0
    recovered: int = 0
    lost: int = 0
    duplicates: int = 0
    resets: int = 0
    last: int = 0

    def count(self, event: Event) -> None:
        """Count one event."""
        match event:
            case ReceivedMessage(sequence_number=number, recovered=recovered):
                self.received += 1
                self.recovered += recovered
                self.duplicates += number <= self.last
                self.last = max(self.last, number)
            case Gap(first=first, last=last):
                self.lost += last - first + 1
                self.last = last
            case Unreadable(sequence_number=number):
                self.lost += 1
                self.last = number or self.last
            case Reset():
                self.resets += 1
                self.last = 0

    def __str__(self) -> str:
        resets = f", resets {self.resets}" if self.resets else ""
        return (
            f"received {self.received}, recovered {self.recovered}, "
            f"lost {self.lost}, duplicates {self.duplicates}{resets}"
        )


def tail(
    *,
    since: Annotated[int | None, typer.Option(help="Start after this number instead of now.", min=0)] = None,
    drop_every: Annotated[
        float | None, typer.Option(parser=seconds, metavar="DURATION", help="Drop the connection at this interval.")
    ] = None,
    stop_after: Annotated[
        float | None, typer.Option(parser=seconds, metavar="DURATION", help="Stop after this time.")
    ] = None,
    url: UrlOption = "http://127.0.0.1:8000",
    token: TokenOption = None,
) -> None:
    """Show messages live (+ marks recovered ones), and count what was recovered, lost or duplicated."""
    asyncio.run(
        run_tail(
            url,
            token=token_or_own(token),
            since=since,
            drop_every=drop_every,
            stop_after=stop_after,
            show=typer.echo,
        )
    )


async def run_tail(
    url: str,
    *,
    token: str,
    since: int | None,
    drop_every: float | None,
    stop_after: float | None,
    show: Callable[[str], None],
) -> Tally:
    """Show events until interrupted, or for ``stop_after`` seconds, and return the counts."""
    tally = Tally()
    # Ctrl+C cancels the main task of asyncio.run. Make SIGTERM do the same.
    before = signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    with _log_shown(show), contextlib.suppress(asyncio.CancelledError, TimeoutError):
        async with asyncio.timeout(stop_after), connect(url, token=token, since=since) as stream:
            dropping = asyncio.create_task(_drop(stream, drop_every, tally, show)) if drop_every else None
            try:
                async for event in stream:
                    tally.count(event)
                    show(_line(event))
            finally:
                if dropping:
                    dropping.cancel()
    signal.signal(signal.SIGTERM, before)
    show(f"-- {tally}")
    return tally


class _ShowingHandler(logging.Handler):
    """Shows what the client logs about its connections, between the messages."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record as one line, unless it is an error, which the stream yields as an event."""
        if record.levelno < logging.ERROR:
            self._show(f"-- {record.getMessage()}")


@contextlib.contextmanager
def _log_shown(show: Callable[[str], None]) -> Iterator[None]:
    """Show the log of this package meanwhile."""
    logger, handler = logging.getLogger("unmissed"), _ShowingHandler(show)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


async def _drop(stream: Stream, every: float, tally: Tally, show: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(every)
        show(f"-- dropping the connection at {stream.sequence_number}: {tally}")
        stream.drop()


def _line(event: Event) -> str:
    match event:
        case Gap(first=first, last=last):
            return f"-- gap: {first} to {last} are lost"
        case Reset(epoch=epoch):
            return f"-- reset: the server began another life of its log, {epoch}"
        case Unreadable(sequence_number=number, detail=detail):
            return f"-- unreadable: {'a frame' if number is None else number} is lost: {detail}"
        case ReceivedMessage():
            mark = "+" if event.recovered else " "
            return f"{mark}{event.sequence_number:>16}  {event.timestamp}  {event.type}  {_shown(event.data)}"


def _shown(data: object) -> str:
    try:
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:  # What one stack depth can decode, another cannot encode.
        return "(nested too deeply to show)"
