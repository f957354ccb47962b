"""What a node that begins to listen waits for."""

import asyncio
from typing import Any

import pytest

from unmissed.cluster.introductions import Introductions


def introduction(*others: str, knows: int = 7, ready: bool = True) -> dict[str, Any]:
    return {"knows": knows, "ready": ready, "others": [*others]}


def test_facts_are_asked_for_once_for_each_fingerprint() -> None:
    introductions = Introductions()

    asked = [
        introductions.add(node, introduction(knows=knows), differs=knows != 1)
        for node, knows in (("a", 7), ("b", 7), ("c", 8), ("d", 1))
    ]

    assert [True, False, True, False] == asked


def test_a_start_is_over_when_the_facts_of_every_node_have_arrived() -> None:
    introductions = Introductions()
    over = []

    introductions.add("a", introduction("b"), differs=True)
    over.append(introductions.over.is_set())
    introductions.completed("a")
    over.append(introductions.over.is_set())
    introductions.add("b", introduction("a"), differs=False)
    over.append(introductions.over.is_set())

    assert [False, False, True] == over


def test_a_node_that_introduces_itself_twice_is_still_awaited() -> None:
    introductions = Introductions()
    over = []
    introductions.add("a", introduction(), differs=True)
    asked_again = introductions.add("a", introduction(), differs=True)
    over.append(introductions.over.is_set())
    introductions.completed("a")
    over.append(introductions.over.is_set())

    assert not asked_again
    assert [False, True] == over


def test_nodes_that_are_all_starting_complete_no_start() -> None:
    introductions = Introductions()

    introductions.add("a", introduction(ready=False), differs=False)

    assert not introductions.over.is_set()


def test_after_an_interruption_facts_are_asked_for_again() -> None:
    introductions = Introductions()
    introductions.add("a", introduction(), differs=True)

    introductions.begin()

    assert introductions.add("a", introduction(), differs=True)


async def test_a_start_that_hears_nothing_ends_and_is_not_complete() -> None:
    introductions = Introductions()

    assert not await introductions.wait(seconds=0.01)
    assert introductions.over.is_set()


@pytest.mark.timeout(30)
async def test_a_start_waits_for_longer_while_facts_arrive() -> None:
    introductions = Introductions()
    loop = asyncio.get_running_loop()

    def arrive() -> None:
        introductions.facts += 1
        if introductions.facts == 3:
            introductions.add("a", introduction(), differs=False)
        else:
            loop.call_later(0.2, arrive)

    arrive()

    assert await introductions.wait(seconds=0.3)
    assert 3 == introductions.facts
