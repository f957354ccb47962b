"""Idempotency keys and their first answers."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmissed.core.errors import IdempotencyConflict, TooManyRequests
from unmissed.core.messages import Draft
from unmissed.core.receipts import KEY_BYTES, Receipt, Receipts, fingerprint_of, key_of_user

FIRST = 1_796_000_000_000_000
SAME, OTHER = b"s" * 32, b"o" * 32


def receipt(first: int) -> Receipt:
    return Receipt(first=first, count=1, epoch="e", timestamp="2026-01-31T12:00:00.000Z")


def test_a_new_key_has_no_receipt() -> None:
    assert None is Receipts(max_age=10.0, epoch="e").find("key", fingerprint=SAME, now=0.0)


def test_a_known_key_has_its_first_answer() -> None:
    receipts = Receipts(max_age=10.0, epoch="e")
    receipts.keep("key", receipt(1), fingerprint=SAME, now=0.0)
    receipts.keep("other", receipt(2), fingerprint=SAME, now=0.0)

    assert receipt(1) == receipts.find("key", fingerprint=SAME, now=1.0)


def test_a_known_key_of_something_else_is_a_conflict_and_stays_known() -> None:
    receipts = Receipts(max_age=10.0, epoch="e")
    receipts.keep("key", receipt(1), fingerprint=SAME, now=0.0)

    with pytest.raises(IdempotencyConflict, match="was used for another message: use a new key"):
        receipts.find("key", fingerprint=OTHER, now=1.0)
    assert receipt(1) == receipts.find("key", fingerprint=SAME, now=1.0)


def test_a_forgotten_key_is_no_conflict() -> None:
    receipts = Receipts(max_age=10.0, epoch="e")
    receipts.keep("key", receipt(1), fingerprint=SAME, now=0.0)

    assert None is receipts.find("key", fingerprint=OTHER, now=11.25)


def drafts(*messages: dict[str, Any]) -> list[Draft]:
    return [Draft.of(message, max_bytes=10_000) for message in messages]


def test_the_same_drafts_have_the_same_fingerprint_however_their_users_are_listed() -> None:
    ids = [f"user {number}" for number in range(50)]

    assert fingerprint_of(drafts({"type": "a", "users": ids}, {"type": "b"})) == fingerprint_of(
        drafts({"users": [*reversed(ids), "user 7"], "type": "a"}, {"type": "b"})
    )


def test_other_drafts_have_other_fingerprints() -> None:
    different = [
        drafts({"type": "a"}),
        drafts({"type": "b"}),
        drafts({"type": "a", "data": None}),
        drafts({"type": "a", "data": 1}),
        drafts({"type": "a", "users": ["b"]}),
        drafts({"type": "a", "users": ["b", "c"]}),
        drafts({"type": "a", "users": ["bc"]}),
        drafts({"type": "a", "users": ["b:1:c"]}),
        drafts({"type": "a"}, {"type": "a"}),
        drafts({"type": "a"}, {"type": "b"}),
        drafts({"type": "b"}, {"type": "a"}),
        drafts({"type": "a", "users": ["b"]}, {"type": "a"}),
        drafts({"type": "a"}, {"type": "a", "users": ["b"]}),
    ]

    assert len(different) == len({fingerprint_of(each) for each in different})


def test_a_key_is_known_for_max_age_and_at_most_an_eighth_longer() -> None:
    receipts = Receipts(max_age=10.0, epoch="e")
    receipts.keep("key", receipt(1), fingerprint=SAME, now=100.0)

    assert receipt(1) == receipts.find("key", fingerprint=SAME, now=109.999)
    assert None is receipts.find("key", fingerprint=SAME, now=111.25)


def test_asking_for_a_key_does_not_keep_it_longer() -> None:
    receipts = Receipts(max_age=10.0, epoch="e")
    receipts.keep("key", receipt(1), fingerprint=SAME, now=0.0)
    receipts.find("key", fingerprint=SAME, now=9.0)

    assert None is receipts.find("key", fingerprint=SAME, now=11.25)


def test_expiry_forgets_the_old_and_keeps_the_young() -> None:
    receipts = Receipts(max_age=10.0, epoch="e")
    receipts.keep("old", receipt(1), fingerprint=SAME, now=0.0)
    receipts.keep("young", receipt(2), fingerprint=SAME, now=5.0)

    receipts.expire(11.25)

    assert 1 == len(receipts)
    assert receipt(2) == receipts.find("young", fingerprint=SAME, now=11.25)


def test_a_receipt_comes_back_with_every_stamp() -> None:
    receipts = Receipts(max_age=10.0, epoch="e")
    stamps = Receipt(first=2**53 - 1, count=2**32 - 1, epoch="e", timestamp="9999-12-31T23:59:59.999Z")
    receipts.keep("key", stamps, fingerprint=SAME, now=0.0)

    assert stamps == receipts.find("key", fingerprint=SAME, now=0.0)


def publish(receipts: Receipts, key: str, *, now: float = 0.0) -> bool:
    """Return whether a key was remembered."""
    try:
        if receipts.find(key, fingerprint=SAME, now=now) is None:
            receipts.keep(key, receipt(FIRST), fingerprint=SAME, now=now)
    except TooManyRequests:
        return False
    return True


def test_a_user_with_too_many_keys_is_refused_and_no_key_is_forgotten() -> None:
    receipts = Receipts(max_age=10.0, max_keys=1_000, epoch="e")
    keys = [key_of_user("mallory", str(number)) for number in range(2_000)]

    known = [key for key in keys if publish(receipts, key)]

    assert 400 < len(known) <= 440
    assert known == keys[: len(known)]
    assert [receipt(FIRST)] * len(known) == [receipts.find(key, fingerprint=SAME, now=9.999) for key in known]
    with pytest.raises(TooManyRequests, match="too many idempotency keys are in use: retry in 12 s"):
        receipts.find(key_of_user("mallory", "new"), fingerprint=SAME, now=0.0)


def test_users_with_very_many_keys_leave_room_for_others() -> None:
    receipts = Receipts(max_age=10.0, max_keys=1_000, epoch="e")
    for user in range(20):
        for number in range(1_000):
            publish(receipts, key_of_user(f"mallory {user}", str(number)))

    assert publish(receipts, key_of_user("bob", "payment"))
    assert publish(receipts, key_of_user(None, "payment"))
    assert len(receipts) <= 1_000


def test_a_user_who_was_refused_may_add_keys_when_the_old_ones_are_forgotten() -> None:
    receipts = Receipts(max_age=10.0, max_keys=10, epoch="e")
    while publish(receipts, key_of_user("bob", str(len(receipts)))):
        pass

    assert not publish(receipts, key_of_user("bob", "later"), now=9.0)
    assert publish(receipts, key_of_user("bob", "later"), now=11.25)


def test_the_same_key_of_two_users_is_two_keys_of_bounded_length() -> None:
    keys = {key_of_user(user, key) for user in (None, "a", "b", "-", "x" * 8_000) for key in ("1", "2", ":", "y" * 255)}

    assert 20 == len(keys)
    assert max(map(len, keys)) <= 41


@pytest.mark.parametrize(
    "users", [pytest.param(1, id="one user"), pytest.param(10_000, marks=pytest.mark.long, id="a user each")]
)
@pytest.mark.long
def test_a_key_takes_no_more_memory_than_is_stated(users: int) -> None:
    count = 30_000
    tracemalloc.start()
    receipts = Receipts(max_age=900.0, epoch="e")
    before, _ = tracemalloc.get_traced_memory()
    for number in range(count):
        key = key_of_user(f"user {number % users}", str(number))
        receipts.keep(key, receipt(FIRST + number), fingerprint=number.to_bytes(32), now=0.03 * number)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert count == len(receipts)
    places = count + users * 8
    assert (after - before) / min(places, 2 * count) < KEY_BYTES


@given(pauses=st.lists(st.integers(0, 5), max_size=30), asked_after=st.integers(0, 15))
def test_the_keys_that_are_young_enough_are_known(pauses: list[int], asked_after: int) -> None:
    receipts, kept, now = Receipts(max_age=10.0, epoch="e"), list[int](), 0
    for number, pause in enumerate(pauses):
        now += pause
        receipts.keep(str(number), receipt(number), fingerprint=SAME, now=now)
        kept.append(now)
    now += asked_after

    known = {number for number in range(len(kept)) if receipts.find(str(number), fingerprint=SAME, now=now)}

    assert {number for number, kept_at in enumerate(kept) if now - kept_at < 10} <= known
    assert known <= {number for number, kept_at in enumerate(kept) if now - kept_at < 11.25}
