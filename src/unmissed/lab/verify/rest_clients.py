"""REST clients: a poller, and clients whose positions are at the edge of what is retained."""

import asyncio
import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import count

import httpx

from unmissed.api.message_routes import PATH as MESSAGES_PATH
from unmissed.api.state_routes import PATH as STATE_PATH
from unmissed.lab.verify.deployment import Gateway
from unmissed.lab.verify.facts import Acknowledged, Ended, Joined, Recorder, Witness
from unmissed.lab.verify.observing import Observer, SeenPage, SeenState, page_of, state_of

_ANSWER_SECONDS = 3.0
_PAUSE_SECONDS = 0.2
_VISIT_SECONDS = 0.1
_EVICTED_MEANWHILE = 6
_STATE_SHARE = 0.05
_MOST_ASKED = 4
_FAILED = (httpx.HTTPError, ValueError)


class PageSource:
    """Requests pages of what was missed, each from a random node; ``direct`` without the faults of its proxy."""

    def __init__(self, gateway: Gateway, *, direct: bool, http: httpx.AsyncClient) -> None:
        self._gateway = gateway
        self._direct = direct
        self._http = http

    async def page(self, **query: str | int | None) -> SeenPage:
        """Return a page. Raises httpx.HTTPError or ValueError if there is no complete answer."""
        return page_of(await self._answer(MESSAGES_PATH, query))

    async def state(self) -> list[SeenState]:
        """Return all parts of the state, from several nodes perhaps. Raises httpx.HTTPError or ValueError."""
        parts = [state_of(await self._answer(STATE_PATH, {}))]
        while parts[-1].has_more:
            last = parts[-1].values[-1].number
            parts.append(state_of(await self._answer(STATE_PATH, {"after": last, "through": parts[-1].number})))
        return parts

    async def _answer(self, path: str, query: Mapping[str, str | int | None]) -> str:
        node = self._gateway.node()
        response = await self._http.get(
            node.address.url(path) if self._direct else node.url(path),
            params={name: value for name, value in query.items() if value is not None},
            headers={**self._gateway.headers, "Host": node.host},
            timeout=_ANSWER_SECONDS,
        )
        response.raise_for_status()
        return response.text


class Poller(Observer):
    """A client without a WebSocket: it repeats its request while there is more, and then waits.

    Sometimes it loads the state, and continues after its number.
    """

    def __init__(
        self, witness: Witness, *, source: PageSource, sends_epoch: bool, chance: random.Random, recorder: Recorder
    ) -> None:
        super().__init__(witness, sends_epoch=sends_epoch, chance=chance, recorder=recorder)
        self._source = source
        self._reached = 0

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            try:
                more = await self._poll()
            except _FAILED:
                more = False
            if not more:
                await asyncio.sleep(self.pause(_PAUSE_SECONDS))

    async def finish(self, marker: Acknowledged) -> None:
        """Poll until everything up to this message has arrived."""
        while True:
            try:
                more = await self._poll()
            except _FAILED:
                more = True
            if not more and self.epoch == marker.epoch and self._reached >= marker.number:
                break
            await asyncio.sleep(_PAUSE_SECONDS / 10)
        self.end(marker)

    async def _poll(self) -> bool:
        """Take one page, and return whether there is more."""
        if self.chance.random() < _STATE_SHARE:
            await self._load()
        limit = self.chance.choice((None, self.chance.randrange(1, 100)))
        page = await self._source.page(since=self.position, epoch=self.sent_epoch, limit=limit)
        for fact in page.facts(self.witness.name, since=self.position, at=self.recorder.clock()):
            self.recorder.add(fact)
        self.epoch, self._reached = page.epoch, page.reached
        self.position = page.reached
        return page.has_more

    async def _load(self) -> None:
        """Load the state, and continue after it."""
        parts = await self._source.state()
        now, name, first = self.recorder.clock(), self.witness.name, parts[0]
        epoch, number = first.epoch or "", first.number or 0
        self.recorder.add(Joined(now, name, epoch, None, number, None, number, first.latest))
        for part in parts:
            for fact in part.facts(name, epoch=epoch, at=now):
                self.recorder.add(fact)
        self.epoch, self.position = epoch, number


class EdgeClients:
    """Clients that come once, from the positions around the lowest one that is still complete.

    An off-by-one error at the edge of what is retained shows nowhere else.
    """

    def __init__(self, witness: Witness, *, source: PageSource, chance: random.Random, recorder: Recorder) -> None:
        self._witness = witness
        self._source = source
        self._chance = chance
        self._recorder = recorder
        self._names = (f"{witness.name}-{number}" for number in count(1))

    async def run(self) -> None:
        """Send some at a time, until cancelled."""
        while True:
            with suppress(*_FAILED):
                await self._visit()
            await asyncio.sleep(self._chance.expovariate(1 / _VISIT_SECONDS))

    async def _visit(self) -> None:
        """Ask from several positions at once: messages may be evicted before the requests arrive."""
        head = await self._source.page(since=0, limit=1)
        # What is lost for these clients ends below the lowest position that is complete.
        edge = head.oldest - 1 if head.lost is None else head.lost[1]
        positions = range(edge - (head.lost is not None), min(edge + _EVICTED_MEANWHILE, head.latest) + 1)
        await asyncio.gather(*(self._ask(head, since) for since in positions))

    async def _ask(self, head: SeenPage, since: int) -> None:
        page = await self._source.page(since=since, epoch=head.epoch, limit=_MOST_ASKED)
        now, name = self._recorder.clock(), next(self._names)
        self._recorder.introduce(replace(self._witness, name=name))
        # Its first life began with the first page, at this position: what follows it is owed to it.
        self._recorder.add(Joined(now, name, head.epoch, None, since, None, head.oldest, head.latest))
        for fact in page.facts(name, since=since, at=now):
            self._recorder.add(fact)
        self._recorder.add(Ended(now, name, page.epoch, page.reached))
