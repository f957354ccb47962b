"""Publishers: single messages and batches for various addressees, repeated with the same key until acknowledged."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count
from typing import Any

import httpx

from unmissed.core.encoding import encode_json
from unmissed.core.errors import ConnectionRefused
from unmissed.core.messages import Value
from unmissed.lab.verify.deployment import Gateway, ProxiedNode
from unmissed.lab.verify.facts import Acknowledged, Addressees, Recorder, SentLive
from unmissed.lab.verify.observing import content_of
from unmissed.security.redaction import redact

_ANSWER_SECONDS = 3.0
_RETRY_SECONDS = 0.2
_MOST_WAIT_SECONDS = 1.0
_MOST_BEHIND_SECONDS = 2.0
_BATCH_SHARE, _MOST_IN_BATCH = 0.2, 8
_MOST_PADDING = 600
_EVERYONE_SHARE = 0.6
_VALUE_SHARE, _LIVE_SHARE = 0.3, 0.1
_KEYS = ("cart", "status")
_FLAGS: tuple[dict[str, bool], ...] = ({}, {}, {"append": True}, {"deleted": True})
_NOBODY = "verify-nobody"
_ACKNOWLEDGED = (HTTPStatus.OK, HTTPStatus.CREATED)
_RETRIED = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


@dataclass(frozen=True, slots=True)
class Publics:
    """The users and topics of messages that are not for everyone. Some are for a user who does not exist."""

    users: tuple[str, ...]
    topics: tuple[str, ...]

    def drawn(self, chance: random.Random) -> Addressees:
        """Return the addressees of the next message."""
        if chance.random() < _EVERYONE_SHARE:
            return Addressees()
        users = chance.sample((*self.users, _NOBODY), k=1)
        topics = chance.sample(self.topics, k=chance.randrange(min(len(self.topics), 2) + 1))
        return Addressees(frozenset(users if chance.random() < 0.5 or not topics else ()), frozenset(topics))


@dataclass(frozen=True, slots=True)
class Wish:
    """What a publisher wants to publish: for whom, and what it says about the value of a key."""

    addressees: Addressees
    value: Value | None = None


@dataclass(frozen=True, slots=True)
class _PublishAnswer:
    """The stamps of messages, and the node that has published them now; empty if they had been published before."""

    stamps: list[dict[str, Any]]
    node: str


class Publisher:
    """One publisher, which sends ``rate`` messages a second, one request after the other."""

    def __init__(
        self,
        name: str,
        gateway: Gateway,
        *,
        publics: Publics,
        rate: float,
        recorder: Recorder,
        http: httpx.AsyncClient,
    ) -> None:
        self._name = name
        self._gateway = gateway
        self._chance = gateway.chance
        self._publics = publics
        self._rate = rate
        self._recorder = recorder
        self._http = http
        self._numbers = count(1)
        self._stopping = False

    async def run(self) -> None:
        """Publish until stopped. Raises ConnectionRefused if the server refuses a message."""
        next_at = self._recorder.clock()
        while not self._stopping:
            batch = self._chance.randrange(2, _MOST_IN_BATCH + 1) if self._chance.random() < _BATCH_SHARE else 1
            now = self._recorder.clock()
            next_at = max(next_at, now - _MOST_BEHIND_SECONDS) + self._chance.expovariate(self._rate / batch)
            await asyncio.sleep(next_at - now)
            if self._chance.random() < _LIVE_SHARE:
                await self.publish_live(self._publics.drawn(self._chance))
            await self.publish([self._drawn() for _ in range(batch)])

    def _drawn(self) -> Wish:
        has_key = self._chance.random() < _VALUE_SHARE
        value = Value(self._chance.choice(_KEYS), **self._chance.choice(_FLAGS)) if has_key else None
        return Wish(self._publics.drawn(self._chance), value)

    def stop(self) -> None:
        """Let ``run`` end as soon as its last request is acknowledged."""
        self._stopping = True

    async def publish_live(self, addressees: Addressees) -> None:
        """Publish an ephemeral message, once: nothing remembers that it was published."""
        message = {**self._message(Wish(addressees)), "ephemeral": True}
        submitted_at, node = self._recorder.clock(), self._gateway.node()
        # Whether it was published is unknown without an answer, and does not matter then.
        with suppress(httpx.HTTPError):
            response = await self._post(node, encode_json(message))
            if response.is_client_error and response.status_code not in _RETRIED:
                raise ConnectionRefused(response.status_code, redact(response.text))
        now, message_id = self._recorder.clock(), message["data"]["id"]
        self._recorder.add(SentLive(now, submitted_at, message_id, content_of(message), addressees, node.host))

    async def publish(self, wishes: Sequence[Wish]) -> Acknowledged:
        """Publish one message for each of these wishes as a block, and return the last acknowledgement."""
        messages = [self._message(each) for each in wishes]
        key = messages[0]["data"]["id"]
        content = encode_json(messages if len(messages) > 1 else messages[0])
        submitted_at = self._recorder.clock()
        while (answer := await self._attempt(content, key)) is None:
            self._recorder.counts["repeats"] += 1
        now = self._recorder.clock()
        for message, wish, stamp in zip(messages, wishes, answer.stamps, strict=True):
            acknowledged = Acknowledged(
                now,
                submitted_at,
                message["data"]["id"],
                stamp["epoch"],
                stamp["sequence_number"],
                content_of(message),
                wish.addressees,
                wish.value,
                answer.node,
            )
            self._recorder.add(acknowledged)
        return acknowledged

    def _message(self, wish: Wish) -> dict[str, Any]:
        addressees, value = wish.addressees, wish.value
        data = {"id": f"{self._name}-{next(self._numbers)}", "pad": "x" * self._chance.randrange(_MOST_PADDING)}
        users, topics = sorted(addressees.users), sorted(addressees.topics)
        return {
            "type": "verify",
            "data": data,
            **({"users": users} if users else {}),
            **({"topics": topics} if topics else {}),
            **({"key": value.key} if value else {}),
            **({"append": True} if value and value.append else {}),
            **({"deleted": True} if value and value.deleted else {}),
        }

    async def _post(self, node: ProxiedNode, content: bytes, **headers: str) -> httpx.Response:
        own = {"Content-Type": "application/json", "Host": node.host, **headers}
        return await self._http.post(
            node.messages_url, content=content, headers={**self._gateway.headers, **own}, timeout=_ANSWER_SECONDS
        )

    async def _attempt(self, content: bytes, key: str) -> _PublishAnswer | None:
        """Return the answer, or None, after a pause, if the request must be repeated."""
        node = self._gateway.node()
        try:
            response = await self._post(node, content, **{"Idempotency-Key": key})
            if response.status_code in _ACKNOWLEDGED:
                stamps = response.json()
                # A repeated request may be answered by a node that has not reached the message yet.
                published_at = node.host if response.status_code == HTTPStatus.CREATED else ""
                return _PublishAnswer(stamps if isinstance(stamps, list) else [stamps], published_at)
        except (httpx.HTTPError, ValueError):
            # Whether it was published is unknown: the same key and content are sent again, perhaps to another node.
            await asyncio.sleep(self._chance.uniform(0, _RETRY_SECONDS))
            return None
        if response.is_client_error and response.status_code not in _RETRIED:
            raise ConnectionRefused(response.status_code, redact(response.text))
        await asyncio.sleep(_wait_of(response))
        return None


def _wait_of(response: httpx.Response) -> float:
    """Return the seconds that the server asks to wait, at most a second."""
    asked = response.headers.get("retry-after", "")
    return min(float(asked), _MOST_WAIT_SECONDS) if asked.isdecimal() else _RETRY_SECONDS
