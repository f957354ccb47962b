"""Chunks: built and encoded once, and shared."""

from support import FIRST, nth, nths
from unmissed.core.audience import EVERYONE, Audience, keys_of
from unmissed.core.chunks import CHUNK_BYTES, Chunk, Chunks, JoinedChunk, http_chunk
from unmissed.core.messages import Message
from unmissed.core.retention import Retention
from unmissed.core.server_frames import HeartbeatFrame
from unmissed.core.window import Window

ALICE, BOB = keys_of("alice"), keys_of("bob")


def window_of(*payloads: bytes, audience: Audience = EVERYONE) -> Window:
    window = Window(Retention(), epoch="life", first_number=FIRST)
    for number, payload in enumerate(payloads, start=FIRST):
        window.append(Message(number, "2026-01-31T12:00:00.000Z", payload, audience, 0.0))
    return window


def test_everyone_at_one_position_shares_one_chunk_and_its_frames() -> None:
    chunks = Chunks(window_of(b"a", b"b"))

    first, second = chunks.after(nth(1)), chunks.after(nth(1))

    assert first is second
    assert first.frames is second.frames
    assert first.events is second.events
    assert first.http_chunk is second.http_chunk
    assert first.visible_to(ALICE) is first.visible_to(BOB)


def test_a_chunk_is_built_again_when_the_window_has_grown() -> None:
    window = window_of(b"a")
    chunks = Chunks(window)
    before = chunks.after(nth(0))
    window.append(Message(nth(2), "2026-01-31T12:00:00.000Z", b"b", EVERYONE, 0.0))

    assert (b"a",) == before.payloads
    assert (b"a", b"b") == chunks.after(nth(0)).payloads


def test_a_chunk_is_built_again_when_a_message_was_removed() -> None:
    window = window_of(b"a", b"b")
    chunks = Chunks(window)
    before = chunks.after(nth(0))
    window.expire(Retention().max_age)

    assert (b"a", b"b") == before.payloads
    assert () == chunks.after(nth(0)).payloads


def test_a_chunk_after_which_nothing_is_retained_is_empty_and_ends_at_the_latest_number() -> None:
    window = window_of(b"a", b"b")
    window.expire(Retention().max_age)
    window.skip(nth(7))

    chunk = Chunks(window).after(nth(1))

    assert ((), nth(7)) == (chunk.payloads, chunk.last)
    assert ((), nth(5)) == (chunk.through(nth(5)).payloads, chunk.through(nth(5)).last)


def test_a_chunk_ends_before_it_is_too_large_but_has_at_least_one_message() -> None:
    half, large = b"x" * (CHUNK_BYTES // 2), b"x" * (CHUNK_BYTES + 1)
    chunks = Chunks(window_of(half, half, b"x", large))

    assert nths(2, 3, 4) == [chunks.after(position).last for position in nths(0, 2, 3)]


def test_a_chunk_for_one_user_leaves_out_the_messages_of_others_but_not_their_numbers() -> None:
    chunk = Chunks(window_of(b"secret", audience=Audience.of(users=["alice"]))).after(nth(0))

    assert ((b"secret",), nth(1)) == (chunk.visible_to(ALICE).payloads, chunk.visible_to(ALICE).last)
    assert ((), nth(1)) == (chunk.visible_to(BOB).payloads, chunk.visible_to(BOB).last)


def test_a_chunk_through_a_number_leaves_out_what_follows() -> None:
    chunk = Chunks(window_of(b"a", b"b", b"c")).after(nth(0)).through(nth(2))

    assert ((b"a", b"b"), nth(2)) == (chunk.payloads, chunk.last)


def test_a_chunk_of_what_one_user_sees_ends_at_the_last_number() -> None:
    chunks = Chunks(window_of(b"a", b"b", b"c", audience=Audience.of(users=["alice"])))

    chunk = chunks.visible_after(nth(0), ALICE, last=nth(2))

    assert ((b"a", b"b"), nth(2)) == (chunk.payloads, chunk.last)


def test_a_joined_chunk_has_the_frames_of_its_parts() -> None:
    joined = JoinedChunk(Chunk(b"a"), Chunk(b"b", b"c"))

    assert (b"a", b"b", b"c") == joined.payloads
    assert b"\x81\x01a\x81\x01b\x81\x01c" == joined.frames
    assert ("a", "b", "c") == joined.texts


def test_the_messages_of_a_chunk_are_events_with_their_numbers() -> None:
    chunk = Chunks(window_of(b"a", b"b")).after(nth(0))

    assert f"id: {nth(1)}\ndata: a\n\nid: {nth(2)}\ndata: b\n\n".encode() == chunk.events
    assert http_chunk(chunk.events) == chunk.http_chunk


def test_a_joined_chunk_has_the_events_of_its_parts_in_http_chunks_of_their_own() -> None:
    joined = JoinedChunk(
        Chunk(HeartbeatFrame(sequence_number=nth(4)).encode()), Chunk(), Chunks(window_of(b"a")).after(nth(0))
    )

    heartbeat, message = (part.events for part in joined.parts if part.payloads)
    assert heartbeat.startswith(b"id: %d\n" % nth(4))
    assert heartbeat + message == joined.events
    assert http_chunk(heartbeat) + http_chunk(message) == joined.http_chunk
