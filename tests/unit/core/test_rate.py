"""How many requests a user may send."""

from hypothesis import given
from hypothesis import strategies as st

from unmissed.core.rate import TokenBuckets


def takes(buckets: TokenBuckets, user_id: str, count: int, *, now: float = 0.0) -> int:
    """Return how many of so many requests are allowed."""
    return sum(buckets.take(user_id, now) for _ in range(count))


def test_a_burst_is_allowed_and_then_the_rate() -> None:
    buckets = TokenBuckets(rate=10.0, burst=3)

    assert 3 == takes(buckets, "alice", 10)
    assert 1 == takes(buckets, "alice", 10, now=0.125)


def test_a_long_silence_allows_no_more_than_a_burst() -> None:
    buckets = TokenBuckets(rate=10.0, burst=3)

    assert 3 == takes(buckets, "alice", 10)
    assert 3 == takes(buckets, "alice", 10, now=100.0)


def test_buckets_that_are_full_are_forgotten_and_no_others() -> None:
    buckets = TokenBuckets(rate=1.0, burst=10)
    takes(buckets, "used up", 10)
    takes(buckets, "used a little", 1)

    buckets.take("later", 9.0)

    assert 1 == takes(buckets, "used up", 10, now=1.0 + 1e-6)
    buckets.take("much later", 100.0)
    assert 1 == len(buckets)


def test_users_over_the_limit_share_a_bucket_and_take_nothing_from_the_others() -> None:
    """No bucket is forgotten to make room: its user would have a full burst again."""
    buckets = TokenBuckets(rate=1.0, burst=5, max_buckets=2)
    for user_id in ("a", "b"):
        assert 5 == takes(buckets, user_id, 10)

    assert 5 == sum(takes(buckets, f"mallory {number}", 1) for number in range(100))
    assert 0 == takes(buckets, "a", 10)
    assert 2 == takes(buckets, "a", 10, now=2.0)
    assert 3 == len(buckets)
    assert 5 == takes(buckets, "c", 10, now=100.0)


@given(
    st.lists(st.tuples(st.floats(0, 3), st.sampled_from("abc")), max_size=60),
    st.sampled_from([0.5, 10.0, 1_000.0]),
    st.integers(1, 20),
    st.sampled_from([1, 2, 100]),
)
def test_nobody_gets_more_than_the_burst_and_the_rate(
    requests: list[tuple[float, str]], rate: float, burst: int, max_buckets: int
) -> None:
    buckets, now = TokenBuckets(rate=rate, burst=burst, max_buckets=max_buckets), 0.0
    allowed: dict[str, list[float]] = {}
    for pause, user_id in requests:
        now += pause
        if buckets.take(user_id, now):
            allowed.setdefault(user_id, []).append(now)

    for times in allowed.values():
        for first in range(len(times)):
            for last in range(first, len(times)):
                # A user may have used the shared bucket, too, and then its own.
                assert last - first + 1 <= 2 * burst + (times[last] - times[first]) * rate * 2 + 1
        if max_buckets == 100:
            assert len(times) <= burst + times[-1] * rate + 1
