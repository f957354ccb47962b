"""Which numbers the messages of a stream have."""

from hypothesis import given
from hypothesis import strategies as st

from support import nth
from unmissed.logs.jetstream.segments import Numbering, Segment


def skipped(*, lossy: bool) -> Numbering:
    """Return a numbering that skips from the 10th number to the 5,000th."""
    return Numbering().continued(nth(11), number=nth(5_000), lossy=lossy, oldest=nth(1))


def test_numbers_are_the_sequences_until_they_skip() -> None:
    numbering = Numbering()

    assert nth(7) == numbering.number(nth(7))
    assert nth(8) == numbering.sequence_after(nth(7))
    assert 0 == numbering.lost


def test_new_messages_continue_at_the_number_and_earlier_ones_keep_theirs() -> None:
    numbering = skipped(lossy=True)

    assert [nth(10), nth(5_000), nth(5_001)] == [numbering.number(nth(sequence)) for sequence in (10, 11, 12)]


def test_the_sequence_after_a_skipped_number_is_the_first_that_follows() -> None:
    numbering = skipped(lossy=True)

    positions = (nth(9), nth(10), nth(11), nth(300), nth(4_999), nth(5_000))
    assert [nth(10), *[nth(11)] * 4, nth(12)] == [numbering.sequence_after(position) for position in positions]


def test_reading_begins_earlier_where_a_segment_may_have_begun_earlier_than_planned() -> None:
    numbering = skipped(lossy=True)

    positions = (nth(8), nth(300), nth(4_999), nth(5_000))
    assert [nth(9), nth(-989), nth(11), nth(12)] == [numbering.begin_after(position) for position in positions]


def test_numbers_are_lost_only_before_a_lossy_segment() -> None:
    assert nth(4_999) == skipped(lossy=True).lost
    assert 0 == skipped(lossy=False).lost


def test_segments_are_known_by_their_offsets() -> None:
    assert (frozenset({0, 4_989}), frozenset({4_989})) == (skipped(lossy=True).offsets, skipped(lossy=True).lossy)
    assert (frozenset({0, 4_989}), frozenset()) == (skipped(lossy=False).offsets, skipped(lossy=False).lossy)


def test_segments_without_messages_are_left_out() -> None:
    numbering = skipped(lossy=True)

    kept = numbering.continued(nth(20), number=nth(9_000), lossy=False, oldest=nth(11))
    empty = numbering.continued(nth(20), number=nth(9_000), lossy=False, oldest=nth(20))

    assert (Segment(nth(11), 4_989, lossy=True), Segment(nth(20), 8_980)) == kept.segments
    assert (Segment(nth(20), 8_980),) == empty.segments


def test_a_segment_that_begins_where_the_stream_has_lost_its_end_replaces_the_later_ones() -> None:
    numbering = skipped(lossy=True).continued(nth(8), number=nth(9_000), lossy=True, oldest=nth(1))

    assert [nth(7), nth(9_000)] == [numbering.number(nth(sequence)) for sequence in (7, 8)]
    assert 2 == len(numbering.segments)


def test_what_was_lost_stays_lost_when_numbers_skip_again_before_the_next_message() -> None:
    numbering = skipped(lossy=True).continued(nth(11), number=nth(9_000), lossy=False, oldest=nth(1))

    assert nth(8_999) == numbering.lost
    assert 2 == len(numbering.segments)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 1_000), st.booleans()), max_size=5))
def test_numbers_ascend_and_lead_back_to_their_sequences(skips: list[tuple[int, int, bool]]) -> None:
    numbering, sequence = Numbering(), nth(1)
    for messages, ahead, lossy in skips:
        sequence += messages
        number = numbering.number(sequence) + ahead
        numbering = numbering.continued(sequence, number=number, lossy=lossy, oldest=nth(1))

    numbers = [numbering.number(each) for each in range(nth(1), sequence + 30)]

    assert sorted(set(numbers)) == numbers
    assert [*range(nth(1), sequence + 30)] == [numbering.sequence_after(number - 1) for number in numbers]
    assert numbering == Numbering.of(numbering.text)
