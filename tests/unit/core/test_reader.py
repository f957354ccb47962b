"""The reader of one client: everything that it follows, once and in order, or a gap."""

import json
from collections.abc import Iterable
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from support import FIRST, nth, nths
from unmissed.core.audience import EVERYONE, MAX_TOPICS, Audience
from unmissed.core.chunks import CHUNK_BYTES, Chunks
from unmissed.core.errors import InvalidFrame, InvalidToken, InvalidTopic
from unmissed.core.messages import Message
from unmissed.core.reader import TURN, ClientReader, ReadCounts, TopicChange, Turn
from unmissed.core.retention import Retention, Rule
from unmissed.core.window import Window

LARGE = CHUNK_BYTES * 2 // 3
"""Bytes of a message of which one chunk holds one."""


AGE = 1e6
"""Seconds that messages are retained; each is appended one second after the last."""


def chunks_of(*audiences: str, max_messages: int = 10_000, size: int = 0) -> Chunks:
    """Return a window with one message for each of these: ``"all"``, ``"@user"``, ``"#topic"`` or several of them."""
    chunks = Chunks(Window(Retention(max_messages=max_messages, max_age=AGE), epoch="e", first_number=FIRST))
    for audience in audiences:
        append(chunks.window, audience, size=size)
    return chunks


def append(window: Window, audience: str, *, size: int = 0) -> Message:
    number = window.latest + 1
    payload = b'{"type":"m","sequence_number":%d,"timestamp":"","data":"%b"}' % (number, b"x" * size)
    addressed = EVERYONE if audience == "all" else Audience.with_keys(audience.split())
    message = Message(number, "", payload, addressed, appended_at=float(number - FIRST))
    window.append(message)
    return message


def reader_of(
    chunks: Chunks, *topics: str, start: int = nth(0), told: int = 0, counts: ReadCounts | None = None
) -> ClientReader:
    return ClientReader(
        chunks,
        counts or ReadCounts(),
        user_id="alice",
        topics=frozenset(topics),
        chose_topics=True,
        start=start,
        told=told,
    )


def step(reader: ClientReader) -> list[dict[str, Any]]:
    """Return the frames of the next chunk."""
    return step_of_turn(reader)[0]


def step_of_turn(reader: ClientReader) -> tuple[list[dict[str, Any]], Turn]:
    """Return the frames of the next chunk, and how the turn goes on."""
    chunk, turn = reader.next_chunk()
    return [json.loads(payload) for payload in chunk.payloads], turn


def read(reader: ClientReader) -> list[dict[str, Any]]:
    """Return all frames, in as many turns as it takes."""
    frames, turn = step_of_turn(reader)
    while turn != "is done":
        more, turn = step_of_turn(reader)
        frames += more
    return frames


def shape(frames: Iterable[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(frame["type"], frame["sequence_number"]) for frame in frames]


def messages(*ns: int) -> list[tuple[str, int]]:
    return [("m", number) for number in nths(*ns)]


CASES = {
    "nothing was published": ([], (), messages()),
    "all is for everyone": (["all"] * 3, (), messages(1, 2, 3)),
    "some is for others": (["all", "@bob", "all"], (), messages(1, 3)),
    "all is for others": (["@bob", "#news"], (), messages()),
    "a user has messages without topics": (["@alice", "@bob @alice"], (), messages(1, 2)),
    "one of the topics is enough": (["#news #sport", "#sport", "#news"], ("news",), messages(1, 3)),
    "few of many are visible": (["#news"] * 40 + ["#sport"] + ["#news"] * 40, ("sport",), messages(41)),
}


@pytest.mark.parametrize("size", [0, LARGE])
@pytest.mark.parametrize(("audiences", "topics", "expected"), CASES.values(), ids=CASES)
def test_live_delivery_and_recovery_return_the_same(
    audiences: list[str], topics: tuple[str, ...], expected: list[tuple[str, int]], size: int
) -> None:
    recovering = reader_of(chunks_of(*audiences, size=size), *topics)
    chunks = chunks_of()
    live = reader_of(chunks, *topics)

    delivered = read(live)
    for audience in audiences:
        append(chunks.window, audience, size=size)
        delivered += read(live)

    assert expected == shape(read(recovering))
    assert expected == shape(delivered)
    assert [True, True] == [live.up_to_date, recovering.up_to_date]
    assert [nth(len(audiences))] * 2 == [live.position, recovering.position]


GAPS = {
    "what is lost was visible": (["all", "all", "all"], 0, [("gap", nth(0)), ("m", nth(3))]),
    "it was seen before": (["all", "all", "all"], 2, [("m", nth(3))]),
    "only a part of it was visible": (["all", "@bob", "@alice"], 0, [("gap", nth(0)), ("m", nth(3))]),
    "all of it was for others": (["@bob", "#news", "all"], 0, [("m", nth(3))]),
}


@pytest.mark.parametrize(("audiences", "seen", "expected"), GAPS.values(), ids=GAPS)
@pytest.mark.parametrize("frame", [False, True])
def test_a_gap_is_declared_if_and_only_if_something_visible_was_evicted(
    audiences: list[str], seen: int, expected: list[tuple[str, int]], *, frame: bool
) -> None:
    counts = ReadCounts()
    reader = reader_of(chunks_of(*audiences, max_messages=1), start=nth(seen), counts=counts)
    if frame:
        reader.send(b'{"type":"pong","sequence_number":0}')

    frames = shape(read(reader))

    assert [("pong", 0)] * frame + expected == frames
    assert (len(expected) - 1, 1) == (counts.gaps, counts.delivered)


def test_a_gap_that_is_behind_everything_ends_the_read() -> None:
    chunks = chunks_of("all", "all")
    reader = reader_of(chunks)
    chunks.window.expire(2 * AGE)

    [gap] = read(reader)
    assert {"type": "gap", "from": nth(1), "to": nth(2), "sequence_number": nth(0)} == gap
    assert (True, nth(2)) == (reader.up_to_date, reader.position)


def test_a_gap_is_declared_once_and_again_when_more_is_lost() -> None:
    chunks = chunks_of("all", "all", max_messages=1, size=LARGE)
    reader = reader_of(chunks)
    append(chunks.window, "all", size=LARGE)
    assert [("gap", nth(0)), ("m", nth(3))] == shape(step(reader))
    append(chunks.window, "all", size=LARGE)
    append(chunks.window, "all", size=LARGE)

    again = read(reader)

    assert [("gap", nth(3)), ("m", nth(5))] == shape(again)
    assert (nth(4), nth(4)) == (again[0]["from"], again[0]["to"])


def window_with_rules() -> Window:
    """Return a window that retains 10 messages of each of ``#few`` and ``#rare``."""
    rules = (Rule("few", 10, AGE), Rule("rare", 10, AGE))
    return Window(Retention(max_messages=10_000, max_age=AGE, rules=rules), epoch="e", first_number=FIRST)


def test_a_loss_below_a_later_eviction_for_others_is_declared() -> None:
    """A reader that took the highest evicted number for declared would pass a lower one that is evicted later."""
    window = window_with_rules()
    append(window, "#rare")
    for _ in range(11):
        append(window, "#few")
    reader = reader_of(Chunks(window), "rare", start=nth(0))
    reader.send(b'{"type":"pong","sequence_number":0}')
    reader.pause()
    for _ in range(10):
        append(window, "#rare")

    frames = read(reader)

    [gap] = [frame for frame in frames if frame["type"] == "gap"]
    assert nth(2) == window.evicted_through
    assert {"type": "gap", "from": nth(1), "to": nth(1), "sequence_number": nth(0)} == gap


def test_a_check_that_finds_no_loss_declares_nothing_to_the_reader() -> None:
    """The same, with a check between the two evictions."""
    window = window_with_rules()
    append(window, "all", size=2 * CHUNK_BYTES)
    append(window, "#rare")
    for _ in range(12):
        append(window, "#few")
    reader = reader_of(Chunks(window), "rare", start=nth(0))
    assert messages(1) == shape(step(reader))
    assert nth(4) == window.evicted_through

    for _ in range(10):
        append(window, "#rare")

    assert ("gap", nth(1)) == shape(step(reader))[0]


def test_a_gap_declares_no_more_than_this_client_has_lost() -> None:
    """The highest evicted number is that of others, and a message below it is lost later."""
    window = window_with_rules()
    append(window, "#rare")
    append(window, "all", size=2 * CHUNK_BYTES)
    append(window, "#rare")
    for _ in range(12):
        append(window, "#few")
    for _ in range(9):
        append(window, "#rare")
    reader = reader_of(Chunks(window), "rare", start=nth(0))
    assert [("gap", nth(0)), *messages(2)] == shape(step(reader))
    assert nth(5) == window.evicted_through

    append(window, "#rare")

    again = step(reader)[0]
    assert {"type": "gap", "from": nth(3), "to": nth(3), "sequence_number": nth(2)} == again


def test_what_is_retained_in_a_gap_follows_and_the_gap_is_declared_once() -> None:
    window = window_with_rules()
    append(window, "#few", size=LARGE)
    append(window, "#rare", size=LARGE)
    append(window, "all", size=LARGE)
    for _ in range(11):
        append(window, "#few", size=LARGE)
    reader = reader_of(Chunks(window), "few", "rare", start=nth(0))
    reader.send_heartbeat()

    frames = read(reader)

    assert [("gap", nth(0)), *messages(2, 3, *range(5, 15)), ("heartbeat", nth(14))] == shape(frames)
    assert (nth(1), nth(4)) == (frames[0]["from"], frames[0]["to"])


def test_numbers_without_a_message_are_passed() -> None:
    """What had the last numbers was replaced or evicted, and the position ends at the latest number all the same."""
    window = window_with_rules()
    for _ in range(3):
        append(window, "all")
    reader = reader_of(Chunks(window), start=nth(1))
    append(window, "#few")
    window.expire(2 * AGE)
    window.skip(nth(9))

    frames = read(reader)

    assert ["gap"] == [frame["type"] for frame in frames]
    assert (True, nth(9)) == (reader.up_to_date, reader.position)


def test_a_reset_begins_below_the_oldest_retained_message() -> None:
    window = window_with_rules()
    append(window, "#few")
    append(window, "#rare")
    for _ in range(12):
        append(window, "#few")
    located = window.locate(nth(500))

    reader = reader_of(Chunks(window), "few", "rare", start=located.start, told=located.lost_through)

    assert (nth(1), nth(4)) == (located.start, located.lost_through)
    assert messages(2, *range(5, 15)) == shape(read(reader))


def test_a_gap_that_the_first_frame_has_declared_is_not_declared_again() -> None:
    chunks = chunks_of("all", "all", "all", max_messages=1)
    located = chunks.window.locate(nth(0))

    reader = reader_of(chunks, start=located.start, told=located.lost_through)

    assert messages(3) == shape(read(reader))


def test_a_loss_after_the_one_that_the_first_frame_has_declared_is_declared() -> None:
    chunks = chunks_of("all", "all", "all", max_messages=1)
    located = chunks.window.locate(nth(0))
    reader = reader_of(chunks, start=located.start, told=located.lost_through)

    append(chunks.window, "all")

    [gap, message] = read(reader)
    assert (nth(1), nth(3), nth(0)) == (gap["from"], gap["to"], gap["sequence_number"])
    assert nth(4) == message["sequence_number"]


# Turns


@pytest.mark.parametrize(("audiences", "sent"), [(["all"], 10_000), ([*["#many"] * 9, "#few"], 1_000)])
def test_a_reader_that_is_far_behind_returns_a_bounded_number_of_messages_in_one_turn(
    audiences: list[str], sent: int
) -> None:
    reader = reader_of(chunks_of(*audiences * (10_000 // len(audiences)), size=100), "few")

    turns = [0]
    while not reader.up_to_date:
        frames, turn = step_of_turn(reader)
        turns[-1] += len(frames)
        if turn == "is over":
            turns.append(0)

    assert sent == sum(turns)
    assert max(turns) < 1.5 * TURN
    assert len(turns) > 1


def test_a_reader_that_was_up_to_date_has_a_whole_turn() -> None:
    chunks = chunks_of(*["all"] * (TURN - 1))
    reader = reader_of(chunks)
    read(reader)
    append(chunks.window, "all")
    append(chunks.window, "all")

    assert messages(TURN, TURN + 1) == shape(step(reader))
    assert reader.up_to_date


def test_a_client_that_sees_few_messages_shares_no_chunk() -> None:
    """It would get an almost empty chunk for each 64 kB that are for others."""
    reader = reader_of(chunks_of(*[*["#many"] * 30, "#few"] * 10, size=LARGE // 10), "few")

    first = step(reader)

    assert len(first) > 1


def test_readers_at_one_position_share_a_chunk() -> None:
    chunks = chunks_of("all", "all")

    assert reader_of(chunks).next_chunk()[0] is reader_of(chunks, "news").next_chunk()[0]


# The position between flushes


def test_an_up_to_date_reader_takes_its_position_from_the_flushes() -> None:
    chunks = chunks_of()
    reader = reader_of(chunks)
    read(reader)

    append(chunks.window, "@bob")
    chunks.flushed_through = nth(1)

    assert (nth(1), 0) == (reader.position, reader.lag)


def test_a_reader_whose_socket_accepts_nothing_keeps_its_position() -> None:
    chunks = chunks_of()
    reader = reader_of(chunks)
    read(reader)
    append(chunks.window, "all")

    reader.pause()
    chunks.flushed_through = append(chunks.window, "@bob").sequence_number

    assert (nth(0), 2, False) == (reader.position, reader.lag, reader.up_to_date)
    assert messages(1) == shape(read(reader))
    assert nth(2) == reader.position


# Frames


def test_a_frame_comes_before_messages_or_after_those_that_it_names() -> None:
    reader = reader_of(chunks_of(*["all"] * 3, size=LARGE))
    reader.send(b'{"type":"published","sequence_number":2}', after=nth(2))
    reader.send(b'{"type":"pong","sequence_number":1}')
    reader.send_heartbeat()
    assert 0 < reader.unread_bytes

    frames = shape(read(reader))

    assert [("pong", 1), *messages(1, 2), ("published", 2), *messages(3), ("heartbeat", nth(3))] == frames
    assert 0 == reader.unread_bytes


def test_the_greeting_the_missed_messages_and_the_heartbeat_are_one_chunk() -> None:
    reader = reader_of(chunks_of("all", "all"))
    reader.greet(b'{"type":"connected","sequence_number":0}', heartbeat=True)

    assert [("connected", 0), *messages(1, 2), ("heartbeat", nth(2))] == shape(step(reader))
    assert reader.up_to_date


# The end


def test_what_was_published_before_the_end_is_returned_and_nothing_after_it() -> None:
    chunks = chunks_of("all", "all")
    reader = reader_of(chunks)
    reader.end()
    append(chunks.window, "all")
    reader.send(b'{"type":"published","sequence_number":3}', after=nth(3))
    assert not reader.finished

    frames = shape(read(reader))

    assert messages(1, 2) == frames
    assert (True, False) == (reader.finished, reader.up_to_date)


def test_answers_to_what_comes_after_the_end_are_dropped() -> None:
    chunks = chunks_of("all")
    reader = reader_of(chunks)
    reader.send(b'{"type":"published","sequence_number":2}', after=nth(2))

    reader.end()

    assert messages(1) == shape(read(reader))
    assert reader.finished


def test_a_second_end_brings_nothing_that_was_published_in_between() -> None:
    chunks = chunks_of("all")
    reader = reader_of(chunks)
    reader.end()
    append(chunks.window, "all")

    reader.end()

    assert messages(1) == shape(read(reader))
    assert reader.finished


def test_a_reader_that_discards_is_finished_at_once() -> None:
    reader = reader_of(chunks_of("all"))
    reader.send(b'{"type":"pong"}')
    reader.end()

    reader.discard()

    assert reader.finished
    assert [] == read(reader)


def test_what_is_evicted_after_the_end_is_no_gap() -> None:
    chunks = chunks_of("all")
    reader = reader_of(chunks)
    reader.end()
    reader.discard()

    chunks.window.expire(2 * AGE)

    assert [] == read(reader)
    assert reader.finished


# Topics


def test_each_change_of_topics_is_returned_and_answered_with_the_position() -> None:
    reader = reader_of(chunks_of("all"), "news")
    read(reader)

    changes = [
        reader.follow(frozenset({"news", "sport"})),
        reader.unfollow(["news", "never followed"]),
        reader.renew(frozenset({"rooms"}), expires_at=None, expires_in=None),
    ]

    assert [
        TopicChange(added=frozenset({"sport"})),
        TopicChange(removed=frozenset({"news"})),
        TopicChange(frozenset({"rooms"}), frozenset({"sport"})),
    ] == changes
    answers = read(reader)
    assert ["following", "following", "authenticated"] == [frame["type"] for frame in answers]
    assert [(["sport"], []), ([], ["news"]), (["rooms"], ["sport"])] == [
        (frame["added"], frame["removed"]) for frame in answers
    ]
    assert {nth(1)} == {frame["sequence_number"] for frame in answers}
    assert {"rooms"} == reader.topics


def test_too_many_topics_are_refused_and_change_nothing() -> None:
    reader = reader_of(chunks_of(), "news")
    many = frozenset(f"rooms.{number}" for number in range(MAX_TOPICS + 1))

    with pytest.raises(InvalidTopic):
        reader.follow(many)
    with pytest.raises(InvalidToken):
        reader.renew(many, expires_at=None, expires_in=None)

    assert {"news"} == reader.topics
    assert [] == read(reader)


def test_a_backfill_whose_beginning_was_evicted_has_the_range_of_its_gap() -> None:
    chunks = chunks_of("#news", "#news", "#news", "all", max_messages=2)
    reader = reader_of(chunks, start=nth(4))

    reader.follow(frozenset({"news"}), since=nth(1))

    message, following = read(reader)
    assert nth(3) == message["sequence_number"]
    assert ("gap", nth(2), nth(2)) == (following["outcome"], following["from"], following["to"])
    assert nth(4) == following["sequence_number"]


def test_what_a_backfill_loses_while_it_is_read_extends_its_gap() -> None:
    chunks = chunks_of(*["#news"] * 4, max_messages=3, size=CHUNK_BYTES)
    reader = reader_of(chunks, start=nth(4))
    reader.follow(frozenset({"news"}), since=0)
    assert messages(2) == shape(step(reader))
    for _ in range(2):
        append(chunks.window, "@bob")

    message, following = read(reader)

    assert nth(4) == message["sequence_number"]
    assert ("gap", nth(1), nth(3)) == (following["outcome"], following["from"], following["to"])


def test_a_backfill_from_another_epoch_is_a_reset_with_everything_that_is_retained() -> None:
    chunks = chunks_of(*["#news"] * 4, max_messages=2)
    reader = reader_of(chunks, start=nth(4))

    reader.follow(frozenset({"news"}), since=nth(2), epoch="another")

    frames = read(reader)
    assert messages(3, 4) == shape(frames[:-1])
    assert "reset" == frames[-1]["outcome"]
    assert not {"from", "to"} & set(frames[-1])


def test_another_backfill_is_refused_until_the_first_is_complete() -> None:
    reader = reader_of(chunks_of(*["#news"] * 3, size=LARGE))
    read(reader)
    reader.follow(frozenset({"news"}), since=0)
    step(reader)

    with pytest.raises(InvalidFrame):
        reader.follow(frozenset({"sport"}))

    read(reader)
    assert {"sport"} == reader.follow(frozenset({"sport"})).added


BACKFILLS = {
    "from the start": (["#news", "all", "#news"], 0, [("m", nth(1)), ("m", nth(3)), ("following", nth(3))]),
    "from a position": (["#news", "all", "#news"], nth(1), [("m", nth(3)), ("following", nth(3))]),
    "not what another topic has shown": (["#news #rooms", "#news"], 0, [("m", nth(2)), ("following", nth(2))]),
    "not what was for the user": (["#news @alice", "#news"], 0, [("m", nth(2)), ("following", nth(2))]),
    "nothing": (["#rooms", "all"], 0, [("following", nth(2))]),
}


@pytest.mark.parametrize(("audiences", "since", "expected"), BACKFILLS.values(), ids=BACKFILLS)
def test_a_backfill_is_what_the_new_topic_adds(
    audiences: list[str], since: int, expected: list[tuple[str, int]]
) -> None:
    reader = reader_of(chunks_of(*audiences), "rooms")
    read(reader)

    reader.follow(frozenset({"news"}), since=since)

    frames = read(reader)
    assert expected == shape(frames)
    assert "complete" == frames[-1]["outcome"]


def test_messages_of_a_topic_that_was_followed_later_were_not_delivered_before() -> None:
    chunks = chunks_of("#news #rooms")
    reader = reader_of(chunks)
    read(reader)
    reader.follow(frozenset({"news"}))
    append(chunks.window, "#news #rooms")
    read(reader)

    reader.follow(frozenset({"rooms"}), since=0)

    assert [*messages(1), ("following", nth(2))] == shape(read(reader))


def test_a_client_that_follows_and_unfollows_for_ever_leaves_nothing_behind() -> None:
    reader = reader_of(chunks_of())
    for number in range(10_000):
        reader.follow(frozenset({f"rooms.{number}"}), since=0 if number % 2 else None)
        read(reader)
        reader.unfollow([f"rooms.{number}"])
        read(reader)

    assert not cast("Any", reader)._delivered_from  # noqa: SLF001


# Everything, in any order


TOPICS = ("news", "sport")
AUDIENCES = ("all", "@alice", "@bob", "#news", "#sport", "#news #sport", "@alice #sport")


class Reading(RuleBasedStateMachine):
    """A reader beside a list of all messages, and what its client knows."""

    def __init__(self) -> None:
        super().__init__()
        self.chunks = chunks_of(max_messages=8)
        self.window = self.chunks.window
        self.reader = reader_of(self.chunks)
        self.published: list[Message] = []
        self.position = nth(0)
        self.told = nth(0)
        """The last number of the last gap that was declared."""
        self.topics: set[str] = set()
        self.seen: dict[int, set[str]] = {}
        """The numbers that were delivered, and the keys followed ever since that made each visible."""
        self.backfill: tuple[set[str], int, int] | None = None
        """The topics that are still followed, the position, and the end."""
        self.seen_before: set[int] = set()
        """The numbers that were delivered before the backfill, also for topics that are unfollowed during it."""

    @property
    def keys(self) -> set[str]:
        return {"@alice", *(f"#{topic}" for topic in self.topics)}

    def visible(self, after: int, through: int) -> list[int]:
        """Return the numbers, evicted or not, that the client is to see."""
        return [
            each.sequence_number
            for each in self.published
            if after < each.sequence_number <= through
            and (each.audience.keys is None or each.audience.keys & self.keys)
        ]

    def of_backfill(self, after: int, through: int) -> list[int]:
        """Return the numbers, evicted or not, that are for the topics of the backfill."""
        assert self.backfill
        wanted = {f"#{topic}" for topic in self.backfill[0]}
        return [
            each.sequence_number
            for each in self.published
            if after < each.sequence_number <= through
            and (each.audience.keys or set()) & wanted
            and each.sequence_number not in self.seen_before
        ]

    # What happens

    @rule(audience=st.sampled_from(AUDIENCES), count=st.integers(1, 4), size=st.sampled_from([0, 0, LARGE]))
    def publish(self, audience: str, count: int, size: int) -> None:
        self.published += [append(self.window, audience, size=size) for _ in range(count)]

    @rule(writable=st.booleans())
    def flush(self, *, writable: bool) -> None:
        """Visit the reader if it sees what is new."""
        flushed = self.chunks.flushed_through
        if flushed < self.window.evicted_through or self.visible(flushed, self.window.latest):
            if writable:
                self.read_all()
            else:
                self.reader.pause()
        self.chunks.flushed_through = self.window.latest

    @rule()
    def read_one_chunk(self) -> None:
        for frame in step(self.reader):
            self.take(frame)
        if self.reader.up_to_date:
            self.move_to(self.window.latest)

    @rule()
    def read_all(self) -> None:
        self.read_one_chunk()
        while not self.reader.up_to_date:
            self.read_one_chunk()

    @rule(left=st.integers(0, 3))
    def expire(self, left: int) -> None:
        """Evict all but some messages."""
        self.window.expire(self.window.latest - left - FIRST + AGE)

    @precondition(lambda self: self.backfill is None)
    @rule(topics=st.sets(st.sampled_from(TOPICS), min_size=1), back=st.none() | st.integers(0, 12))
    def follow(self, topics: set[str], back: int | None) -> None:
        self.move_to(self.reader.position)
        since = None if back is None else max(self.reader.position - back, nth(0))
        new = topics - self.topics
        self.topics |= topics
        change = self.reader.follow(frozenset(topics), since=since if since != nth(0) else 0)
        assert TopicChange(added=frozenset(new)) == change
        if since is not None:
            self.backfill = new, since, self.position
            self.seen_before = {number for number, keys in self.seen.items() if keys}

    @rule(topic=st.sampled_from(TOPICS))
    def unfollow(self, topic: str) -> None:
        self.move_to(self.reader.position)
        change = self.reader.unfollow([topic])
        assert TopicChange(removed=frozenset({topic} & self.topics)) == change
        self.topics.discard(topic)
        for keys in self.seen.values():
            keys.discard(f"#{topic}")
        if self.backfill:
            self.backfill[0].discard(topic)

    @rule()
    def answer(self) -> None:
        number = self.window.latest
        self.reader.send(b'{"type":"published","sequence_number":%d}' % number, after=number)
        self.reader.send(b'{"type":"pong"}')
        self.reader.send_heartbeat()

    # What the client gets

    def take(self, frame: dict[str, Any]) -> None:
        match frame:
            case {"type": "m", "sequence_number": number} if number > self.position:
                self.move_to(number - 1)
                assert [number] == self.visible(self.position, number), "not for this client"
                self.position = number
                self.see(number, self.keys)
            case {"type": "m", "sequence_number": number}:
                self.take_of_backfill(number)
            case {"type": "gap", "from": first, "to": last, "sequence_number": number}:
                self.move_to(number)
                assert self.position + 1 == first
                assert last > self.told, "declared before"
                lost = self.visible(self.position, self.window.evicted_through)
                assert last == lost[-1], "a false gap, or not all of it"
                self.told = last
            case {"type": "following", "outcome": "gap", "from": first, "to": last}:
                self.end_backfill("gap", first, last)
            case {"type": "following", "outcome": outcome}:
                self.end_backfill(outcome)
            case {"type": "published", "sequence_number": number}:
                self.move_to(number)
            case {"type": "heartbeat", "sequence_number": number}:
                self.move_to(number)
                assert [] == self.visible(number, self.window.latest)
            case _:
                assert frame["type"] in {"pong", "following"}

    def move_to(self, number: int) -> None:
        """Move the position, past nothing that the client is to see."""
        if number > self.position:
            assert [] == self.visible(max(self.position, self.told), number), "silent loss"
            passed = self.visible(self.position, number)
            assert all(each <= self.window.evicted_through for each in passed), "lost, although it is retained"
            self.position = number

    def see(self, number: int, keys: set[str]) -> None:
        [audience] = [each.audience.keys for each in self.published if each.sequence_number == number]
        assert not self.seen.get(number), "delivered twice"
        self.seen[number] = {"@alice"} if audience is None else {*audience} & keys

    def take_of_backfill(self, number: int) -> None:
        assert self.backfill, "delivered twice, or out of order"
        topics, position, until = self.backfill
        assert position < number <= until, "out of order"
        passed = [each for each in self.of_backfill(position, number) if not self.seen.get(each)]
        assert number == passed[-1]
        assert all(each <= self.window.evicted_through for each in passed[:-1]), "silent loss"
        self.backfill = topics, number, until
        self.see(number, self.keys)

    def end_backfill(self, outcome: str, first: int = 0, last: int = 0) -> None:
        assert self.backfill
        _, position, until = self.backfill
        missing = [each for each in self.of_backfill(position, until) if not self.seen.get(each)]
        assert all(each <= self.window.evicted_through for each in missing), "silent loss"
        assert not missing or (outcome == "gap" and first <= missing[0] and missing[-1] <= last)
        assert last <= self.window.evicted_through, "a false gap"
        self.backfill = None

    def teardown(self) -> None:
        self.read_all()
        assert self.window.latest == self.reader.position


TestReading = Reading.TestCase
TestReading.settings = settings(max_examples=2 * settings().max_examples, stateful_step_count=40)
