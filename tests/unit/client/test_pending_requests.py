"""The requests of a client that wait for an answer, on a clock that moves by hand."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmissed.client.pending_requests import PendingRequest, PendingRequests
from unmissed.core.close_codes import CloseCode
from unmissed.core.errors import InvalidMessage, RequestRefused, RequestUnanswered, TooManyRequests

NOW = 1_000.0
GREETING = {"rate": 10, "burst": 20, "max_age": 900}


def requests(*, limit: int = 1_000, **greeting: Any) -> PendingRequests:
    """Return the requests of a client that has just connected."""
    pending = PendingRequests(limit=limit)
    pending.connected({**GREETING, **greeting}, now=NOW)
    return pending


def add(pending: PendingRequests, request_id: str, data: object = None) -> PendingRequest:
    return pending.add({"type": "command", "id": request_id, "name": "do", "data": data})


def sent(pending: PendingRequests, now: float = NOW) -> list[str]:
    """Return the ids of what is sent now."""
    return [request.id for request in pending.due(now)]


def rounds(pending: PendingRequests, *, seconds: float, start: float = NOW) -> int:
    """Return how many requests are sent within these seconds, if each is answered at once."""
    count, now = 0, start
    while now <= start + seconds:
        ids = sent(pending, now)
        for each in ids:
            pending.settle(each, None)
        count += len(ids)
        # One step more than the time to wait, because sums of floats are not exact.
        now += (pending.seconds_to_next(now) or 0.0) + 1e-6
    return count


async def test_requests_are_sent_in_order_and_answered_by_id() -> None:
    pending = requests()
    first, second = add(pending, "a"), add(pending, "b")

    assert ["a", "b"] == sent(pending)
    pending.settle("b", [2])
    pending.settle("a", {"x": 1})
    assert ({"x": 1}, [2]) == (await first.answer, await second.answer)
    assert 0 == len(pending)


async def test_a_request_is_sent_once_on_each_connection_until_it_is_answered() -> None:
    pending = requests()
    request = add(pending, "a")
    add(pending, "b")

    assert (["a", "b"], []) == (sent(pending), sent(pending, NOW + 60))
    pending.settle("b", None)
    pending.lost()
    pending.connected(GREETING, now=NOW + 90)
    assert ["a"] == sent(pending, NOW + 90)
    assert request.first_sent == NOW


async def test_what_the_server_may_have_forgotten_is_not_sent_again() -> None:
    pending = requests(max_age=60)
    waited, forgotten = add(pending, "waited"), add(pending, "forgotten")
    [*pending.due(NOW)]
    pending.settle("waited", 1)
    unsent = add(pending, "unsent")

    pending.connected({**GREETING, "max_age": 60}, now=NOW + 61)

    assert ["unsent"] == sent(pending, NOW + 61)
    assert (1, False) == (waited.answer.result(), unsent.answer.done())
    with pytest.raises(RequestUnanswered, match=r"lost for more than 60 s.*may have been executed"):
        await forgotten.answer


async def test_a_server_that_never_forgets_names_no_time() -> None:
    pending = requests()
    add(pending, "a")
    [*pending.due(NOW)]

    pending.connected({}, now=NOW + 10**6)

    assert ["a"] == sent(pending, NOW + 10**6)


@pytest.mark.parametrize("code", [CloseCode.BAD_MESSAGE, CloseCode.FORBIDDEN, CloseCode.INTERNAL_ERROR])
async def test_a_refused_request_raises_what_the_server_says(code: int) -> None:
    pending = requests()
    request = add(pending, "a")
    [*pending.due(NOW)]

    pending.refuse("a", code, "not for sale", now=NOW, jitter=0.5)

    with pytest.raises(RequestRefused, match=f"with code {code}: not for sale") as refused:
        await request.answer
    assert (code, "not for sale") == (refused.value.code, refused.value.reason)
    assert 0 == len(pending)


@pytest.mark.parametrize("code", [CloseCode.SERVICE_RESTART, CloseCode.TRY_AGAIN_LATER, CloseCode.TOO_MANY])
async def test_a_passing_refusal_is_repeated_later_and_in_order(code: int) -> None:
    pending = requests()
    for each in "abc":
        add(pending, each)
    [*pending.due(NOW)]
    pending.settle("a", None)

    pending.refuse("b", code, "later", now=NOW, jitter=0.5)
    pending.refuse("c", code, "later", now=NOW, jitter=0.5)

    assert [] == sent(pending, NOW + 3.4)
    # The budget of one that sent too much is empty at first, and fills with half the rate.
    assert ["b", "c"] == sent(pending, NOW + 3.6)


async def test_a_client_stays_within_the_rate_and_the_burst_of_its_server() -> None:
    pending = requests(rate=10, burst=20)
    for number in range(200):
        add(pending, str(number))

    assert 15 == rounds(pending, seconds=0.05)
    assert 99 <= rounds(pending, seconds=10, start=NOW + 0.06) <= 102


@given(
    rate=st.floats(0.01, 1_000),
    burst=st.integers(1, 1_000),
    sizes=st.lists(st.integers(0, 65_000), min_size=1, max_size=20),
    refusals=st.integers(0, 9),
    start=st.floats(0, 10**9),
)
async def test_every_request_is_sent_after_the_time_that_is_announced(
    rate: float, burst: int, sizes: list[int], refusals: int, start: float
) -> None:
    pending, now = requests(rate=rate, burst=burst), start
    for number, size in enumerate(sizes):
        add(pending, str(number), "x" * size)
    for _ in range(refusals):
        pending.budget.exceeded(now=now)

    for _ in sizes:
        # A microsecond more, since a sum of floats may be a little too early.
        now += (pending.seconds_to_next(now) or 0.0) + 1e-6
        for request in sent(pending, now):
            pending.settle(request, None)

    assert 0 == len(pending)


async def test_the_budget_of_a_new_server_counts() -> None:
    pending = requests(rate=10, burst=20)
    for number in range(200):
        add(pending, str(number))

    pending.connected({**GREETING, "rate": 2, "burst": 4}, now=NOW)

    assert 3 == rounds(pending, seconds=0.05)


async def test_a_connection_sends_less_than_a_server_takes_for_a_flood() -> None:
    """More than 100 frames, or 1 MiB, between two checks of a server end a connection, whatever it allows its users."""
    many, large = requests(rate=1_000, burst=1_000), requests(rate=1_000, burst=1_000)
    for number in range(300):
        add(many, str(number))
    for number in range(50):
        add(large, str(number), "x" * 65_000)

    assert rounds(many, seconds=1.0) <= 100
    assert 65_000 * rounds(large, seconds=1.0) < 2**20


async def test_too_fast_a_client_sends_half_as_much_and_then_more_again() -> None:
    pending = requests(rate=10, burst=20)
    for number in range(1_000):
        add(pending, str(number))
    [*pending.due(NOW)]

    pending.refuse("0", CloseCode.TOO_MANY, "too many", now=NOW, jitter=0.0)
    pending.lost()

    assert 7 < rounds(pending, seconds=1, start=NOW + 10) < 16
    rounds(pending, seconds=30, start=NOW + 20)
    assert 23 <= rounds(pending, seconds=1, start=NOW + 60) <= 26


async def test_at_most_16_requests_are_unanswered() -> None:
    pending = requests(rate=1_000, burst=1_000)
    for number in range(20):
        add(pending, str(number))

    assert [str(number) for number in range(16)] == sent(pending)
    assert None is pending.seconds_to_next(NOW + 60)
    pending.settle("7", None)
    assert ["16"] == sent(pending)


@pytest.mark.parametrize(("text", "count"), [("x" * 20_000, 3), ("x" * 65_000, 1), ("x" * 15_000 + "\U0001f600", 1)])
async def test_a_server_never_holds_so_much_that_it_stops_reading(text: str, count: int) -> None:
    """It counts its strings, in which one character outside the BMP makes all others take four bytes."""
    pending = requests()
    for each in "abcd":
        add(pending, each, text)

    assert count == len(sent(pending))


async def test_a_key_that_is_used_twice_is_sent_again_after_its_answer() -> None:
    pending = requests()
    first, second = add(pending, "key"), add(pending, "key")
    add(pending, "other")

    assert ["key", "other"] == sent(pending)
    pending.settle("key", 1)
    assert ["key"] == sent(pending)
    pending.settle("key", 1)
    assert (1, 1) == (await first.answer, await second.answer)


async def test_requests_are_bounded_and_an_answer_makes_room() -> None:
    pending = requests(limit=2)
    add(pending, "a")
    add(pending, "b")

    with pytest.raises(TooManyRequests, match="2 requests of this stream are not answered yet"):
        add(pending, "c")
    [*pending.due(NOW)]
    pending.settle("a", None)
    assert add(pending, "c")


async def test_a_forgotten_request_makes_room_and_its_answer_is_ignored() -> None:
    pending = requests(limit=1)
    request = add(pending, "a")
    [*pending.due(NOW)]

    pending.forget(request)
    add(pending, "b")
    pending.settle("a", 1)

    assert not request.answer.done()
    assert ["b"] == sent(pending)


@pytest.mark.parametrize(
    ("data", "reason"),
    [("x" * 65_536, "at most 65536 bytes, and this one 655"), (float("nan"), "as JSON"), ("\ud800", "as JSON")],
)
async def test_what_cannot_be_sent_is_refused_at_once(data: object, reason: str) -> None:
    pending = requests()

    with pytest.raises(InvalidMessage, match=reason):
        add(pending, "a", data)

    assert 0 == len(pending)


async def test_the_end_of_a_stream_rejects_what_waits_with_its_cause() -> None:
    pending = requests()
    sent_one, cancelled = add(pending, "a"), add(pending, "b")
    [*pending.due(NOW)]
    unsent = add(pending, "c")
    cancelled.answer.cancel()

    pending.reject(RequestUnanswered("closed"))

    for request in (sent_one, unsent):
        with pytest.raises(RequestUnanswered, match="closed"):
            await request.answer
    assert (0, False) == (len(pending), pending.awaits_answer)
