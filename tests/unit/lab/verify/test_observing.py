"""What clients read of frames and pages."""

import pytest

from unmissed.core.rest import RecoveryAnswer
from unmissed.lab.verify.observing import content_of, decoded, message_of, page_of

RAW = b'{"type":"verify","sequence_number":7,"timestamp":"2026-01-31T12:00:00.000Z","data":{"id":"x-1","pad":"xx"}}'
OTHER = b'{"type":"chat","sequence_number":8,"timestamp":"2026-01-31T12:00:00.000Z","data":{"text":"a, ]}"}}'


def test_a_message_of_a_run_has_its_id_and_the_content_that_was_published() -> None:
    message = message_of(RAW, decoded(RAW))

    assert (7, "x-1") == (message.number, message.message_id)
    assert content_of({"type": "verify", "data": {"pad": "xx", "id": "x-1"}, "users": ["alice"]}) == message.content


def test_a_message_of_others_has_neither() -> None:
    message = message_of(OTHER, decoded(OTHER))

    assert (8, None, None) == (message.number, message.message_id, message.content)


def test_a_message_has_the_same_digest_in_a_page() -> None:
    answer = RecoveryAnswer(
        payloads=[RAW, OTHER],
        epoch="e",
        first=1,
        oldest=7,
        latest=9,
        outcome="complete",
        has_more=True,
        sequence_number=8,
        lost=None,
        heartbeat_seconds=25.0,
        max_age=900.0,
        rate=10.0,
        burst=20,
    )

    page = page_of(answer.encode().decode())

    assert [message_of(raw, decoded(raw)) for raw in (RAW, OTHER)] == [*page.messages]
    assert ("e", 7, 9, "complete", True) == (page.epoch, page.oldest, page.latest, page.outcome, page.has_more)
    assert (8, None) == (page.reached, page.lost)


def test_a_page_with_a_gap_has_its_range_and_does_not_move_the_start() -> None:
    answer = RecoveryAnswer(
        payloads=[RAW],
        epoch="e",
        first=1,
        oldest=7,
        latest=9,
        outcome="gap",
        has_more=False,
        sequence_number=9,
        lost=(4, 6),
        heartbeat_seconds=25.0,
        max_age=900.0,
        rate=10.0,
        burst=20,
    )

    page = page_of(answer.encode().decode())

    assert (3, (4, 6), 9) == (page.start(3), page.lost, page.reached)


def test_one_other_byte_is_another_digest() -> None:
    other = RAW.replace(b".000Z", b".001Z")

    assert message_of(RAW, decoded(RAW)).digest != message_of(other, decoded(other)).digest


@pytest.mark.parametrize("raw", [b"[]", b"1", b"{"])
def test_a_frame_that_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decoded(raw)
