"""How many messages a client may send."""

from unmissed.core.rate import TokenBucket


def test_a_burst_is_allowed_and_then_the_rate() -> None:
    bucket = TokenBucket(rate=10.0, burst=3, now=0.0)

    assert [True, True, True, False] == [bucket.take(0.0) for _ in range(4)]
    assert [True, False] == [bucket.take(0.125) for _ in range(2)]


def test_a_long_silence_allows_no_more_than_a_burst() -> None:
    bucket = TokenBucket(rate=10.0, burst=3, now=0.0)

    assert [True, True, True, False] == [bucket.take(100.0) for _ in range(4)]
