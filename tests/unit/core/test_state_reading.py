"""The state of a client: the values that it sees, in order, cut at one number."""

import json
from typing import Any

import pytest

from support import FIRST, nth, nths
from unmissed.core.audience import EVERYONE, Audience, keys_of
from unmissed.core.chunks import CHUNK_BYTES, Chunks
from unmissed.core.errors import InvalidFrame
from unmissed.core.messages import Message, Value
from unmissed.core.reader import ClientReader, ReadCounts
from unmissed.core.retention import Retention, Rule
from unmissed.core.state_reading import StateReading
from unmissed.core.window import SCAN, Window

LARGE = CHUNK_BYTES * 2 // 3
"""Bytes of a value of which one frame holds one."""


def value(window: Window, audience: str, value: Value | None, *, size: int = 0) -> None:
    """Append a message with this value, or an ordinary one, for ``"all"``, ``"@user"`` or ``"#topic"``."""
    number = window.latest + 1
    payload = b'{"type":"m","sequence_number":%d,"timestamp":"","data":"%b"}' % (number, b"x" * size)
    addressed = EVERYONE if audience == "all" else Audience.with_keys([audience])
    window.append(Message(number, "", payload, addressed, float(number - FIRST), value))


def window_of(*values: tuple[str, Value | None], size: int = 0, max_messages: int = 100_000) -> Window:
    window = Window(Retention(max_messages=max_messages, max_age=1e6, max_bytes=2**40), epoch="e", first_number=FIRST)
    for audience, each in values:
        value(window, audience, each, size=size)
    return window


def reader_of(window: Window, *topics: str, start: int, state: bool = False) -> ClientReader:
    reader = ClientReader(
        Chunks(window), ReadCounts(), user_id="alice", topics=frozenset(topics), chose_topics=True, start=start
    )
    reader.greet(b'{"type":"connected"}', heartbeat=False, state=state)
    return reader


def read(reader: ClientReader) -> list[dict[str, Any]]:
    """Return all frames, in as many turns as it takes."""
    frames: list[dict[str, Any]] = []
    turn = ""
    while turn != "is done":
        chunk, turn = reader.next_chunk()
        frames += map(json.loads, chunk.payloads)
    return frames


def kinds(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["type"] for frame in frames]


def state_of(frames: list[dict[str, Any]]) -> list[int]:
    """Return the numbers of all values in frames of a state."""
    return [each["sequence_number"] for frame in frames if frame["type"] == "state" for each in frame["values"]]


A, B, PIECE, TOMBSTONE = Value("a"), Value("b"), Value("c", append=True), Value("d", deleted=True)


def test_the_state_has_values_and_pieces_but_neither_messages_nor_tombstones() -> None:
    window = window_of(("all", A), ("all", None), ("all", PIECE), ("all", TOMBSTONE), ("all", PIECE))

    frames = read(reader_of(window, start=nth(5), state=True))

    assert ["connected", "state"] == kinds(frames)
    assert (nths(1, 3, 5), False, nth(5)) == (state_of(frames), frames[1]["has_more"], frames[1]["sequence_number"])


def test_the_state_is_of_what_the_client_sees() -> None:
    window = window_of(("@bob", A), ("@alice", A), ("#news", A), ("#sport", A), ("all", A))

    assert nths(2, 4, 5) == state_of(read(reader_of(window, "sport", start=nth(5), state=True)))


def test_a_client_without_values_gets_an_empty_state() -> None:
    [_, state] = read(reader_of(window_of(("@bob", A)), start=nth(1), state=True))

    assert {"type": "state", "values": [], "has_more": False, "sequence_number": nth(1)} == state


def test_what_is_newer_than_the_state_follows_as_messages() -> None:
    window = window_of(("all", A), ("all", B))

    reader = reader_of(window, start=nth(1), state=True)
    value(window, "all", Value("c"))

    frames = read(reader)
    assert ["connected", "state", "m", "m"] == kinds(frames)
    assert (nths(1), nth(1)) == (state_of(frames), frames[1]["sequence_number"])
    assert nths(2, 3) == [frame["sequence_number"] for frame in frames[2:]]
    assert (True, nth(3)) == (reader.up_to_date, reader.position)


def test_a_large_state_comes_in_bounded_frames_of_which_the_last_has_the_number() -> None:
    window = window_of(("all", A), ("all", B), ("all", Value("c")), size=LARGE)

    frames = read(reader_of(window, start=nth(3), state=True))[1:]

    assert [nths(1), nths(2), nths(3)] == [[each["sequence_number"] for each in frame["values"]] for frame in frames]
    assert [True, True, False] == [frame["has_more"] for frame in frames]
    assert [None, None, nth(3)] == [frame.get("sequence_number") for frame in frames]


def test_each_part_of_a_state_is_a_turn_and_looks_at_a_bounded_number_of_messages() -> None:
    window = window_of(("all", A), *[("all", None)] * (3 * SCAN), ("all", B))
    reader = reader_of(window, start=window.latest, state=True)

    turns = [reader.next_chunk()]
    while turns[-1][1] == "is over":
        turns.append(reader.next_chunk())

    assert 4 == len(turns)
    assert [2, 0, 0, 1] == [len(chunk.payloads) for chunk, _ in turns]
    assert "is done" == turns[-1][1]


def test_a_step_may_end_before_a_value_that_does_not_fit() -> None:
    window = window_of(("all", A), ("all", B), size=LARGE)
    reading = StateReading(nth(0), nth(2), keys_of("alice"))

    assert [] == reading.step(window, room=10, whatever=False)
    assert (True, nth(0)) == (reading.full, reading.position)
    assert nths(1) == [each.sequence_number for each in reading.step(window, room=10)]
    assert nths(2) == [each.sequence_number for each in reading.step(window, room=CHUNK_BYTES)]
    assert reading.complete


# With topics that are followed later


def test_the_state_of_new_topics_comes_before_the_answer() -> None:
    window = window_of(("#news", A), ("#sport", A), ("all", A))
    reader = reader_of(window, start=nth(3))
    read(reader)

    reader.follow(frozenset({"news"}), state=True, request_id="f1")

    state, following = read(reader)
    assert (nths(1), nth(3), "f1") == (state_of([state]), state["sequence_number"], state["id"])
    assert ("following", ["news"], "f1") == (following["type"], following["added"], following["id"])
    assert "outcome" not in following


def test_the_state_is_sent_again_for_a_topic_that_is_followed_already() -> None:
    window = window_of(("#news", A))
    reader = reader_of(window, "news", start=nth(1))
    read(reader)

    reader.follow(frozenset({"news"}), state=True)

    assert nths(1) == state_of(read(reader))


def test_no_state_is_sent_if_the_past_of_the_topics_is_complete() -> None:
    window = window_of(("#news", A), ("#news", B))
    reader = reader_of(window, start=nth(2))
    read(reader)

    reader.follow(frozenset({"news"}), since=nth(1), state=True)

    assert ["m", "following"] == kinds(read(reader))


RULES = (Rule("news", 10, 1e6), Rule("sport", 10, 1e6))


def window_with_a_gap() -> Window:
    """Return a window of values 1 for ``#sport`` and 2 for ``#news``, and 11 messages, of which 3 was evicted."""
    window = Window(Retention(max_age=1e6, rules=RULES), epoch="e", first_number=FIRST)
    for audience in ("#sport", "#news"):
        value(window, audience, A)
    for _ in range(11):
        value(window, "#news", None)
    return window


def test_after_a_gap_the_state_is_cut_where_the_past_begins() -> None:
    window = window_with_a_gap()
    reader = reader_of(window, start=window.latest)
    read(reader)

    reader.follow(frozenset({"news"}), since=nth(2), state=True)

    frames = read(reader)
    assert ["state", *["m"] * 10, "following"] == kinds(frames)
    assert (nths(2), nth(2)) == (state_of(frames), frames[0]["sequence_number"])
    assert ("gap", nth(3), nth(3)) == tuple(frames[-1][name] for name in ("outcome", "from", "to"))


def test_after_a_gap_the_state_leaves_out_topics_that_were_followed_before() -> None:
    """Their messages after ``since`` were delivered, and do not come again."""
    window = window_with_a_gap()
    reader = reader_of(window, "sport", start=window.latest)
    read(reader)

    reader.follow(frozenset({"news", "sport"}), since=nth(2), state=True)

    assert nths(2) == state_of(read(reader))


def test_the_state_has_only_the_newest_of_each_key_and_what_is_whole() -> None:
    window = window_of(("all", A), ("all", PIECE), ("all", A), max_messages=10)
    for _ in range(10):
        value(window, "all", Value("c", append=True))

    frames = read(reader_of(window, start=window.latest, state=True))

    assert nths(3) == state_of(frames), "the first piece was evicted"


def test_a_state_does_not_contain_topics_that_were_unfollowed_while_it_was_sent() -> None:
    window = window_of(("#news", A), ("#sport", A), ("#news", B), size=CHUNK_BYTES)
    reader = reader_of(window, "news", "sport", start=nth(3), state=True)
    reader.next_chunk()

    reader.unfollow(["news"])

    assert nths(2) == state_of(read(reader))


def test_another_state_is_refused_until_the_first_is_complete() -> None:
    window = window_of(("all", A), ("all", B), ("all", Value("c")), size=LARGE)
    reader = reader_of(window, start=nth(3), state=True)
    reader.next_chunk()

    with pytest.raises(InvalidFrame):
        reader.follow(frozenset({"news"}), state=True)

    assert {"news"} == reader.follow(frozenset({"news"})).added
    assert ["following", "state", "state"] == kinds(read(reader))
    assert {"sport"} == reader.follow(frozenset({"sport"}), state=True).added
