"""Notes between nodes: who is there, who is asked, and who is not waited for."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import pytest

from support import until
from unmissed.application import nodes
from unmissed.application.nodes import Nodes
from unmissed.core.errors import LogUnavailable


class Air:
    """Carries notes between nodes in memory. While it is ``down``, nothing gets through."""

    def __init__(self) -> None:
        self.down = False
        self.notes: list[bytes] = []
        self._listening: list[asyncio.Queue[bytes | None]] = []

    async def send(self, note: bytes) -> None:
        if self.down:
            raise LogUnavailable("down")
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

    def interrupt(self) -> None:
        """Break the connection of every node."""
        self.down = True
        for queue in self._listening:
            queue.put_nowait(None)


Start = Callable[..., Nodes]


@pytest.fixture
def air() -> Air:
    return Air()


@pytest.fixture
async def start(air: Air) -> AsyncIterator[Start]:
    """Return a function that starts a node with this id."""
    started: list[Nodes] = []

    def starting(node_id: str, *, introduce: Callable[[], list[tuple[str, Any]]] = list, **handlers: Any) -> Nodes:
        clock = asyncio.get_running_loop().time
        started.append(Nodes(air, node_id=node_id, handlers=handlers, introduce=introduce, clock=clock))
        started[-1].start()
        return started[-1]

    yield starting
    air.down = False
    for node in started:
        await node.stop(seconds=1.0)


async def test_nodes_find_each_other(start: Start) -> None:
    one, two, three = start("1"), start("2"), start("3")

    await until(lambda: len(one.others) == len(two.others) == len(three.others) == 2)

    assert {"2", "3"} == one.others
    assert {"1", "2"} == three.others


async def test_a_question_is_answered_by_every_other_node(start: Start) -> None:
    one = start("1", double=lambda number: 1 * number)
    start("2", double=lambda number: 2 * number)
    start("3", double=lambda number: 3 * number)
    await until(lambda: len(one.others) == 2)

    assert [20, 30] == sorted(await one.ask("double", 10))


async def test_questions_at_the_same_time_get_their_own_answers(start: Start) -> None:
    one = start("1")
    start("2", double=lambda number: 2 * number)
    await until(lambda: one.others)

    assert [[2 * number] for number in range(50)] == await asyncio.gather(*(one.ask("double", n) for n in range(50)))


async def test_a_node_that_is_alone_has_nobody_to_ask(start: Start) -> None:
    assert [] == await start("1").ask("double", 10)
    alone = Nodes(None, node_id="1", handlers={}, introduce=list, clock=asyncio.get_running_loop().time)
    alone.start()
    await alone.tell("anything", None)
    assert [] == await alone.ask("double", 10)
    await alone.stop(seconds=1.0)


async def test_a_node_that_does_not_answer_is_left_out(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "ANSWER_SECONDS", 0.05)
    one = start("1")
    start("2", double=lambda number: 2 * number)
    start("3")
    await until(lambda: len(one.others) == 2)

    assert [20] == await one.ask("double", 10)


async def test_a_node_that_has_stopped_is_not_waited_for(start: Start) -> None:
    one, two = start("1"), start("2")
    await until(lambda: one.others)

    asked = asyncio.ensure_future(one.ask("double", 10))
    await two.stop(seconds=1.0)

    assert [] == await asked
    assert frozenset() == one.others


async def test_a_node_that_was_not_heard_for_long_is_not_waited_for(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "HELLO_SECONDS", 0.01)
    one = start("1")
    two = start("2")
    await until(lambda: one.others)

    for task in two._tasks:  # noqa: SLF001  # as the end of its process would
        task.cancel()

    await until(lambda: not one.others)


async def test_a_new_node_is_told_what_it_must_know(start: Start) -> None:
    known: list[str] = []
    start("1", introduce=lambda: [("fact", "one"), ("fact", "two")])

    start("2", fact=known.append)

    await until(lambda: known == ["one", "two"])


async def test_what_nodes_must_know_is_exchanged_after_an_interruption(start: Start, air: Air) -> None:
    facts: dict[str, list[str]] = {"1": [], "2": []}
    learnt: dict[str, list[str]] = {"1": [], "2": []}
    one = start("1", introduce=lambda: [("fact", fact) for fact in facts["1"]], fact=learnt["1"].append)
    two = start("2", introduce=lambda: [("fact", fact) for fact in facts["2"]], fact=learnt["2"].append)
    await until(lambda: one.others and two.others)

    air.interrupt()
    with pytest.raises(LogUnavailable):
        await one.tell("fact", "of one")
    facts["1"].append("of one")
    facts["2"].append("of two")
    air.down = False

    await until(lambda: "of one" in learnt["2"] and "of two" in learnt["1"])


async def test_a_long_note_is_compressed(start: Start, air: Air) -> None:
    taken: list[list[str]] = []
    one = start("1")
    start("2", names=taken.append)
    await until(lambda: one.others)
    names = [f"user {number}" for number in range(100_000)]

    await one.tell("names", names)

    await until(lambda: taken)
    assert [names] == taken
    assert 1_000_000 > max(map(len, air.notes))


async def test_a_note_of_an_unknown_kind_is_ignored(start: Start) -> None:
    one = start("1")
    start("2", double=lambda number: 2 * number)
    await until(lambda: one.others)

    await one.tell("nonsense", 1)

    assert [2] == await one.ask("double", 1)
