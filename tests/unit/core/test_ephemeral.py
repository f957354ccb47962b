"""Ephemeral messages: those that wait are bounded, and each is encoded once."""

from support import nth
from unmissed.core.audience import EVERYONE, Audience, keys_of
from unmissed.core.ephemeral import Ephemeral, LiveBatch, WaitingMessages

NEWS, BOB = Audience.of(topics=["news"]), Audience.of(users=["bob"])


def message(payload: bytes, audience: Audience = EVERYONE, *, after: int = 0, ends_at: float = 1.0) -> Ephemeral:
    return Ephemeral(payload, audience, after, ends_at)


def test_each_client_sees_what_is_for_it_in_order() -> None:
    batch = LiveBatch([message(b"1"), message(b"2", NEWS), message(b"3", BOB)])

    seen = [batch.visible_to(keys) for keys in (keys_of("alice"), keys_of("bob"), keys_of("bob", ["news"]))]

    assert [(b"1",), (b"1", b"3"), (b"1", b"2", b"3")] == [chunk and chunk.payloads for chunk in seen]
    assert LiveBatch([message(b"2", NEWS)]).visible_to(keys_of("alice")) is None


def test_clients_that_see_the_same_share_one_encoding() -> None:
    batch = LiveBatch([message(b"1"), message(b"2", NEWS)])

    one, two = batch.visible_to(keys_of("alice", ["news"])), batch.visible_to(keys_of("bob", ["news", "sport"]))
    alone = batch.visible_to(keys_of("carol"))

    assert one is two
    assert alone is not None
    assert alone is batch.visible_to(keys_of("dave"))


def test_a_batch_names_those_who_see_any_of_it() -> None:
    assert LiveBatch([message(b"1"), message(b"2", NEWS)]).keys is None
    assert frozenset({"#news", "@bob"}) == LiveBatch([message(b"1", BOB), message(b"2", NEWS)]).keys


def test_what_waits_for_earlier_messages_is_taken_when_they_are_there_or_dropped_in_time() -> None:
    waiting = WaitingMessages()
    waiting.add([message(b"1"), message(b"2", after=nth(5)), message(b"3", after=nth(9), ends_at=2.0)])

    taken = [
        waiting.take(nth(4), now=0.0),
        waiting.take(nth(5), now=0.5),
        waiting.take(nth(8), now=1.5),
        waiting.take(nth(8), now=2.0),
    ]

    assert [([b"1"], 0), ([b"2"], 0), ([], 0), ([], 1)] == [
        ([each.payload for each in found], dropped) for found, dropped in taken
    ]
    assert 0 == len(waiting.messages)


def test_the_oldest_are_dropped_when_too_many_or_too_much_waits() -> None:
    few, small = WaitingMessages(most=2), WaitingMessages(most_bytes=10)

    assert (1, 1) == (few.add(map(message, (b"1", b"2", b"3"))), small.add(map(message, (b"123456", b"78", b"9ab"))))
    assert [b"2", b"3"] == [each.payload for each in few.take(0, now=0.0)[0]]
    assert [b"78", b"9ab"] == [each.payload for each in small.take(0, now=0.0)[0]]
    assert 0 == small.add([message(b"more than ten bytes")])
