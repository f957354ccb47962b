"""Presence as messages: publishes who comes to a topic and leaves it, once for all nodes."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from itertools import chain, islice
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from unmissed.cluster.attendance import RETRY_SECONDS, Attendance, Due, Entry, Pending
from unmissed.cluster.members import Member, Members, responsible
from unmissed.cluster.nodes import Nodes
from unmissed.core.audience import Audience, topic_key, topic_of
from unmissed.core.encoding import encode_json
from unmissed.core.errors import (
    CommandError,
    Draining,
    IdempotencyConflict,
    LogUnavailable,
    NotRunning,
    TooManyRequests,
    UnmissedError,
)
from unmissed.core.messages import Draft, Message, Value
from unmissed.core.receipts import key_of_presence
from unmissed.core.server_frames import PRESENCE_TYPE
from unmissed.core.window import Window
from unmissed.delivery.registry import Registry
from unmissed.logs.base import Publication
from unmissed.settings import Settings
from unmissed.tasks import Pace

logger = logging.getLogger("unmissed")

BATCH_SECONDS = 0.05
"""How long changes are collected before they are sent to the other nodes and published."""

BEAT_SECONDS = 1.0
"""Seconds between two notes of a node without changes."""

SWEEP_SECONDS = 10.0
"""Seconds between two comparisons of all members with the log."""

UNKNOWN_SECONDS = 5.0
"""How long a node is waited for that has not sent its members. It may have another version, or other settings."""

BLIND_SECONDS = 3.0
"""How long this node does not judge which nodes are gone after it could not hear them."""

MAX_STATE_BYTES = 2_048
"""The longest state that a client may set, in bytes of JSON."""

_AT_ONCE = 64
"""Messages that are published at the same time. A shared log stores them together."""
_SLICE = 500
_HEAD = encode_json({"type": PRESENCE_TYPE})[:-1]
_ABSENT = object()
_LATER = (LogUnavailable, TooManyRequests, Draining, NotRunning)
_STATE_ATTEMPTS = 40
_NOT_NOW = "the state cannot be published at the moment: try again"
_STATE_WAIT_SECONDS = 0.05


class PresenceState(BaseModel):
    """What a client sends with the command ``presence``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    topic: str
    state: JsonValue = Field(description="At most 2,048 bytes of JSON. null removes the state.")


PublishDraft = Callable[[Draft, str], Awaitable[Publication]]
"""Publishes a draft with an idempotency key."""


class PresenceMessages:
    """Keeps the messages about members in the log as the members are. ``connections`` are those of this node.

    A node publishes that its own clients have come, and for each other change one node is responsible. Nodes may
    disagree for a while which one that is: the idempotency key of a message is made of the number that it replaces, so
    that it is published once.

    ``is_active`` returns whether this node publishes at all. ``clock`` returns monotonic seconds.
    """

    def __init__(
        self,
        window: Window,
        connections: Registry,
        *,
        nodes: Nodes,
        settings: Settings,
        publish: PublishDraft,
        is_active: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        ages = [window.retention.max_age, *(rule.max_age for rule in window.retention.rules)]
        self._window = window
        self._nodes = nodes
        self._publish = publish
        self._is_active = is_active
        self._clock = clock
        self._wake = asyncio.Event()
        self._members = Members(connections, node_id=nodes.id, patterns=settings.presence, wake=self._wake.set)
        self._attendance = Attendance(
            grace_seconds=settings.presence_grace_seconds,
            max_age=self._max_age,
            # Idempotency keys, which are made of these entries, are known for a little more than ``max_age``.
            entry_seconds=2 * window.retention.max_age,
        )
        self._sweep_seconds = min(SWEEP_SECONDS, min(ages) / 8)
        self._epoch = window.epoch
        self._position = 0
        """The number through which the log was read."""
        self._others: frozenset[str] | None = None
        """The other nodes with presence at the last step."""
        self._known_since: dict[str, float] = {}
        """When each other node was first heard."""
        self._is_wanted = False
        """Whether another node has asked for all members of this one."""
        self._beat_at = self._sweep_at = self._blind_until = clock()
        """``_blind_until`` is when this node knows again which other nodes are gone, after it could not hear them."""
        self._reported: str | None = None
        self._left_out = 0
        connections.watchers.append(self._members.watch)
        nodes.listen("members", self._members.take)
        nodes.listen("members_wanted", self._take_question)

    def _max_age(self, topic: str) -> float:
        retention = self._window.retention
        rule = retention.rule_of(topic_key(topic))
        return retention.max_age if rule is None else rule.max_age

    # Notes

    def _take_question(self, node: str) -> None:
        """Send all members of this node in the next step, if it is the node that is asked."""
        if node == self._nodes.id:
            self._is_wanted = True
            self._wake.set()

    async def _exchange(self, *, now: float) -> None:
        """Send the other nodes what has changed here, and ask those that this node has missed a note of."""
        active, beats = self._is_active(), now >= self._beat_at
        if self._is_wanted:
            self._is_wanted = False
            for note in self._members.list_all(active=active):
                await self._nodes.announce("members", note)
        for note in self._members.changes(active=active):
            await self._nodes.announce("members", note)
        if beats:
            self._beat_at = now + BEAT_SECONDS
            await self._nodes.announce("members", self._members.beat(active=active))
            for node in self._incomplete(self._nodes.others):
                if node in self._members.nodes and self._members.nodes[node].listing is not None:
                    continue
                await self._nodes.announce("members_wanted", node)

    def _incomplete(self, others: frozenset[str]) -> list[str]:
        """Return the nodes whose members this node does not know exactly."""
        known = self._members.nodes
        return [node for node in others if node not in known or not known[node].complete]

    # Steps

    async def run(self) -> None:
        """Work until this is cancelled: soon after each change, and at least once a second."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._wake.wait()
                    # Together with what changes in the next moment.
                    await asyncio.sleep(BATCH_SECONDS)
            self._wake.clear()
            try:
                await self.step()
                self._reported = None
            except UnmissedError as error:
                self._report(error)
                await asyncio.sleep(BEAT_SECONDS)
            except Exception:
                logger.exception("presence failed")
                await asyncio.sleep(BEAT_SECONDS)

    def _pause(self) -> float:
        """Return for how many seconds nothing is due."""
        at = self._attendance.next_at()
        pause = self._beat_at - self._clock() if at is None else min(at, self._beat_at) - self._clock()
        return min(max(pause, BATCH_SECONDS), BEAT_SECONDS)

    def _report(self, error: UnmissedError) -> None:
        """Log the first of several equal errors."""
        if str(error) != self._reported:
            self._reported = str(error)
            logger.warning("presence cannot be published or exchanged at the moment: %s", error)

    async def step(self) -> None:
        """Exchange members with the other nodes, compare them with the log, and publish what is due. In slices."""
        now, pace = self._clock(), Pace()
        await self._read_log(pace)
        while self._members.recount(most=_SLICE):
            await pace.keep()
        self._report_left_out()
        if not self._nodes.is_alone:
            await self._exchange(now=now)
        others = self._living(now=now)
        if others != self._others or now >= self._sweep_at:
            self._others, self._sweep_at = others, now + self._sweep_seconds
            self._members.changed.clear()
            await self._compare(chain(self._members.all(), self._attendance.members()), others, now=now)
        await self._compare_changed(others, now=now)
        if self._is_active():
            await self._publish_due(others, now=now)
            # What was published is in the window: it is due no more.
            await self._read_log(pace)
            await self._compare_changed(others, now=now)

    def _living(self, *, now: float) -> frozenset[str]:
        """Return the other nodes that have sent their members, without those that are gone."""
        others = self._nodes.others
        if self._nodes.problem is not None:
            self._blind_until = now + BLIND_SECONDS
        if now < self._blind_until and self._others is not None:
            # The fault may be on the side of this node: those that it has not heard may be well.
            return self._others | (others & self._members.nodes.keys())
        self._members.forget(others)
        self._known_since = {node: self._known_since.get(node, now) for node in others}
        return others & self._members.nodes.keys()

    async def _compare_changed(self, others: frozenset[str], *, now: float) -> None:
        changed, self._members.changed = self._members.changed, set()
        await self._compare(changed, others, now=now)

    async def _compare(self, members: Iterable[Member], others: frozenset[str], *, now: float) -> None:
        pace = Pace()
        for member in members:
            await pace.keep()
            self._attendance.compare(member, self._members.connections(member, others), now=now)

    def _report_left_out(self) -> None:
        if self._members.left_out > 0 and not self._left_out:
            logger.warning(
                "presence leaves out users: their ids have more than 200 bytes, or this node has too many members"
            )
        self._left_out = self._members.left_out

    # The log

    async def _read_log(self, pace: Pace | None = None) -> None:
        """Read the messages about members that are new in the log."""
        window, pace = self._window, pace or Pace()
        if window.epoch != self._epoch:
            self._epoch, self._position = window.epoch, 0
            self._attendance.begin()
            self._members.changed |= {*self._members.all()}
        while True:
            messages = [*islice(window.messages_after(self._position), _SLICE)]
            if not messages:
                return
            self._position = messages[-1].sequence_number
            for message in messages:
                # The first looks are cheap: most messages have no key.
                if message.value is not None and message.payload.startswith(_HEAD):
                    self._enter(message, message.value)
            await pace.keep()

    def _enter(self, message: Message, value: Value) -> None:
        topic = topic_of(message.audience.first or "")
        if topic is not None and self._members.covers(topic):
            member = Member(topic, value.key)
            connections = 0 if value.deleted else message.data["connections"]
            self._attendance.entries[member] = Entry(message, connections)
            self._members.changed.add(member)

    async def _publish_due(self, others: frozenset[str], *, now: float) -> None:
        nodes = [self._nodes.id, *(node for node in others if self._members.nodes[node].active)]
        is_sure = self._is_sure(now=now)
        due = self._attendance.take_due(now=now)
        while batch := [*islice(due, _AT_ONCE)]:
            publishing = []
            for member, pending in batch:
                is_join = pending.due is Due.JOIN
                if not (member in self._members.here if is_join else responsible(member, nodes) == self._nodes.id):
                    continue
                if is_join or (is_sure and not (pending.due is Due.COUNT and self._nodes.any_overdue)):
                    publishing.append(self._announce(member, pending, others))
                else:
                    self._attendance.retry(member, at=now + RETRY_SECONDS / 2, attempt=pending.attempt)
            await asyncio.gather(*publishing)
            await asyncio.sleep(0)

    def _is_sure(self, *, now: float) -> bool:
        """Return whether this node knows the members of all other nodes that have presence."""
        if now < self._blind_until:
            return False
        unknown = self._incomplete(self._nodes.others)
        return all(now - self._known_since.get(node, now) >= UNKNOWN_SECONDS for node in unknown)

    async def _announce(self, member: Member, pending: Pending, others: frozenset[str]) -> None:
        """Publish how many connections a member has now, or that it has left."""
        attempt = pending.attempt
        entry = self._attendance.entries.get(member)
        draft = _draft(member, self._members.connections(member, others), state=_state_of(entry))
        try:
            await self._publish(draft, self._key(member, entry, attempt=attempt))
            attempt += 1
        except IdempotencyConflict:
            # Another node was faster, with another message: it arrives soon.
            attempt += 1
        except _LATER as error:
            self._report(error)
        # Unless the log has it by then.
        self._attendance.retry(member, at=self._clock() + RETRY_SECONDS, attempt=attempt)

    def _key(self, member: Member, entry: Entry | None, *, attempt: int) -> str:
        """Return the idempotency key of the one message about a member that comes after this entry."""
        replaces = 0 if entry is None else entry.message.sequence_number
        return key_of_presence(*member, epoch=self._epoch, replaces=replaces, attempt=attempt)

    # State

    async def set_state(self, user_id: str, topic: str, state: Any) -> None:
        """Publish the state of a user in a topic, in place of the one before; None removes it. Raises CommandError."""
        member = Member(topic, user_id)
        if not self._members.covers(topic):
            raise CommandError(f"the topic {topic} has no presence: UNMISSED_PRESENCE does not name it")
        try:
            size = len(encode_json(state))
        except ValueError as error:
            raise CommandError(f"the state cannot be sent as JSON: {error}") from None
        if size > MAX_STATE_BYTES:
            raise CommandError(f"the state has {size} bytes of JSON, and at most {MAX_STATE_BYTES} are allowed")
        for attempt in range(_STATE_ATTEMPTS):
            await self._read_log()
            entry = self._attendance.entries.get(member)
            connections = self._connections_now(member)
            if not connections:
                raise CommandError(f"follow {topic} first: presence is for those who follow a topic")
            given = _ABSENT if state is None else state
            if entry is not None and entry.connections and _state_of(entry) == given:
                return
            # The same key is for the same place: if it was used, another message is there, or arrives soon.
            key = self._key(member, entry, attempt=attempt // 10)
            try:
                publication = await self._publish(_draft(member, connections, state=given), key)
                if not publication.repeated:
                    return
            except IdempotencyConflict:
                pass
            except _LATER as error:
                raise CommandError(_NOT_NOW) from error
            await asyncio.sleep(_STATE_WAIT_SECONDS)
        raise CommandError(_NOT_NOW)

    def _connections_now(self, member: Member) -> int:
        """Return how many connections a member has, also if it has begun to follow the topic a moment ago."""
        counted = self._members.connections(member, self._others or ())
        return counted - self._members.here.get(member, 0) + self._members.connected_here(member)


def _draft(member: Member, connections: int, *, state: object) -> Draft:
    """Return the message about a member. It has left if it has no connections."""
    data: dict[str, object] = {"connections": connections}
    if connections and state is not _ABSENT:
        data["state"] = state
    rest: dict[str, object] = {"data": data, "topics": [member.topic], "key": member.user_id}
    if not connections:
        rest["deleted"] = True
    value = Value(member.user_id, deleted=not connections)
    return Draft(_HEAD, b"," + encode_json(rest)[1:], Audience.of(topics=[member.topic]), value=value)


def _state_of(entry: Entry | None) -> object:
    """Return the state in the message about a member, if it has one and has not left."""
    return _ABSENT if entry is None or not entry.connections else entry.message.data.get("state", _ABSENT)
