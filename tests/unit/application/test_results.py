"""The results of commands: each is run once, whatever is kept of its answer."""

import asyncio
import tracemalloc
from typing import Any

import pytest

from unmissed.application.results import ANSWER_OVERHEAD, Answers, Results
from unmissed.core.errors import CommandError, TooManyRequests
from unmissed.testing import ManualClock

SAME, OTHER = b"s" * 32, b"o" * 32
FORGOTTEN = "this command was done, and its answer is forgotten: it is not done again"


class Runs:
    """Runs commands and counts them. Each returns as many bytes as wanted."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.count = 0

    async def do(self, user_id: str, command_id: str, *, size: int = 1, fingerprint: bytes = SAME) -> bytes:
        async def run() -> bytes:
            self.count += 1
            return b"x" * size

        answer = await self.results.once(user_id, command_id, run, size=1, fingerprint=fingerprint)
        await asyncio.sleep(0)
        return answer


async def test_a_key_is_known_for_max_age_and_at_most_an_eighth_longer(clock: ManualClock) -> None:
    runs = Runs(Results(max_age=10.0, clock=clock))

    counts = []
    for seconds in (0.0, 9.999, 1.251):
        clock.advance(seconds)
        await runs.do("alice", "a")
        counts.append(runs.count)

    assert [1, 1, 2] == counts


async def test_another_fingerprint_is_refused(clock: ManualClock) -> None:
    runs = Runs(Results(max_age=10.0, clock=clock))
    await runs.do("alice", "a")

    with pytest.raises(CommandError, match="this id was used for another command"):
        await runs.do("alice", "a", fingerprint=OTHER)


async def test_a_command_whose_answer_was_dropped_is_refused_and_not_run_again(clock: ManualClock) -> None:
    runs = Runs(Results(max_age=10.0, clock=clock, max_answer_bytes=100_000))
    for number in range(20):
        await runs.do("alice", str(number), size=10_000)

    answers = [b"x" * 10_000 == await runs.do("alice", str(number)) for number in range(17, 20)]
    with pytest.raises(CommandError, match=FORGOTTEN):
        await runs.do("alice", "0")
    with pytest.raises(CommandError, match="this id was used for another command"):
        await runs.do("alice", "0", fingerprint=OTHER)

    assert [True] * 3 == answers
    assert 20 == runs.count


async def test_an_answer_that_exceeds_the_share_of_its_user_is_given_once(clock: ManualClock) -> None:
    runs = Runs(Results(max_age=10.0, clock=clock, max_answer_bytes=100_000))

    assert 60_000 == len(await runs.do("alice", "large", size=60_000))

    with pytest.raises(CommandError, match=FORGOTTEN):
        await runs.do("alice", "large")
    await runs.do("alice", "small")
    assert b"x" == await runs.do("alice", "small")
    assert 2 == runs.count


async def test_the_answers_of_a_user_are_not_dropped_for_those_of_others(clock: ManualClock) -> None:
    runs = Runs(Results(max_age=10.0, clock=clock, max_answer_bytes=1_000_000))
    await runs.do("bob", "payment")

    for number in range(300):
        await runs.do(f"mallory {number % 3}", str(number), size=60_000)

    assert b"x" == await runs.do("bob", "payment")
    await runs.do("carol", "payment")
    assert b"x" == await runs.do("carol", "payment")
    assert 302 == runs.count


async def test_a_command_whose_id_could_not_be_remembered_is_refused_before_it_runs(clock: ManualClock) -> None:
    runs = Runs(Results(max_age=10.0, clock=clock, max_keys=100))
    await runs.do("bob", "payment")

    for number in range(43):
        await runs.do("mallory", str(number))
    with pytest.raises(TooManyRequests) as refused:
        await runs.do("mallory", "43")

    assert 12 == refused.value.retry_after
    before = runs.count
    assert 44 == before
    await runs.do("mallory", "0")
    await runs.do("bob", "payment")
    assert before == runs.count
    await runs.do("carol", "payment")
    clock.advance(11.25)
    await runs.do("mallory", "later")
    assert before + 2 == runs.count


async def test_a_run_goes_on_when_its_caller_is_cancelled(clock: ManualClock) -> None:
    results, may_end, done = Results(max_age=10.0, clock=clock), asyncio.Event(), list[bool]()

    async def run() -> bytes:
        await may_end.wait()
        done.append(True)
        return b"done"

    caller = asyncio.create_task(results.once("alice", "a", run, size=1, fingerprint=SAME))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.sleep(0)
    may_end.set()

    assert b"done" == await results.once("alice", "a", run, size=1, fingerprint=SAME)
    assert [True] == done


async def test_a_run_that_takes_longer_than_max_age_is_known_for_as_long_after_its_end(clock: ManualClock) -> None:
    results, may_end, runs = Results(max_age=10.0, clock=clock), asyncio.Event(), list[int]()

    async def run() -> bytes:
        runs.append(1)
        await may_end.wait()
        return b"done"

    callers = [asyncio.create_task(results.once("alice", "a", run, size=1, fingerprint=SAME))]
    await asyncio.sleep(0)
    clock.advance(100.0)
    callers.append(asyncio.create_task(results.once("alice", "a", run, size=1, fingerprint=SAME)))
    await asyncio.sleep(0)
    may_end.set()
    await asyncio.gather(*callers)
    clock.advance(9.999)

    assert b"done" == await results.once("alice", "a", run, size=1, fingerprint=SAME)
    assert [1] == runs


async def test_the_commands_that_are_running_are_cancelled_at_the_stop(clock: ManualClock) -> None:
    results = Results(max_age=10.0, clock=clock)

    async def run() -> bytes:
        await asyncio.Event().wait()
        return b""

    callers = [
        asyncio.create_task(results.once("alice", str(number), run, size=1, fingerprint=SAME)) for number in range(2)
    ]
    await asyncio.sleep(0)
    results.cancel()

    ends = await asyncio.gather(*callers, return_exceptions=True)

    assert [asyncio.CancelledError] * 2 == [type(end) for end in ends]


def test_old_answers_are_dropped_whoever_has_new_ones() -> None:
    answers = Answers(max_age=10.0, max_bytes=1_000_000)
    for user in ("alice", "bob"):
        answers.keep(user, "a", b"x", now=0.0)

    answers.keep("bob", "b", b"x", now=10.0)

    kept = {(user, key) for user in ("alice", "bob") for key in "ab" if answers.get(user, key)}
    assert {("bob", "b")} == kept


@pytest.mark.parametrize("users", [1, 2_000], ids=["one user", "a user each"])
def test_an_answer_takes_no_more_memory_than_is_counted(users: int) -> None:
    tracemalloc.start()
    answers = Answers(max_age=900.0, max_bytes=100_000_000)
    before, _ = tracemalloc.get_traced_memory()
    for number in range(2_000):
        answers.keep(f"user {number % users}", f"{number:060}", bytes(100), now=0.5 * number)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (after - before) / 2_000 < 100 + ANSWER_OVERHEAD


class Waiting:
    """Commands that run until they may end."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.may_end = asyncio.Event()
        self.begun: list[str] = []

    async def start(self, user_id: str, command_id: str, *, size: int = 0) -> asyncio.Task[bytes]:
        async def run() -> bytes:
            self.begun.append(user_id)
            await self.may_end.wait()
            return b"done"

        task = asyncio.create_task(self.results.once(user_id, command_id, run, size=size, fingerprint=SAME))
        await asyncio.sleep(0)
        return task


async def test_only_so_many_commands_of_a_user_run_at_a_time(clock: ManualClock) -> None:
    waiting = Waiting(Results(max_age=10.0, clock=clock, max_running=3))

    mallory = [await waiting.start("mallory", str(number)) for number in range(5)]
    bob = await waiting.start("bob", "0")
    await asyncio.sleep(0)
    waiting.may_end.set()
    ends = await asyncio.gather(*mallory, return_exceptions=True)

    assert [b"done"] * 3 == ends[:3]
    assert ["too many commands are running: retry in 1 s"] * 2 == [str(end) for end in ends[3:]]
    assert b"done" == await bob
    assert b"done" == await (await waiting.start("mallory", "4"))


async def test_callers_that_wait_for_one_run_count_as_well(clock: ManualClock) -> None:
    waiting = Waiting(Results(max_age=10.0, clock=clock, max_running=3))

    callers = [await waiting.start("mallory", "0") for _ in range(5)]
    callers[1].cancel()
    await asyncio.sleep(0)
    callers.append(await waiting.start("mallory", "0"))
    waiting.may_end.set()
    ends = await asyncio.gather(*callers, return_exceptions=True)

    assert [bytes, asyncio.CancelledError, bytes, TooManyRequests, TooManyRequests, bytes] == [
        type(end) for end in ends
    ]


async def test_the_running_commands_of_a_user_have_only_so_many_bytes(clock: ManualClock) -> None:
    waiting = Waiting(Results(max_age=10.0, clock=clock, max_running_bytes=16 * 100_000))

    users = ("mallory", "bob", "carol") * 3
    calls = [await waiting.start(user, str(number), size=40_000) for number, user in enumerate(users)]
    await asyncio.sleep(0)
    begun = [*waiting.begun]
    waiting.may_end.set()
    await asyncio.gather(*calls, return_exceptions=True)
    again = await (await waiting.start("mallory", "6", size=40_000))

    assert [*users[:6]] == begun
    assert b"done" == again


async def test_the_running_commands_of_many_users_leave_room_for_another(clock: ManualClock) -> None:
    waiting = Waiting(Results(max_age=10.0, clock=clock, max_running_bytes=16 * 100_000))
    calls = [await waiting.start(f"mallory {number % 50}", str(number), size=20_000) for number in range(500)]
    await asyncio.sleep(0)

    bob = await waiting.start("bob", "0")
    await asyncio.sleep(0)
    waiting.may_end.set()

    assert b"done" == await bob
    refused = [end for end in await asyncio.gather(*calls, return_exceptions=True) if isinstance(end, TooManyRequests)]
    assert 400 < len(refused) < 500


async def test_a_command_that_is_refused_at_its_start_leaves_its_id_unused(clock: ManualClock) -> None:
    results = Results(max_age=10.0, clock=clock)

    def refuse() -> Any:
        raise CommandError("not valid")

    with pytest.raises(CommandError, match="not valid"):
        await results.once("alice", "a", refuse, size=0, fingerprint=OTHER)

    assert b"x" == await Runs(results).do("alice", "a")


def test_an_answer_without_room_is_dropped_alone() -> None:
    answers = Answers(max_age=900.0, max_bytes=100_000)
    for number in range(11):
        answers.keep(f"user {number}", "a", b"x" * 7_000, now=1.0)

    answers.keep("late", "a", b"x" * 60_000, now=2.0)

    assert None is answers.get("late", "a")
    assert b"x" * 7_000 == answers.get("user 0", "a")
