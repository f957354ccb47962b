"""``unmissed tail``: shows live messages, can drop its own connection, and counts what was recovered."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count
from typing import Annotated
from urllib.parse import urlsplit, urlunsplit

import httpx
import typer

from unmissed.api.message_routes import PATH as MESSAGES_PATH
from unmissed.cli.options import TokenOption, UrlOption, seconds, token_or_own
from unmissed.cli.publish import detail_of, json_headers
from unmissed.client import Event, Gap, ReceivedMessage, Reset, StateLoaded, Stream, Unreadable, connect, websocket_url
from unmissed.core.encoding import encode_json
from unmissed.security.origins import is_loopback
from unmissed.security.redaction import printable, redact
from unmissed.tasks import cancelled_by_sigterm

_MESSAGES_OF_A_DROP = 3
_PUBLISH_SECONDS = 5.0


@dataclass
class Tally:
    """The counts of one run. Of each gap, one message is certainly lost; how many is not known."""

    received: int = 0
    recovered: int = 0
    lost: int = 0
    gaps: int = 0
    duplicates: int = 0
    resets: int = 0
    ephemeral: int = 0
    last: int = 0

    def count(self, event: Event) -> None:
        """Count one event."""
        match event:
            case ReceivedMessage(sequence_number=None):
                self.ephemeral += 1
            case ReceivedMessage(sequence_number=int(number), recovered=recovered):
                self.received += 1
                self.recovered += recovered
                self.duplicates += number <= self.last
                self.last = max(self.last, number)
            case Gap():
                self.lost += 1
                self.gaps += 1
            case Unreadable(sequence_number=number):
                self.lost += 1
                self.last = number or self.last
            case Reset():
                self.resets += 1
                self.last = 0

    def __str__(self) -> str:
        lost = f"at least {self.lost}" if self.gaps else self.lost
        counts = f"received {self.received}, recovered {self.recovered}, lost {lost}, duplicates {self.duplicates}"
        rare = {"resets": self.resets, "ephemeral": self.ephemeral}
        return counts + "".join(f", {name} {count}" for name, count in rare.items() if count)


@dataclass(frozen=True, slots=True)
class Drops:
    """When the connection is dropped, for how long (seconds), and where messages are published while it is down."""

    every: float
    down: float
    publish_to: str | None = None


def tail(
    *,
    topic: Annotated[
        list[str] | None,
        typer.Option(help="Follow this topic. May be repeated. Default: all that the token grants by name."),
    ] = None,
    since: Annotated[int | None, typer.Option(help="Start after this number. Default: new messages.", min=0)] = None,
    state: Annotated[
        bool, typer.Option("--state", help="Show the values by key first, with =, and continue after them.")
    ] = False,
    drop_every: Annotated[
        float | None, typer.Option(parser=seconds, metavar="DURATION", help="Drop the connection at this interval.")
    ] = None,
    down: Annotated[
        float, typer.Option(parser=seconds, metavar="DURATION", help="How long a dropped connection stays down.")
    ] = "1s",  # type: ignore[assignment]  # typer parses the default, too
    publish: Annotated[
        bool | None,
        typer.Option(
            "--publish/--no-publish",
            help="Publish three messages to everyone while the connection is down. Default: only on this machine.",
        ),
    ] = None,
    stop_after: Annotated[
        float | None, typer.Option(parser=seconds, metavar="DURATION", help="Stop after this time.")
    ] = None,
    url: UrlOption = "http://127.0.0.1:8000",
    token: TokenOption = None,
) -> None:
    """Show messages as they arrive (+ marks recovered ones, ~ ephemeral ones), and count what was recovered or lost."""
    if state and since is not None:
        raise typer.BadParameter("use either --since or --state, which starts with the values as they are")
    drops = None
    bearer = token_or_own(token)
    if drop_every:
        drops = Drops(drop_every, down, publish_to=messages_url(url) if may_publish(publish, url) else None)
    asyncio.run(
        run_tail(
            url,
            token=bearer,
            since=since,
            topics=topic,
            state=state,
            drops=drops,
            stop_after=stop_after,
            show=typer.echo,
        )
    )


async def run_tail(
    url: str,
    *,
    token: str,
    since: int | None,
    topics: list[str] | None,
    state: bool = False,
    drops: Drops | None,
    stop_after: float | None,
    show: Callable[[str], None],
) -> Tally:
    """Show events until interrupted, or for ``stop_after`` seconds, and return the counts.

    ``show`` gets lines without characters that control a terminal.
    """
    tally = Tally()

    def show_escaped(line: str) -> None:
        show(printable(line))

    try:
        with (
            _log_shown(show_escaped),
            contextlib.suppress(asyncio.CancelledError, TimeoutError),
            cancelled_by_sigterm(),
        ):
            async with (
                asyncio.timeout(stop_after),
                connect(url, token=token, since=since, topics=topics, state=state) as stream,
            ):
                dropping = asyncio.create_task(_drop(stream, drops, token, tally, show_escaped)) if drops else None
                try:
                    async for event in stream:
                        tally.count(event)
                        for line in _lines(event, stream):
                            show_escaped(line)
                finally:
                    if dropping:
                        dropping.cancel()
    finally:
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
    """Show the log of this package within the context."""
    logger, handler = logging.getLogger("unmissed.client"), _ShowingHandler(show)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


async def _drop(stream: Stream, drops: Drops, token: str, tally: Tally, show: Callable[[str], None]) -> None:
    """Drop the connection repeatedly, and publish while it is down, so that messages are missed and recovered."""
    numbers = count(1)
    publishing = drops.publish_to is not None
    async with httpx.AsyncClient(headers=json_headers(token), timeout=_PUBLISH_SECONDS) as http:
        while True:
            await asyncio.sleep(drops.every)
            if not stream.drop(drops.down):
                continue
            show(f"-- dropping the connection at {stream.position}: {tally}")
            if publishing:
                publishing = await _publish(http, str(drops.publish_to), numbers, show)


async def _publish(http: httpx.AsyncClient, url: str, numbers: Iterator[int], show: Callable[[str], None]) -> bool:
    """Publish a few messages as one block, and return whether another attempt makes sense."""
    messages = [{"type": "tail", "data": {"number": next(numbers)}} for _ in range(_MESSAGES_OF_A_DROP)]
    try:
        response = await http.post(url, content=encode_json(messages))
    except httpx.HTTPError as error:
        show(f"-- publishing failed: {redact(str(error)) or type(error).__name__}")
        return True
    if response.status_code == HTTPStatus.CREATED:
        return True
    show(f"-- publishing failed: status {response.status_code}, {detail_of(response)}")
    return response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR


def messages_url(url: str) -> str:
    """Return the address to publish to, for every form of a server's address. Raises ConfigurationError."""
    parts = urlsplit(websocket_url(url))
    path = parts.path.removesuffix("/ws") + MESSAGES_PATH
    return urlunsplit(("https" if parts.scheme == "wss" else "http", parts.netloc, path, "", ""))


def may_publish(asked: bool | None, url: str) -> bool:  # noqa: FBT001  # the value of a flag
    """Return the flag. By default, publish only on this machine: elsewhere, other clients would get the messages."""
    return is_loopback(urlsplit(websocket_url(url)).hostname or "") if asked is None else asked


def _lines(event: Event, stream: Stream) -> Iterator[str]:
    match event:
        case Gap(first=first, last=last):
            yield f"-- gap: of {first} to {last}, some are lost"
        case Reset(epoch=epoch):
            yield f"-- reset: the position is not one of the server's log, whose epoch is {epoch}"
        case Unreadable(sequence_number=number, detail=detail):
            yield f"-- unreadable: {'a frame' if number is None else number} is lost: {detail}"
        case StateLoaded(topics=topics):
            messages = _kept(stream, topics)
            yield f"-- state: {len(messages)} messages by key"
            yield from (_line("=", message) for message in messages)
        case ReceivedMessage(sequence_number=None):
            yield _line("~", event)
        case ReceivedMessage():
            yield _line("+" if event.recovered else " ", event)


def _kept(stream: Stream, topics: Iterable[str] | None) -> list[ReceivedMessage]:
    """Return the messages of the values of these topics, by default all that are visible, in their order."""
    places = [None, *stream.topics] if topics is None else topics
    # A message to several topics is in the state of each.
    found = {
        each.sequence_number or 0: each
        for place in places
        for value in stream.state(place).values()
        for each in value.messages
    }
    return [found[number] for number in sorted(found)]


def _line(mark: str, message: ReceivedMessage) -> str:
    number = "" if message.sequence_number is None else message.sequence_number
    return f"{mark}{number:>16}  {message.timestamp}  {message.type}  {_value(message)}{_shown(message.data)}"


def _value(message: ReceivedMessage) -> str:
    """Return the key of a message, and what it does to the value."""
    if message.key is None:
        return ""
    change = " deleted" if message.deleted else " append" if message.append else ""
    return f"key={_shown(message.key)}{change}  "


def _shown(data: object) -> str:
    try:
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:  # What one stack depth can decode, another cannot encode.
        return "(nested too deeply to show)"
