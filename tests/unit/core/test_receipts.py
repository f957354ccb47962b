"""Idempotency keys and their first answers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmissed.core.errors import IdempotencyConflict
from unmissed.core.messages import Draft
from unmissed.core.receipts import Receipt, Receipts, fingerprint_of

SAME = b"fingerprint"


def receipt(first: int) -> Receipt:
    return Receipt(first=first, count=1, epoch="e", timestamp="2026-01-31T12:00:00.000Z")


def test_a_new_key_has_no_receipt() -> None:
    assert None is Receipts(max_age=10.0).find("key", fingerprint=SAME, now=0.0)


def test_a_known_key_has_its_first_answer() -> None:
    receipts = Receipts(max_age=10.0)
    receipts.keep("key", receipt(1), fingerprint=SAME, now=0.0)
    receipts.keep("other", receipt(2), fingerprint=SAME, now=0.0)

    assert receipt(1) == receipts.find("key", fingerprint=SAME, now=1.0)


def test_a_known_key_of_something_else_is_a_conflict_and_stays_known() -> None:
    receipts = Receipts(max_age=10.0)
    receipts.keep("key", receipt(1), fingerprint=SAME, now=0.0)

    with pytest.raises(IdempotencyConflict, match="was used for another message: use a new key"):
        receipts.find("key", fingerprint=b"another", now=1.0)
    assert receipt(1) == receipts.find("key", fingerprint=SAME, now=1.0)


def test_a_forgotten_key_is_no_conflict() -> None:
    receipts = Receipts(max_age=10.0)
    receipts.keep("key", receipt(1), fingerprint=SAME, now=0.0)

    assert None is receipts.find("key", fingerprint=b"another", now=10.0)


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


def test_a_key_is_known_until_just_before_max_age() -> None:
    receipts = Receipts(max_age=10.0)
    receipts.keep("key", receipt(1), fingerprint=SAME, now=100.0)

    assert receipt(1) == receipts.find("key", fingerprint=SAME, now=109.999)
    assert None is receipts.find("key", fingerprint=SAME, now=110.0)


def test_asking_for_a_key_does_not_keep_it_longer() -> None:
    receipts = Receipts(max_age=10.0)
    receipts.keep("key", receipt(1), fingerprint=SAME, now=0.0)
    receipts.find("key", fingerprint=SAME, now=9.0)

    assert None is receipts.find("key", fingerprint=SAME, now=11.0)


def test_expiry_forgets_the_old_and_keeps_the_young() -> None:
    receipts = Receipts(max_age=10.0)
    receipts.keep("old", receipt(1), fingerprint=SAME, now=0.0)
    receipts.keep("young", receipt(2), fingerprint=SAME, now=5.0)

    receipts.expire(10.0)

    assert 1 == len(receipts)
    assert receipt(2) == receipts.find("young", fingerprint=SAME, now=10.0)


def test_the_oldest_keys_go_when_there_are_too_many() -> None:
    receipts = Receipts(max_age=10.0, max_keys=2)
    for first, key in enumerate(("a", "b", "c"), start=1):
        receipts.keep(key, receipt(first), fingerprint=SAME, now=0.0)

    assert 2 == len(receipts)
    assert None is receipts.find("a", fingerprint=SAME, now=0.0)
    assert receipt(3) == receipts.find("c", fingerprint=SAME, now=0.0)


@given(pauses=st.lists(st.integers(0, 5), max_size=30), max_keys=st.integers(1, 10), asked_after=st.integers(0, 15))
def test_the_newest_keys_that_are_young_enough_are_known(pauses: list[int], max_keys: int, asked_after: int) -> None:
    receipts, kept, now = Receipts(max_age=10.0, max_keys=max_keys), list[int](), 0
    for number, pause in enumerate(pauses):
        now += pause
        receipts.keep(str(number), receipt(number), fingerprint=SAME, now=now)
        kept.append(now)
    now += asked_after

    newest = len(kept) - max_keys
    expected = [number for number, kept_at in enumerate(kept) if now - kept_at < 10 and number >= newest]
    assert expected == [number for number in range(len(kept)) if receipts.find(str(number), fingerprint=SAME, now=now)]
    assert len(expected) == len(receipts)
