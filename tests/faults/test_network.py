"""Row 24: behind a network that fails all the time, every message arrives exactly once, in order, unchanged."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import pytest

from support import Serve, portable_is_long, until
from unmissed import client
from unmissed.lab.faults import ConnectionFault, NetworkFault
from unmissed.lab.proxy import FaultProxy
from unmissed.testing import LiveServer

MESSAGES = 300
MIN_CONNECTIONS = len(NetworkFault) + 1

History = list[tuple[int, Any]]
"""Numbers and data of messages."""

Listen = Callable[[LiveServer, FaultProxy], Coroutine[Any, Any, "Received"]]


@dataclass
class Received:
    """What a client received after the position that its first connection started at."""

    start: int
    messages: History = field(default_factory=list)


def violations(published: History, received: Received) -> list[str]:
    """Return which of the promises are broken. P4, no false gap, is checked while the client listens."""
    numbers = [number for number, _ in received.messages]
    missing = {number for number, _ in published if number > received.start} - set(numbers)
    changed = [each for each in received.messages if each not in published]
    return [
        promise
        for promise, broken in {
            "P1: duplicates": len(set(numbers)) != len(numbers),
            "P2: out of order": sorted(numbers) != numbers,
            "P3: silent loss": bool(missing),
            "P5: one number, two payloads": bool(changed),
        }.items()
        if broken
    ]


def every_fault_in_turn(seed: int) -> Callable[[], ConnectionFault]:
    """Return what draws the next fault. Each connection ends after some bytes, most often in the middle of a frame."""
    chance = random.Random(seed)
    faults = cycle(NetworkFault)

    def draw() -> ConnectionFault:
        end = chance.randint(100, 8_000)
        return ConnectionFault(
            next(faults),
            upwards=False,
            after=chance.randint(50, end),
            seconds=chance.uniform(0, 0.1),
            slice_bytes=1,
            cut_after=end,
        )

    return draw


async def listen(server: LiveServer, proxy: FaultProxy) -> Received:
    """Return what a client receives behind the proxy, until the network is repaired and the end arrives."""
    async with client.connect(proxy.url, token=server.token()) as stream:
        assert stream.position is not None
        received = Received(stream.position)
        async for event in stream:
            assert isinstance(event, client.ReceivedMessage), "P4: a gap that is none"
            assert event.sequence_number is not None
            if event.type == "end":
                break
            received.messages.append((event.sequence_number, event.data))
    return received


async def listen_forgetfully(server: LiveServer, proxy: FaultProxy) -> Received:
    """Listen as a client would that does not keep its position: each of its connections is another stream."""
    received: Received | None = None
    while True:
        async with client.connect(proxy.url, token=server.token()) as stream:
            assert stream.position is not None
            received = received or Received(stream.position)
            while not stream.reconnects:
                event = await anext(stream)
                assert isinstance(event, client.ReceivedMessage)
                assert event.sequence_number is not None
                if event.type == "end":
                    return received
                received.messages.append((event.sequence_number, event.data))


async def publish(server: LiveServer, proxies: list[FaultProxy]) -> History:
    """Publish steadily, and at least until every proxy has had each fault."""
    published: History = []
    while len(published) < MESSAGES or any(proxy.accepted < MIN_CONNECTIONS for proxy in proxies):
        data = {"count": len(published), "text": "ä" * 50}
        message = await asyncio.to_thread(server.publish, "count", data)
        published.append((message.sequence_number, data))
        await asyncio.sleep(0.01)
    for proxy in proxies:
        proxy.calm()
    return published


async def violations_behind_faults(server: LiveServer, listen: Listen, *, seeds: range) -> list[list[str]]:
    """Return the broken promises of each client, all of which listen to the same messages."""
    port = int(server.url.rpartition(":")[2])
    proxies = [FaultProxy("127.0.0.1", port, draw=every_fault_in_turn(seed)) for seed in seeds]
    async with asyncio.timeout(55), asyncio.TaskGroup() as tasks:
        listening = [tasks.create_task(behind(server, proxy, listen)) for proxy in proxies]
        await until(lambda: all(proxy.accepted for proxy in proxies))
        published = await publish(server, proxies)
        while not all(task.done() for task in listening):
            # More than once, for the client that forgets its position and may miss the first.
            await asyncio.to_thread(server.publish, "end")
            await asyncio.wait(listening, timeout=0.25)
    return [violations(published, task.result()) for task in listening]


async def behind(server: LiveServer, proxy: FaultProxy, listen: Listen) -> Received:
    async with proxy.serving():
        return await listen(server, proxy)


@portable_is_long
async def test_a_client_misses_and_doubles_nothing_behind_a_network_that_fails(serve: Serve) -> None:
    server = serve(max_messages=10_000)

    assert [[]] * 4 == await violations_behind_faults(server, listen, seeds=range(4))


async def ask_everything(server: LiveServer, proxy: FaultProxy, *, requests: int) -> list[tuple[int, int]]:
    """Publish as many messages and call as many commands, and return the number and the result of each pair."""

    async def ask(stream: client.Stream, number: int) -> tuple[int, int]:
        published = stream.publish({"type": "asked", "data": number})
        executed = stream.command("note", number)
        return await published, await executed

    async with asyncio.timeout(55), client.connect(proxy.url, token=server.token()) as stream:
        answers = await asyncio.gather(*(ask(stream, number) for number in range(requests)))
        assert stream.reconnects > 3
    return answers


@portable_is_long
@pytest.mark.parametrize("upwards", [pytest.param(True, id="requests are lost"), pytest.param(False, id="answers")])
async def test_every_request_is_executed_once_behind_a_network_that_fails(serve: Serve, *, upwards: bool) -> None:
    server = serve(max_messages=10_000, client_rate=1_000, client_burst=1_000)
    executed: list[int] = []

    @server.manager.command
    def note(number: int) -> int:
        executed.append(number)
        return -number

    chance = random.Random(7)

    def cut_in_the_middle() -> ConnectionFault:
        return ConnectionFault(NetworkFault.RESET, upwards, after=chance.randint(300, 3_000), seconds=0.0)

    async with FaultProxy("127.0.0.1", int(server.url.rpartition(":")[2]), draw=cut_in_the_middle).serving() as proxy:
        answers = await ask_everything(server, proxy, requests=40)

    messages = await asyncio.to_thread(server.published, "asked")
    assert {message.data: message.sequence_number for message in messages} == {
        number: published for number, (published, _) in enumerate(answers)
    }
    assert [*range(40)] == sorted(message.data for message in messages) == sorted(executed)
    assert [-number for number in range(40)] == [result for _, result in answers]


@portable_is_long
async def test_a_client_that_forgets_its_position_is_caught(serve: Serve) -> None:
    server = serve(max_messages=10_000)

    assert [["P3: silent loss"]] * 2 == await violations_behind_faults(server, listen_forgetfully, seeds=range(2))


@pytest.mark.parametrize(
    ("numbers", "broken"),
    [
        pytest.param([2, 3], [], id="nothing"),
        pytest.param([2, 2, 3], ["P1: duplicates"], id="duplicates"),
        pytest.param([3, 2], ["P2: out of order"], id="order"),
        pytest.param([2], ["P3: silent loss"], id="loss at the end"),
        pytest.param([3], ["P3: silent loss"], id="loss at the start"),
        pytest.param([2, 3, 4], ["P5: one number, two payloads"], id="a message that nobody published"),
    ],
)
def test_the_checker_finds_each_broken_promise(numbers: list[int], broken: list[str]) -> None:
    published = [(1, "a"), (2, "a"), (3, "a")]

    assert broken == violations(published, Received(start=1, messages=[(number, "a") for number in numbers]))
