"""The reader of one client: its position in the log, the topics that it follows, and what is written to it next.

Live delivery and recovery are the same operation: ``next_chunk`` returns what the window holds after the position. A
reader does no I/O, knows no clock, and never waits. The owner of the socket calls ``next_chunk`` while the socket
accepts data, and indexes each TopicChange, so that flushes find the client by its topics.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from unmissed.core import fact
from unmissed.core.audience import check_topics, keys_of, topic_key
from unmissed.core.chunks import CHUNK_BYTES, Chunk, Chunks, JoinedChunk
from unmissed.core.errors import InvalidFrame, InvalidToken, InvalidTopic
from unmissed.core.messages import Message
from unmissed.core.server_frames import AuthenticatedFrame, FollowingFrame, GapFrame, HeartbeatFrame, StateFrame
from unmissed.core.state_reading import StateReading
from unmissed.core.window import Outcome, Window

# A client that wakes after a long time must not hold up the event loop. To pass so many numbers takes 0.2 ms in chunks
# that others share, and about 1 ms if the client sees few of them: then each message has to be looked at.
TURN = 2_000
"""Sequence numbers that a reader passes before other connections have their turn."""

# A shared chunk is encoded once, but each client looks at all messages in it. One that sees few of them is faster with
# the index of the window, which finds up to 64 kB of its messages for one write.
SPARSE = 8
"""A client that sees fewer than 1 in 8 messages of a shared chunk gets a chunk of its own."""

FRAME_OVERHEAD = 192
"""Bytes that a frame takes besides its payload: up to 33 for the bytes, 96 for its number, and a slot in a list."""

_NOTHING = Chunk()


Turn = Literal["goes on", "is over", "is done"]
"""How the turn of a reader goes on after a chunk.

It ``goes on`` while more can be returned now, and ``is over`` when other connections come first. It ``is done`` when
nothing is left. (An Enum would make a delivery almost twice as expensive on Python 3.11.)
"""


@dataclass(slots=True)
class ReadCounts:
    """What all readers of a window have returned."""

    delivered: int = 0
    """Messages written to connections."""
    gaps: int = 0
    """Gaps that were declared to connected clients."""


@fact
class TopicChange:
    """The topics that a client has begun and stopped to follow."""

    added: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()


@dataclass(slots=True)
class Backfill:
    """Backfill of newly followed topics: messages for ``keys`` in (position, until], except those already delivered.

    ``delivered_from[key]`` is the number after which messages for a key that was followed before were delivered.
    Without an ``outcome``, there is nothing to send but the answer.
    """

    outcome: Outcome | None
    position: int
    told: int
    """The highest number that counts as declared lost for these topics."""
    until: int
    keys: frozenset[str]
    delivered_from: Mapping[str, int]
    topics: frozenset[str]
    """The topics, for the answer that comes after their messages."""
    request_id: str | None = None
    """The id of the frame that requested this."""
    lost: tuple[int, int] | None = None
    """The range of a gap."""

    @property
    def complete(self) -> bool:
        """Whether everything has been read."""
        return self.position >= self.until

    def next_chunk(self, window: Window) -> Chunk:
        """Return up to CHUNK_BYTES of the next messages, if any. What was evicted in the meantime makes a gap.

        One call looks at a bounded number of messages, however many of them were delivered before.
        """
        self.note_loss(window)
        payloads: list[bytes] = []
        size = 0
        through, messages = window.next_visible(self.position, self.keys, everyone=False)
        for message in messages:
            if message.sequence_number > self.until:
                break
            if not self._was_delivered(message):
                payloads.append(message.payload)
                size += len(message.payload)
            if size >= CHUNK_BYTES:
                self.position = message.sequence_number
                return Chunk(*payloads)
        self.position = min(through, self.until)
        return Chunk(*payloads)

    def note_loss(self, window: Window) -> None:
        """Extend the gap if messages that would follow were evicted. A reset stays one: it says more than a gap."""
        known = max(self.position, self.told)
        if known < window.evicted_through and known < (lost := window.lost_through(self.keys, everyone=False)):
            self.told = lost
            if self.outcome is not None and self.outcome is not Outcome.RESET:
                self.outcome = Outcome.GAP
                self.lost = (self.position + 1 if self.lost is None else self.lost[0], lost)

    def _was_delivered(self, message: Message) -> bool:
        number = message.sequence_number
        # A key that was not followed before has no entry, and then the comparison is false.
        return any(number > self.delivered_from.get(key, number) for key in message.audience.keys or ())


class Outbox:
    """What is due on one connection besides the messages after its position: frames, a backfill, and a heartbeat."""

    __slots__ = ("_after", "_before", "backfill", "heartbeat", "size", "state")

    def __init__(self) -> None:
        self.state: StateReading | None = None
        """Values by key. No messages are sent until it is complete."""
        self.backfill: Backfill | None = None
        """Messages of topics that are followed now. No other messages are sent until it is complete."""
        self.heartbeat = False
        """Whether a heartbeat is due when no messages are left."""
        self.size = 0
        """Bytes that the waiting frames take."""
        self._before: list[bytes] = []
        self._after: list[tuple[int, bytes]] = []

    def __bool__(self) -> bool:
        return bool(self._before or self._after or self.heartbeat or self.is_backfilling)

    @property
    def is_backfilling(self) -> bool:
        """Whether a state or a backfill comes before the next messages."""
        return self.state is not None or self.backfill is not None

    def add(self, payload: bytes, *, after: int | None = None) -> None:
        """Send a frame before the next messages, or when all messages up to the number ``after`` have been sent."""
        if after is None:
            self._before.append(payload)
        else:
            self._after.append((after, payload))
        self.size += len(payload) + FRAME_OVERHEAD

    def take_before(self) -> list[bytes]:
        """Return the frames that come before the messages, and forget them."""
        taken, self._before = self._before, []
        self.size -= _size(taken)
        return taken

    def take_after(self, position: int, *, last: bool) -> list[bytes]:
        """Return the frames that may be sent at this position, and a heartbeat if one is due and no messages are left.

        They are forgotten.
        """
        taken: list[bytes] = []
        if self._after:
            taken = [payload for number, payload in self._after if number <= position]
            self._after = [(number, payload) for number, payload in self._after if number > position]
            self.size -= _size(taken)
        if self.heartbeat and last:
            taken.append(HeartbeatFrame(sequence_number=position).encode())
            self.heartbeat = False
        return taken

    def discard_after(self) -> None:
        """Forget the frames whose messages will not be sent."""
        self.size -= _size([payload for _, payload in self._after])
        self._after.clear()


class ClientReader:
    """The reader of a client that begins at the position ``start``. ``chose_topics``: whether its client chose them.

    ``told`` is the highest number that its first frame declares lost, if any. ``counts`` is shared by all readers of a
    window, as ``chunks`` is.
    """

    __slots__ = (
        "_chunks",
        "_counts",
        "_delivered_from",
        "_keys",
        "_last",
        "_position",
        "_start",
        "_told",
        "_turn_start",
        "_user_id",
        "chose_topics",
        "declared_gap",
        "outbox",
        "topics",
        "up_to_date",
    )

    def __init__(
        self,
        chunks: Chunks,
        counts: ReadCounts,
        *,
        user_id: str,
        topics: frozenset[str],
        chose_topics: bool,
        start: int,
        told: int = 0,
    ) -> None:
        self.topics = topics
        self.chose_topics = chose_topics
        self.outbox: Outbox | None = None
        """Exists while anything besides messages is due."""
        self.up_to_date = False
        """Whether the client has all messages, apart from those that the next flush brings it. Never while it ends."""
        self.declared_gap: tuple[int, int] | None = None
        """The first and the last number of a gap that was returned, until the owner of the socket has recorded it."""
        self._chunks = chunks
        self._counts = counts
        self._user_id = user_id
        self._start = self._position = start
        self._told = told
        """The last number of the last gap that was declared. Only a frame raises it: see ``_gap``."""
        self._turn_start: int | None = None
        """The position at which this turn began; None between two turns."""
        self._last: int | None = None
        """The last message to return, once the connection ends."""
        self._keys: frozenset[str] | None = None
        self._delivered_from: dict[str, int] | None = None
        """For each key of a topic that was followed later: the number after which its messages are delivered."""

    @property
    def position(self) -> int:
        """The last sequence number returned, or skipped because it is not retained or not visible.

        Flushes skip connections that see none of the new messages: an up-to-date reader takes its position from them.
        """
        return max(self._position, self._chunks.flushed_through) if self.up_to_date else self._position

    @property
    def lag(self) -> int:
        """How many sequence numbers the position is behind the latest message."""
        return 0 if self.up_to_date else self._chunks.window.latest - self._position

    @property
    def keys(self) -> frozenset[str]:
        """The keys of the user and the topics. They are created for the first message that is not for everyone."""
        if self._keys is None:
            self._keys = keys_of(self._user_id, self.topics)
        return self._keys

    @property
    def unread_bytes(self) -> int:
        """Bytes of frames that wait for the client to read."""
        return 0 if self.outbox is None else self.outbox.size

    @property
    def finished(self) -> bool:
        """Whether the connection ends, and everything before its end has been returned."""
        return self._last is not None and self._position >= self._last and self.outbox is None

    # What is written next

    def next_chunk(self) -> tuple[Chunk, Turn]:
        """Return what is to be written next, and how the turn goes on. If nothing of it is visible, it is empty."""
        chunks = self._chunks
        window = chunks.window
        # First: the flushes up to this number had nothing for this reader, so its turn begins after them.
        if self.up_to_date and self._position < chunks.flushed_through:
            self._position = chunks.flushed_through
        if self._turn_start is None:
            self._turn_start = self._position
        last = window.latest if self._last is None else self._last
        was_backfilling = False
        if self.outbox is not None:
            was_backfilling = self.outbox.is_backfilling
            chunk = self._next_with_frames(self.outbox, last)
        elif self._position >= last:
            # Before the gap: what is evicted after the end of a connection is no loss of its client.
            chunk = _NOTHING
        elif self._position < window.evicted_through > self._told:
            chunk = JoinedChunk(*self._gap(), *self._rest(last))
        else:
            chunk = self._next_messages(last)
        # What has waited for the end of a backfill is returned in the step after it.
        if self._position >= last and not (was_backfilling and self.outbox is not None):
            self._turn_start, self.up_to_date = None, self._last is None
            return chunk, "is done"
        self.up_to_date = False
        if self._position - self._turn_start >= TURN or self.is_backfilling:
            self._turn_start = None
            return chunk, "is over"
        return chunk, "goes on"

    def pause(self) -> None:
        """Fix the position while the socket accepts nothing: flushes no longer bring this reader up to date."""
        # First: ``position`` depends on ``up_to_date``. The flushes also pass readers whose sockets accept nothing.
        self._position = self._turn_start = self.position
        latest = self._chunks.window.latest
        self.up_to_date = self._last is None and self._position >= latest and not self.is_backfilling

    def _next_messages(self, last: int) -> Chunk:
        chunk = self._chunks.after(self._position)
        if chunk.last > last:
            chunk = chunk.through(last)
        if not chunk.for_everyone:
            keys = self.keys
            seen = chunk.visible_to(keys)
            sparse = chunk.last < last and len(seen.messages) * SPARSE < len(chunk.messages)
            chunk = self._chunks.visible_after(self._position, keys, last=last) if sparse else seen
        self._position = chunk.last
        self._counts.delivered += len(chunk.messages)
        return chunk

    def _next_with_frames(self, outbox: Outbox, last: int) -> Chunk:
        """Return the next messages, with the frames that belong before and after them."""
        parts = [Chunk(*outbox.take_before())]
        if outbox.state is not None:
            parts.append(self._next_of_state(outbox, outbox.state))
        elif outbox.backfill is not None:
            parts.append(self._next_of_backfill(outbox, outbox.backfill))
        else:
            parts += self._gap()
            parts += self._rest(last)
            if after := outbox.take_after(self._position, last=self._position >= last):
                parts.append(Chunk(*after))
        if self._last is not None and self._position >= last:
            outbox.discard_after()
        if not outbox:
            self.outbox = None
        return JoinedChunk(*parts)

    def _gap(self) -> Iterator[Chunk]:
        """Yield a ``gap`` frame if the client has lost a message after its position, and has not been sent this gap.

        The position stays: what is retained in the range follows. A message in the range that is evicted later is part
        of the same gap.
        """
        window, position = self._chunks.window, self._position
        known = max(position, self._told)
        # ``told`` becomes what was lost for this client, not the highest evicted number: a lower one that is evicted
        # later would be lost in silence.
        if known < window.evicted_through and known < (lost := window.lost_through(self.keys)):
            self._told = lost
            self._counts.gaps += 1
            self.declared_gap = (position + 1, lost)
            yield Chunk(GapFrame(first=position + 1, last=lost, sequence_number=position).encode())

    def _rest(self, last: int) -> Iterator[Chunk]:
        """Yield the next messages, if any are left."""
        if self._position < last:
            yield self._next_messages(last)

    def _next_of_state(self, outbox: Outbox, state: StateReading) -> Chunk:
        """Return the next values of a state in a frame, or nothing if a bounded look has found none."""
        values = state.step(self._chunks.window, room=CHUNK_BYTES)
        if state.complete:
            outbox.state = None
        elif not values:
            return _NOTHING
        frame = StateFrame(
            values=[message.payload for message in values],
            has_more=not state.complete,
            sequence_number=state.until if state.complete else None,
            id=state.request_id,
        )
        return Chunk(frame.encode())

    def _next_of_backfill(self, outbox: Outbox, backfill: Backfill) -> Chunk:
        """Return the next messages of a backfill, and at its end the ``following`` frame."""
        chunk = backfill.next_chunk(self._chunks.window)
        if not backfill.complete:
            return chunk
        outbox.backfill = None
        # Some of them may have been unfollowed in the meantime, which was answered before this.
        added = backfill.topics & self.topics
        first_lost, last_lost = backfill.lost or (None, None)
        answer = FollowingFrame(
            added=added,
            removed=(),
            sequence_number=self._position,
            outcome=backfill.outcome,
            first_lost=first_lost,
            last_lost=last_lost,
            id=backfill.request_id,
        )
        return JoinedChunk(chunk, Chunk(answer.encode()))

    # Frames

    def greet(self, greeting: bytes, *, heartbeat: bool, state: bool = False) -> None:
        """Begin with the ``connected`` frame, and with the state, and a heartbeat after the messages, if requested."""
        outbox = self.outbox = Outbox()
        outbox.add(greeting)
        outbox.heartbeat = heartbeat
        if state:
            before_all = self._chunks.window.first_number - 1
            outbox.state = StateReading(before_all, self._start, self.keys)

    def send(self, payload: bytes, *, after: int | None = None) -> None:
        """Send a frame before the next messages, or not before all messages up to the number ``after``."""
        # The messages that it waits for may come after the end.
        if after is None or self._last is None:
            self._outbox.add(payload, after=after)

    def send_heartbeat(self) -> None:
        """Send the position as soon as no messages are left."""
        self._outbox.heartbeat = True

    def end(self) -> None:
        """Return nothing that is published from now on."""
        if self._last is None:
            # Before ``up_to_date`` is cleared, on which ``position`` depends.
            self._last, self._position = self._chunks.window.latest, self.position
            self.up_to_date = False

    def discard(self) -> None:
        """Return nothing more, and drop the frames that wait."""
        self.outbox = None
        self._last = self._position = self.position

    # Topics

    @property
    def is_backfilling(self) -> bool:
        """Whether a state, or messages of newly followed topics, come before all other messages."""
        return self.outbox is not None and self.outbox.is_backfilling

    def follow(
        self,
        topics: frozenset[str],
        *,
        since: int | None = None,
        epoch: str | None = None,
        state: bool = False,
        request_id: str | None = None,
    ) -> TopicChange:
        """Follow these topics, too, from the position on, or first their messages after ``since``.

        Unless these are complete, the ``state`` of the topics comes before them, cut where the messages begin. Answers
        with a ``following`` frame. Raises InvalidTopic, and InvalidFrame during another backfill or state; nothing
        changes then.
        """
        if self.outbox is not None and (self.outbox.backfill is not None or (state and self.outbox.state is not None)):
            raise InvalidFrame("the past of other topics is being sent: wait for the frame that ends it")
        # The keys from before the change: what was delivered for them is not part of the backfill.
        keys, followed = self.keys, self.topics | topics
        check_topics(followed)
        change = self._change(followed)
        if since is None and not state:
            answer = FollowingFrame(added=change.added, removed=(), sequence_number=self.position, id=request_id)
            self.send(answer.encode())
            return change
        backfill = self._backfill(change.added, keys_before=keys, since=since, epoch=epoch)
        backfill.request_id = request_id
        self._outbox.backfill = backfill
        if state and backfill.outcome is not Outcome.COMPLETE:
            # Without those that were followed before: their messages after ``since`` do not come again.
            covered = topics if since is None else change.added
            self._outbox.state = StateReading(
                self._chunks.window.first_number - 1,
                backfill.position,
                frozenset(map(topic_key, covered)),
                everyone=False,
                request_id=request_id,
            )
        return change

    def unfollow(self, topics: Iterable[str], *, request_id: str | None = None) -> TopicChange:
        """Stop following these topics. Answers with a ``following`` frame."""
        removed = self.topics.intersection(topics)
        self.chose_topics = self.chose_topics or bool(removed)
        answer = FollowingFrame(added=(), removed=removed, sequence_number=self.position, id=request_id)
        self.send(answer.encode())
        return self._change(self.topics - removed)

    def renew(self, topics: frozenset[str], *, expires_at: float | None, expires_in: float | None) -> TopicChange:
        """Follow the topics of another token, which expires in ``expires_in`` seconds, at ``expires_at``.

        Answers with an ``authenticated`` frame. Raises InvalidToken if there are too many; nothing changes then.
        """
        try:
            check_topics(topics)
        except InvalidTopic as error:
            raise InvalidToken(str(error)) from None
        change = self._change(topics)
        added, removed = change.added, change.removed
        answer = AuthenticatedFrame(
            added=added,
            removed=removed,
            sequence_number=self.position,
            expires_at=expires_at,
            expires_in=expires_in,
        )
        self.send(answer.encode())
        return change

    def _change(self, topics: frozenset[str]) -> TopicChange:
        """Follow these topics instead, those that are new from the position on."""
        change = TopicChange(topics - self.topics, self.topics - topics)
        removed = frozenset(map(topic_key, change.removed))
        if self.outbox is not None:
            # The answer to ``unfollow`` comes before the rest of the backfill: none of their messages may follow it.
            for reading in (self.outbox.state, self.outbox.backfill):
                if reading is not None:
                    reading.keys -= removed
        delivered_from = self._delivered_from or {}
        for key in removed:
            delivered_from.pop(key, None)
        delivered_from.update(dict.fromkeys(map(topic_key, change.added), self.position))
        self._delivered_from = delivered_from or None
        self._keys = None
        self.topics = topics
        return change

    def _backfill(
        self, topics: frozenset[str], *, keys_before: frozenset[str], since: int | None, epoch: str | None
    ) -> Backfill:
        """Return the backfill of new topics after ``since``, without what was delivered for the keys before."""
        position, known = self.position, self._delivered_from or {}
        if since is None:
            return Backfill(None, position, position, position, frozenset(), {}, topics)
        delivered_from = {key: known.get(key, self._start) for key in keys_before}
        located = self._chunks.window.locate(since, epoch=epoch)
        outcome, told = located.outcome, located.lost_through
        if outcome is Outcome.GAP:
            # What was evicted may not have been for the new topics: ``note_loss`` looks at theirs.
            outcome, told = Outcome.COMPLETE, located.start
        new = frozenset(map(topic_key, topics))
        self._delivered_from = {**known, **dict.fromkeys(new, located.start)} or None
        backfill = Backfill(outcome, located.start, told, position, new, delivered_from, topics)
        backfill.note_loss(self._chunks.window)
        return backfill

    @property
    def _outbox(self) -> Outbox:
        if self.outbox is None:
            self.outbox = Outbox()
        return self.outbox


def _size(payloads: Sequence[bytes]) -> int:
    return sum(map(len, payloads)) + FRAME_OVERHEAD * len(payloads)
