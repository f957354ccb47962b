"""Reads frames and pages as a client does, and turns them into facts: of messages, only digests are kept."""

import hashlib
import json
import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from unmissed.core.encoding import decode_json
from unmissed.lab.verify.facts import (
    Acknowledged,
    Delivered,
    DeliveredLive,
    Ended,
    Joined,
    Reached,
    Recorder,
    StateComplete,
    StateValue,
    Witness,
)

_DECODER = json.JSONDecoder()
_MESSAGES, _VALUES = '"messages":[', '"values":['
"""How arrays of messages begin."""

_DIGEST_BYTES = 8
_SEPARATOR = re.compile(r"[\s,]*")
_LONG_SECONDS, _LONG_SHARE = 4.0, 0.1


@dataclass(frozen=True, slots=True)
class SeenMessage:
    """A message: its number, the digest of its bytes, and, if this run published it, its id and content.

    An ephemeral message has no number.
    """

    number: int | None
    digest: str
    message_id: str | None
    content: str | None


@dataclass(frozen=True, slots=True)
class SeenPage:
    """The answer to a request for what was missed."""

    epoch: str
    oldest: int
    latest: int
    outcome: str
    has_more: bool
    messages: tuple[SeenMessage, ...]
    reached: int
    """The position after this page: the number up to which a client has everything that is retained."""
    lost: tuple[int, int] | None
    """The range of a gap."""

    def start(self, since: int | None) -> int:
        """Return where delivery continues for a client that asked for messages after ``since``."""
        return self.oldest - 1 if since is None or self.outcome == "reset" else since

    def facts(
        self, client: str, *, since: int | None, at: float
    ) -> Iterator[Joined | Delivered | DeliveredLive | Reached]:
        """Yield the facts in this page, for a client that asked for messages after ``since``."""
        outcome = None if since is None else self.outcome
        yield Joined(at, client, self.epoch, since, self.start(since), outcome, self.oldest, self.latest, self.lost)
        for each in self.messages:
            if each.number is None:
                yield DeliveredLive(at, client, self.epoch, each.message_id, each.content, math.inf)
            else:
                yield Delivered(at, client, self.epoch, each.number, each.digest, each.message_id, each.content)
        if not self.has_more:
            yield Reached(at, client, self.epoch, self.latest)


@dataclass(frozen=True, slots=True)
class SeenState:
    """A part of a state: its values, and the number at which the state is cut. ``latest`` is known over REST."""

    values: tuple[SeenMessage, ...]
    has_more: bool
    number: int | None
    epoch: str | None = None
    latest: int = 0

    def facts(self, client: str, *, epoch: str, at: float) -> Iterator[StateValue | StateComplete]:
        """Yield the facts in this part. Values without a number are none."""
        for each in self.values:
            if each.number is not None:
                yield StateValue(at, client, epoch, each.number, each.digest, each.message_id, each.content)
        if not self.has_more and self.number is not None:
            yield StateComplete(at, client, epoch, self.number)


class Observer:
    """What every client of a run does: it keeps its position, and its epoch if ``sends_epoch``, and nothing else."""

    def __init__(self, witness: Witness, *, sends_epoch: bool, chance: random.Random, recorder: Recorder) -> None:
        self.witness = witness
        self.position: int | None = None
        self.epoch: str | None = None
        self.chance = chance
        self.recorder = recorder
        self._sends_epoch = sends_epoch
        recorder.introduce(witness)

    @property
    def sent_epoch(self) -> str | None:
        """The epoch that this client sends with its position."""
        return self.epoch if self._sends_epoch else None

    def pause(self, usual: float) -> float:
        """Return how long to stay away: usually about ``usual`` seconds, and sometimes much longer."""
        long = self.chance.random() < _LONG_SHARE
        return self.chance.expovariate(1 / (_LONG_SECONDS if long else usual))

    def end(self, marker: Acknowledged) -> None:
        """Record that everything up to this message has arrived."""
        self.recorder.add(Ended(self.recorder.clock(), self.witness.name, marker.epoch, marker.number))


def decoded(raw: bytes) -> dict[str, Any]:
    """Return the object in a frame. Raises ValueError."""
    frame = decode_json(raw)
    if not isinstance(frame, dict):
        raise ValueError("a frame is not an object")  # noqa: TRY004  # what the server sent is wrong, not a type here
    return frame


def message_of(raw: bytes, frame: dict[str, Any]) -> SeenMessage:
    """Return the message in a frame, which is both the bytes ``raw`` and the object ``frame``."""
    match frame:
        case {"data": {"id": str(message_id)}}:
            return SeenMessage(frame.get("sequence_number"), _digest(raw), message_id, content_of(frame))
        case _:
            return SeenMessage(frame.get("sequence_number"), _digest(raw), None, None)


def content_of(message: dict[str, Any]) -> str:
    """Return a digest of what the publisher of a message chose and its readers see."""
    chosen = [message.get(name) for name in ("type", "data", "topics", "key", "append", "deleted")]
    return _digest(json.dumps(chosen, sort_keys=True).encode())


def page_of(text: str) -> SeenPage:
    """Return the page in a response, with digests of the exact bytes of its messages. Raises ValueError."""
    page = json.loads(text)
    return SeenPage(
        epoch=page["epoch"],
        oldest=page["oldest"],
        latest=page["latest"],
        outcome=page["outcome"],
        has_more=page["has_more"],
        reached=page["sequence_number"],
        lost=(page["from"], page["to"]) if page["outcome"] == "gap" else None,
        messages=tuple(_messages(text, _MESSAGES, count=len(page["messages"]))),
    )


def state_of(text: str) -> SeenState:
    """Return the part of a state in a frame or in a response. Raises ValueError."""
    state = json.loads(text)
    values = tuple(_messages(text, _VALUES, count=len(state["values"])))
    number, has_more = state.get("sequence_number"), state["has_more"]
    return SeenState(values, has_more, number, state.get("epoch"), state.get("latest", 0))


def _messages(text: str, beginning: str, *, count: int) -> list[SeenMessage]:
    messages = []
    place = text.index(beginning) + len(beginning)
    for _ in range(count):
        separator = _SEPARATOR.match(text, place)
        start = separator.end() if separator else place
        frame, place = _DECODER.raw_decode(text, start)
        messages.append(message_of(text[start:place].encode(), frame))
    return messages


def _digest(raw: bytes) -> str:
    return hashlib.blake2b(raw, digest_size=_DIGEST_BYTES).hexdigest()
