"""Whose turn it is."""

import asyncio
from typing import Any

from unmissed.delivery.turns import Turns


async def test_connections_that_need_several_turns_take_them_in_turn() -> None:
    left = {"a": 3, "b": 2, "c": 1}
    served = list[str]()

    def serve(connection: Any) -> None:
        served.append(connection)
        left[connection] -= 1
        if left[connection]:
            turns.add(connection)

    turns = Turns(serve)
    for name in left:
        turns.add(name)  # type: ignore[arg-type]  # only its identity matters
        turns.add(name)  # type: ignore[arg-type]
    assert [] == served
    while any(left.values()):
        await asyncio.sleep(0)

    assert ["a", "b", "c", "a", "b", "a"] == served


async def test_other_callbacks_run_between_long_turns() -> None:
    loop, order = asyncio.get_running_loop(), list[str]()

    def serve(connection: Any) -> None:
        order.append(connection)
        begun = loop.time()
        while loop.time() < begun + 0.001:
            pass

    turns = Turns(serve)
    for name in ("a", "b", "c"):
        turns.add(name)  # type: ignore[arg-type]
    loop.call_soon(order.append, "other")
    while "c" not in order:
        await asyncio.sleep(0)

    assert ["a", "other", "b", "c"] == order
