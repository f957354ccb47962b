"""Two hundred users with overlapping topics and changing rights: each sees exactly what an oracle says."""

import asyncio
import json
import logging
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from support import Serve, nth, portable_is_long, until
from unmissed.testing import LiveServer

TOPICS = [f"t{number}" for number in range(25)]
CLIENTS = {"live": 80, "dropped": 60, "asleep": 30, "rest": 30}
"""How many clients stay connected, lose their connection, sleep for whole rounds, and only poll."""


class Oracle:
    """Knows all messages and who sees them."""

    def __init__(self) -> None:
        self.audiences: list[tuple[frozenset[str], frozenset[str]] | None] = []
        """Users and topics of each message, in the order of the numbers; None for everyone."""

    def draw(self, chance: random.Random) -> dict[str, Any]:
        """Return the next message, with its number as data."""
        number = nth(len(self.audiences) + 1)
        users = chance.sample(range(sum(CLIENTS.values())), chance.randrange(3))
        topics = chance.sample(TOPICS, chance.randrange(1, 3)) if chance.random() < 0.6 or not users else []
        if chance.random() < 0.05:
            self.audiences.append(None)
            return {"type": "a", "data": f"secret-{number}"}
        self.audiences.append((frozenset(f"u{each}" for each in users), frozenset(topics)))
        recipients = {"users": [f"u{each}" for each in users]} if users else {}
        return {"type": "a", "data": f"secret-{number}", **recipients, **({"topics": topics} if topics else {})}

    def visible(self, user_id: str, topics: frozenset[str], *, after: int) -> Iterator[int]:
        """Return the numbers after so many messages that this user sees while it follows these topics."""
        for number, audience in enumerate(self.audiences[after:], start=nth(after + 1)):
            if audience is None or user_id in audience[0] or not topics.isdisjoint(audience[1]):
                yield number


class Member:
    """One user with one client."""

    def __init__(self, number: int, kind: str, server: LiveServer, chance: random.Random) -> None:
        self.user_id = f"u{number}"
        self.kind = kind
        self.server = server
        self.chance = chance
        self.expected: list[int] = []
        self.seen: list[int] = []
        self.known = 0
        """How many messages the oracle was asked about."""
        self.position = 0
        self.others: list[dict[str, Any]] = []
        self.websocket: ClientConnection | None = None
        self.reading: asyncio.Task[None] | None = None
        self.change_rights()

    def change_rights(self) -> None:
        self.topics = frozenset(self.chance.sample(TOPICS, self.chance.randrange(5)))

    def token(self) -> str:
        return self.server.token(self.user_id, topics=sorted(self.topics))

    async def connect(self) -> None:
        self.websocket = await connect(
            f"{self.server.websocket_url}?since={self.position}",
            additional_headers={"Authorization": f"Bearer {self.token()}"},
            proxy=None,
            compression=None,
            close_timeout=0,
            max_queue=None,
        )
        self.reading = asyncio.create_task(self.read(self.websocket))

    async def read(self, websocket: ClientConnection) -> None:
        with suppress(ConnectionClosed):
            while True:
                self.take(json.loads(await websocket.recv()))

    def take(self, frame: dict[str, Any]) -> None:
        if "timestamp" in frame:
            self.seen.append(frame["sequence_number"])
            assert f"secret-{frame['sequence_number']}" == frame["data"]
        else:
            self.others.append(frame)
        self.position = frame.get("sequence_number", self.position)

    @property
    def answered(self) -> int:
        """How many answers to ``unfollow`` have arrived."""
        return sum(frame["type"] == "following" for frame in self.others)

    async def drop(self) -> None:
        if self.websocket is not None and self.reading is not None:
            self.websocket.transport.abort()
            await self.reading
            self.websocket = None

    async def send(self, **frame: Any) -> None:
        assert self.websocket is not None
        await self.websocket.send(json.dumps(frame))

    async def poll(self, client: httpx.AsyncClient) -> None:
        """Get pages of random sizes until there are no more."""
        headers, more = {"Authorization": f"Bearer {self.token()}"}, True
        while more:
            query = {"since": self.position, "limit": self.chance.randrange(20, 200)}
            page = (await client.get("/websocket/messages", params=query, headers=headers)).json()
            assert "complete" == page["outcome"]
            for message in page["messages"]:
                self.take(message)
            more = page["has_more"]
        self.position = page["latest"]


async def play(
    members: list[Member], oracle: Oracle, server: LiveServer, chance: random.Random, *, messages_in_round: int
) -> None:
    """Play one round: publish, drop connections meanwhile, wait until everybody has everything, then change rights."""
    awake = [each for each in members if each.kind in ("live", "dropped") or chance.random() < 0.5]
    await asyncio.gather(*(each.connect() for each in awake if each.websocket is None and each.kind != "rest"))
    messages = [oracle.draw(chance) for _ in range(messages_in_round)]

    def publish() -> None:
        for message in messages:
            server.manager.publish_threadsafe(message)

    publishing = asyncio.create_task(asyncio.to_thread(publish))
    while not publishing.done():
        dropped = chance.choice([each for each in awake if each.kind == "dropped"])
        await dropped.drop()
        await dropped.connect()
    await publishing
    async with httpx.AsyncClient(base_url=server.url) as client:
        for each in awake:
            each.expected += oracle.visible(each.user_id, each.topics, after=each.known)
            each.known = len(oracle.audiences)
            if each.kind == "rest":
                await each.poll(client)
    await until(lambda: all(len(each.seen) >= len(each.expected) for each in awake))
    await change_rights([each for each in awake if chance.random() < 0.3], chance)
    for each in awake:
        if each.kind == "asleep":
            await up_to_date(each)
            await each.drop()


async def change_rights(members: list[Member], chance: random.Random) -> None:
    """Change the topics of these users: with another token in band, or with the next connection."""
    for each in members:
        each.change_rights()
        if each.websocket is not None and chance.random() < 0.5:
            await each.send(type="authenticate", token=each.token())
        elif each.websocket is not None:
            await up_to_date(each)
            await each.drop()
            await each.connect()
    renewed = [each for each in members if each.websocket is not None]
    await asyncio.gather(*map(up_to_date, renewed))


async def up_to_date(member: Member) -> None:
    """Let a client learn its position, and the server take the frames before: by asking for a topic of others."""
    refused = min(frozenset(TOPICS) - member.topics)
    answered = member.answered
    await member.send(type="follow", topics=[refused])
    await member.send(type="unfollow", topics=[refused])
    await until(lambda: member.answered > answered)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("rounds", "messages_in_round"),
    [pytest.param(2, 200, id="short"), pytest.param(5, 1_000, marks=pytest.mark.long, id="long")],
)
@portable_is_long
async def test_every_history_is_exactly_what_the_user_may_see(
    serve: Serve, caplog: pytest.LogCaptureFixture, rounds: int, messages_in_round: int
) -> None:
    caplog.set_level(logging.DEBUG, logger="unmissed")
    server = serve(max_messages=rounds * messages_in_round, max_bytes=2**28, client_rate=1_000.0, client_burst=10_000)
    chance, oracle = random.Random(7), Oracle()
    kinds = [kind for kind, count in CLIENTS.items() for _ in range(count)]
    members = [Member(number, kind, server, chance) for number, kind in enumerate(kinds)]

    for _ in range(rounds):
        await play(members, oracle, server, chance, messages_in_round=messages_in_round)
    for each in members:
        await each.drop()

    assert rounds * messages_in_round == len(oracle.audiences)
    assert nth(len(oracle.audiences)) == server.manager.window.latest
    for each in members:
        assert (each.user_id, each.kind, each.expected) == (each.user_id, each.kind, each.seen)
        assert "secret-" not in json.dumps(each.others)
        assert {"gap", "reset"}.isdisjoint(frame.get("outcome", frame["type"]) for frame in each.others)
    assert sum(len(each.seen) for each in members) > 5 * rounds * messages_in_round
    assert "secret-" not in caplog.text
