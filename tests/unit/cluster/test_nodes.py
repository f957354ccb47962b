"""Notes between nodes: which ones are known, which are asked, and which are not awaited."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest

from support import until
from unmissed.cluster.nodes import Knowledge, Nodes, Timing
from unmissed.cluster.notes import authentic, encoded
from unmissed.core.encoding import decode_json
from unmissed.core.errors import LogUnavailable

KEY = b"the key of these nodes"


class Air:
    """Carries notes between nodes in memory. While it is ``down``, sending fails; while ``mute``, notes are lost."""

    def __init__(self) -> None:
        self.down = self.mute = False
        self.error: Exception | None = None
        """Raised by each ``send``."""
        self.failures = 0
        self.notes: list[bytes] = []
        self._listening: list[asyncio.Queue[bytes | None]] = []

    async def send(self, note: bytes) -> None:
        if self.down:
            raise LogUnavailable("down")
        if self.error is not None:
            self.failures += 1
            raise self.error
        if self.mute:
            return
        self.notes.append(note)
        for queue in self._listening:
            queue.put_nowait(note)

    async def receive(self) -> AsyncGenerator[bytes]:
        if self.down:
            raise LogUnavailable("down")
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._listening.append(queue)
        try:
            yield b""
            while (note := await queue.get()) is not None:
                yield note
            raise LogUnavailable("down")
        finally:
            self._listening.remove(queue)

    async def say(self, node: str, number: int, kind: str, content: object, *, key: bytes = KEY) -> None:
        """Send a note of another node."""
        [note] = encoded({"node": node, "number": number, "kind": kind, "content": content}, key=key)
        await self.send(note)

    @property
    def kinds(self) -> list[str]:
        """The kinds of the notes that were sent, which are short here."""
        parts = [authentic(note, keys=[KEY]) or b"" for note in self.notes]
        return [decode_json(part.partition(b"\n")[2])["kind"] for part in parts]

    def interrupt(self) -> None:
        """Break the connection of every node."""
        self.down = True
        for queue in self._listening:
            queue.put_nowait(None)


Start = Callable[..., Awaitable[Nodes]]


@pytest.fixture
def air() -> Air:
    return Air()


@pytest.fixture
async def start(air: Air) -> AsyncIterator[Start]:
    """Return a function that starts a node with this id."""
    started: list[Nodes] = []

    async def starting(
        node_id: str,
        *,
        facts: Callable[[], list[tuple[str, Any]]] = list,
        keys: Sequence[bytes] = (KEY,),
        answer_seconds: float = 20.0,
        hello_seconds: float = 1.0,
        echo_seconds: float = 20.0,
        **handlers: Any,
    ) -> Nodes:
        node = Nodes(
            air,
            node_id=node_id,
            keys=keys,
            knowledge=Knowledge(handlers, facts, fingerprint=lambda: hash(str(facts()))),
            clock=asyncio.get_running_loop().time,
            timing=Timing(
                # The first node has nobody to wait for.
                start_seconds=20.0 if started or node_id == "late" else 0.01,
                answer_seconds=answer_seconds,
                hello_seconds=hello_seconds,
                echo_seconds=echo_seconds,
            ),
        )
        started.append(node)
        await node.start()
        return node

    yield starting
    air.down = False
    for node in started:
        await node.stop(seconds=1.0)


async def test_nodes_find_each_other(start: Start) -> None:
    one, two, three = [await start(node_id) for node_id in "123"]

    await until(lambda: len(one.others) == len(two.others) == len(three.others) == 2)

    assert {"2", "3"} == one.others
    assert {"1", "2"} == three.others


async def test_a_question_is_answered_by_every_other_node(start: Start) -> None:
    await start("1", double=lambda number: 1 * number)
    await start("2", double=lambda number: 2 * number)
    three = await start("3", double=lambda number: 3 * number)

    assert {"1": 10, "2": 20} == await three.ask("double", 10)


async def test_questions_at_the_same_time_get_their_own_answers(start: Start) -> None:
    one = await start("1")
    await start("2", double=lambda number: 2 * number)
    await until(lambda: one.others)

    answers = await asyncio.gather(*(one.ask("double", number) for number in range(50)))

    assert [{"2": 2 * number} for number in range(50)] == answers


async def test_a_node_that_is_alone_has_no_other_to_ask(start: Start) -> None:
    assert {} == await (await start("1")).ask("double", 10)
    nothing = Knowledge({}, facts=list, fingerprint=int)
    alone = Nodes(None, node_id="1", keys=[KEY], knowledge=nothing, clock=asyncio.get_running_loop().time)
    await alone.start()
    assert {} == await alone.ask("double", 10)
    await alone.stop(seconds=1.0)


async def test_a_node_that_does_not_answer_is_left_out(start: Start) -> None:
    one = await start("1", answer_seconds=0.5)
    await start("2", double=lambda number: 2 * number)
    await start("3")
    await until(lambda: len(one.others) == 2)

    assert {"2": 20} == await one.ask("double", 10)


async def test_a_node_that_has_stopped_is_not_awaited(start: Start) -> None:
    one, two = await start("1"), await start("2")
    await until(lambda: one.others)

    asked = asyncio.ensure_future(one.ask("double", 10))
    await two.stop(seconds=1.0)

    assert {} == await asked
    assert frozenset() == one.others


async def test_a_node_that_was_not_heard_for_long_is_not_awaited(start: Start) -> None:
    one, two = await start("1", hello_seconds=0.01), await start("2", hello_seconds=0.01)
    await until(lambda: one.others)
    assert frozenset({"2"}) == one.others

    for task in two._tasks:  # noqa: SLF001  # as the end of its process would
        task.cancel()

    await until(lambda: not one.others)
    assert {} == await one.ask("question", None)


async def test_a_node_knows_what_it_must_know_when_it_has_started(start: Start) -> None:
    known: list[str] = []
    await start("1", facts=lambda: [("fact", "one"), ("fact", "two")])

    await start("2", fact=known.append)

    assert ["one", "two"] == known


async def test_a_start_waits_for_every_node_that_another_one_has_heard(start: Start, air: Air) -> None:
    known: list[str] = []
    one = await start("1", facts=lambda: [("fact", "of one")])
    await air.say("slow", 1, "hello", {"new": False})
    await until(lambda: one.others)

    starting = asyncio.ensure_future(start("2", fact=known.append))
    await until(lambda: known)
    await air.say("slow", 2, "introduction", {"to": "2", "knows": 7, "ready": True, "others": ["1"]})
    await air.say("slow", 3, "fact", "of slow")
    await until(lambda: len(known) == 2)
    early = starting.done()
    await air.say("slow", 4, "complete", {"to": "2"})
    await starting

    assert not early
    assert ["of one", "of slow"] == known


async def test_a_start_does_not_trust_a_node_that_is_starting_itself(start: Start, air: Air) -> None:
    facts: list[str] = []
    starting = asyncio.ensure_future(start("late", fact=facts.append))
    await until(lambda: air.notes)

    await air.say("1", 1, "introduction", {"to": "late", "knows": hash("[]"), "ready": False, "others": []})
    await air.say("1", 2, "fact", "one")
    await until(lambda: facts)
    early = starting.done()
    await air.say("1", 3, "introduction", {"to": "late", "knows": hash("[]"), "ready": True, "others": []})
    await starting

    assert not early


async def test_facts_that_did_not_arrive_before_an_interruption_are_asked_for_again(start: Start, air: Air) -> None:
    async def introduce(number: int) -> None:
        await air.say("1", number, "introduction", {"to": "late", "knows": 7, "ready": True, "others": []})

    # A hello then shows that the channel was opened, and not only that a second has passed.
    starting = asyncio.ensure_future(start("late", hello_seconds=60.0))
    await until(lambda: "hello" in air.kinds)
    await introduce(1)
    await introduce(2)
    await until(lambda: "wanted" in air.kinds)
    air.interrupt()
    air.notes.clear()
    air.down = False
    await until(lambda: "hello" in air.kinds)
    asked_before = air.kinds.count("wanted")

    await introduce(3)
    await until(lambda: "wanted" in air.kinds)
    await air.say("1", 4, "complete", {"to": "late"})
    await starting

    assert 0 == asked_before
    assert 1 == air.kinds.count("wanted")


async def test_facts_that_several_nodes_know_are_sent_once(start: Start) -> None:
    known: list[str] = []
    facts = [("fact", "one"), ("fact", "two")]
    for node_id in "123":
        await start(node_id, facts=lambda: facts)

    await start("4", fact=known.append)

    assert ["one", "two"] == known


async def test_what_nodes_must_know_is_exchanged_after_an_interruption(start: Start, air: Air) -> None:
    facts: dict[str, list[str]] = {"1": [], "2": []}
    learnt: dict[str, list[str]] = {"1": [], "2": []}
    one = await start("1", facts=lambda: [("fact", fact) for fact in facts["1"]], fact=learnt["1"].append)
    two = await start("2", facts=lambda: [("fact", fact) for fact in facts["2"]], fact=learnt["2"].append)
    await until(lambda: one.others and two.others)

    air.interrupt()
    with pytest.raises(LogUnavailable):
        await one.ask("fact", "of one")
    facts["1"].append("of one")
    facts["2"].append("of two")
    air.down = False

    await until(lambda: "of one" in learnt["2"] and "of two" in learnt["1"])


async def test_a_question_that_does_not_come_back_to_its_own_node_is_not_answered_by_none(
    start: Start, air: Air
) -> None:
    one = await start("1", answer_seconds=0.05)
    air.mute = True

    with pytest.raises(LogUnavailable, match="the other nodes cannot be reached"):
        await one.ask("double", 10)


async def test_a_node_that_does_not_hear_itself_opens_its_channel_again(start: Start, air: Air) -> None:
    one = await start("1", hello_seconds=0.01, echo_seconds=0.5)
    await until(lambda: air.kinds.count("hello") > 2)

    air.mute = True
    await until(lambda: one.problem is not None)
    problem = one.problem
    air.mute = False
    await until(lambda: one.problem is None)

    assert "the other nodes cannot be reached: this node has not heard itself for 0.5 seconds" == problem


async def test_a_long_note_is_compressed(start: Start, air: Air) -> None:
    taken: list[list[str]] = []
    one = await start("1")
    await start("2", names=taken.append)
    await until(lambda: one.others)
    names = [f"user {number}" for number in range(100_000)]

    await one.ask("names", names)

    assert [names] == taken
    assert 1_000_000 > max(map(len, air.notes))


async def test_a_note_of_an_unknown_kind_is_ignored(start: Start, air: Air) -> None:
    one = await start("1")
    await start("2", double=lambda number: 2 * number)
    await until(lambda: one.others)

    await air.say("3", 1, "nonsense", 1)

    assert {"2": 2} == await one.ask("double", 1)


async def test_a_note_that_another_key_or_none_authenticates_is_ignored_and_reported_once(
    start: Start, air: Air, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[object] = []
    one = await start("1", fact=taken.append)

    await air.say("1", 1, "fact", "forged", key=b"another key")
    for note in (b"x", b"x" * 500_000, b'{"id":"a","part":0,"parts":1}\n{}'):
        await air.send(note)
    await air.say("2", 1, "fact", "true")
    await until(lambda: taken)

    assert ["true"] == taken
    assert None is one.problem
    assert 1 == caplog.text.count("ignoring notes that no node of this log has sent")


async def test_a_recorded_note_that_is_sent_again_has_no_effect(start: Start, air: Air) -> None:
    taken: list[object] = []
    one = await start("1")
    two = await start("2", fact=taken.append)
    await until(lambda: one.others)
    await one.ask("fact", 1_796_000_000_000_001)

    for note in [*air.notes]:
        await air.send(note)
    await one.ask("fact", 1_796_000_000_000_002)

    assert [1_796_000_000_000_001, 1_796_000_000_000_002] == taken
    assert {"1"} == two.others


async def test_a_bad_note_is_reported_and_the_next_one_is_handled(
    start: Start, air: Air, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[int] = []
    await start("1", fact=lambda content: taken.append(int(content)))

    await air.say("2", 1, "fact", "no number")
    await air.say("2", 2, "fact", "7")
    await until(lambda: taken)

    assert [7] == taken
    assert "a note of another node could not be handled" in caplog.text


@pytest.mark.parametrize("error", [OSError("a channel of the application failed"), LogUnavailable("away")])
async def test_a_channel_that_fails_is_a_problem_that_is_reported_once_and_ends(
    start: Start, air: Air, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    one = await start("1", hello_seconds=0.01)
    air.error = error
    failures = air.failures

    await until(lambda: air.failures > failures + 3)
    problem = one.problem
    air.error = None
    await until(lambda: one.problem is None)

    assert problem is not None
    assert "the other nodes cannot be reached" in problem
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert 1 == sum("the log cannot be used to reach other nodes" in record.getMessage() for record in errors)


OLD, NEW = b"the old key", b"the new key"


@pytest.mark.parametrize(
    ("before", "after"),
    [([OLD], [OLD, NEW]), ([OLD, NEW], [NEW, OLD]), ([NEW, OLD], [NEW])],
    ids=["accepted", "used", "alone"],
)
async def test_nodes_hear_each_other_in_each_step_of_a_rotation(
    start: Start, before: list[bytes], after: list[bytes]
) -> None:
    """In the order of the documentation: every node accepts the new secret before any node uses it."""
    one = await start("1", keys=before, double=lambda x: 2 * x)
    two = await start("2", keys=after, double=lambda x: 2 * x)
    await until(lambda: one.others == {"2"} and two.others == {"1"})

    assert {"2": 10} == await one.ask("double", 5)
    assert {"1": 10} == await two.ask("double", 5)


async def test_a_node_that_has_missed_a_hello_is_overdue_before_it_is_gone(air: Air) -> None:
    """Its clients may be connected to other nodes already."""
    now = 1_000.0
    node = Nodes(air, node_id="a", keys=[KEY], knowledge=Knowledge({}, list, fingerprint=lambda: 0), clock=lambda: now)
    listening = asyncio.create_task(node.start())
    await until(lambda: air.notes)
    await air.say("b", 1, "hello", {"new": False})
    await until(lambda: node.others)
    found = []

    for seconds in (1.1, 0.2, 1.6, 0.2):
        now += seconds
        found.append((node.any_overdue, {*node.others}))

    assert [(False, {"b"}), (True, {"b"}), (True, {"b"}), (False, set())] == found
    listening.cancel()
    await node.stop(seconds=1.0)


async def test_a_note_for_a_listener_is_heard_by_all_nodes_and_answered_by_none(air: Air, start: Start) -> None:
    heard: list[tuple[str, object]] = []

    def note_heard(name: str, content: object) -> None:
        heard.append((name, content))

    nodes = [await start(name) for name in ("a", "b", "c")]
    for node in nodes:
        node.listen("members", partial(note_heard, node.id))

    await nodes[0].announce("members", {"counts": 1})
    await until(lambda: len(heard) == 2)

    assert [("b", {"counts": 1}), ("c", {"counts": 1})] == sorted(heard, key=lambda each: each[0])
    assert "answer" not in air.kinds
