"""REST clients: one that polls from its position, and others that ask at the edge of what is retained."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count

import httpx

from unmissed.verify.events import Acknowledged, Delivered, Ended, Joined, Reached, Reader
from unmissed.verify.frames import ReceivedPage, page_of
from unmissed.verify.proxied import ProxiedNode, bearer
from unmissed.verify.recorder import Recorder

_ANSWER_SECONDS = 3.0
_PAUSE_SECONDS = 0.2
_VISIT_SECONDS = 0.1
_EVICTED_MEANWHILE = 6
_MOST_ASKED = 4
_LONG_SECONDS, _LONG_SHARE = 4.0, 0.1
_FAILED = (httpx.HTTPError, ValueError)


class Source:
    """Requests pages of what was missed, each from a random node; ``direct`` without the faults of its proxy."""

    def __init__(
        self, *, nodes: Sequence[ProxiedNode], token: str, direct: bool, chance: random.Random, http: httpx.AsyncClient
    ) -> None:
        self._nodes = nodes
        self._direct = direct
        self._headers = bearer(token)
        self._chance = chance
        self._http = http

    async def page(self, **query: str | int | None) -> ReceivedPage:
        """Return a page. Raises httpx.HTTPError or ValueError if there is no complete answer."""
        node = self._chance.choice(self._nodes)
        response = await self._http.get(
            node.address.messages_url if self._direct else node.messages_url,
            params={name: value for name, value in query.items() if value is not None},
            headers={**self._headers, "Host": node.host},
            timeout=_ANSWER_SECONDS,
        )
        response.raise_for_status()
        return page_of(response.text)


class Poller:
    """A client without a WebSocket: it repeats its request while there is more, and then waits."""

    def __init__(
        self, reader: Reader, *, source: Source, sends_epoch: bool, chance: random.Random, recorder: Recorder
    ) -> None:
        self.reader = reader
        self._reached = 0
        self._source = source
        self._sends_epoch = sends_epoch
        self._chance = chance
        self._recorder = recorder
        self._position: int | None = None
        self._epoch: str | None = None
        recorder.introduce(reader)

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            try:
                more = await self._poll()
            except _FAILED:
                more = False
            long = self._chance.random() < _LONG_SHARE
            if not more:
                await asyncio.sleep(self._chance.expovariate(1 / (_LONG_SECONDS if long else _PAUSE_SECONDS)))

    async def finish(self, marker: Acknowledged) -> None:
        """Poll until everything up to this message has arrived."""
        while True:
            try:
                more = await self._poll()
            except _FAILED:
                more = True
            if not more and self._epoch == marker.epoch and self._reached >= marker.number:
                break
            await asyncio.sleep(_PAUSE_SECONDS / 10)
        self._recorder.add(Ended(self._recorder.clock(), self.reader.name, marker.epoch, marker.number))

    async def _poll(self) -> bool:
        """Take one page, and return whether there is more."""
        limit = self._chance.choice((None, self._chance.randrange(1, 100)))
        epoch = self._epoch if self._sends_epoch else None
        page = await self._source.page(since=self._position, epoch=epoch, limit=limit)
        start = page.oldest - 1 if self._position is None or page.outcome != "complete" else self._position
        for event in events_of(page, self.reader.name, since=self._position, start=start, at=self._recorder.clock()):
            self._recorder.add(event)
        self._epoch = page.epoch
        self._position = page.messages[-1].number if page.messages else start
        self._reached = self._position if page.has_more else page.latest
        return page.has_more


class EdgeClients:
    """Clients that come once, from the positions around the lowest one that is still complete.

    An error by one at the edge of what is retained shows nowhere else.
    """

    def __init__(self, reader: Reader, *, source: Source, chance: random.Random, recorder: Recorder) -> None:
        self._reader = reader
        self._source = source
        self._chance = chance
        self._recorder = recorder
        self._names = (f"{reader.name}-{number}" for number in count(1))
        self._lowest: dict[str, int] = {}

    async def run(self) -> None:
        """Send some at a time, until cancelled."""
        while True:
            with suppress(*_FAILED):
                await self._visit()
            await asyncio.sleep(self._chance.expovariate(1 / _VISIT_SECONDS))

    async def _visit(self) -> None:
        """Ask from several positions at once: messages may be evicted until the requests arrive."""
        head = await self._source.page(limit=1)
        evicted_before = head.oldest > self._lowest.setdefault(head.epoch, head.oldest)
        first = head.oldest - 1 - evicted_before
        positions = range(first, min(head.oldest + _EVICTED_MEANWHILE, head.latest + 1))
        await asyncio.gather(*(self._ask(head, since) for since in positions))

    async def _ask(self, head: ReceivedPage, since: int) -> None:
        page = await self._source.page(since=since, epoch=head.epoch, limit=_MOST_ASKED)
        now, name = self._recorder.clock(), next(self._names)
        self._recorder.introduce(replace(self._reader, name=name))
        self._recorder.add(Joined(now, name, head.epoch, None, since, None, head.oldest, head.latest))
        start = since if page.outcome == "complete" else page.oldest - 1
        for event in events_of(page, name, since=since, start=start, at=now):
            self._recorder.add(event)
        self._recorder.add(Ended(now, name, page.epoch, page.messages[-1].number if page.has_more else page.latest))


def events_of(
    page: ReceivedPage, client: str, *, since: int | None, start: int, at: float
) -> list[Joined | Delivered | Reached]:
    """Return what a page tells a client that asked for what it missed after ``since``."""
    outcome = None if since is None else page.outcome
    events: list[Joined | Delivered | Reached] = [
        Joined(at, client, page.epoch, since, start, outcome, page.oldest, page.latest)
    ]
    events += [
        Delivered(at, client, page.epoch, each.number, each.digest, each.message_id, each.content)
        for each in page.messages
    ]
    if not page.has_more:
        events.append(Reached(at, client, page.epoch, page.latest))
    return events
