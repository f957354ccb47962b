"""Row 31: no limit is reset by a reconnect, by another connection, or by another user."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from support import next_frame, until
from unmissed import Connected, ConnectionManager, Identity, Settings, create_router
from unmissed.core.retention import Retention
from unmissed.logs.memory import MemoryLog
from unmissed.server import HttpProtocol, WebSocketProtocol
from unmissed.testing import SECRET, LiveServer

FLOOD: dict[str, Any] = {"client_rate": 100_000.0, "client_burst": 100_000}
"""Settings for floods that another limit than the rate has to stop."""


class Bank:
    """An application that counts how often a user has paid."""

    def __init__(self, log: MemoryLog | None = None, **settings: Any) -> None:
        self.paid = Counter[str]()
        self.manager = ConnectionManager(Settings.load(jwt_secret=SECRET, **settings), log=log)
        self.manager.command("pay")(self.pay)
        self.manager.command("echo")(self.echo)
        self.app = FastAPI(lifespan=self.manager.lifespan)
        self.app.include_router(create_router(self.manager))

    async def pay(self, amount: int, identity: Identity) -> int:
        self.paid[identity.user_id] += amount
        return self.paid[identity.user_id]

    async def echo(self, data: Any) -> Any:
        return data

    def serve(self) -> LiveServer:
        return LiveServer(self.app, manager=self.manager, http=HttpProtocol, ws=WebSocketProtocol)


class Visitor:
    """A user of a server, over HTTP."""

    def __init__(self, server: LiveServer, user_id: str) -> None:
        self.http = httpx.Client(base_url=server.url, headers=server.headers(user_id), timeout=60)

    def command(self, name: str, data: Any, *, key: str) -> httpx.Response:
        return self.http.post(f"/websocket/commands/{name}", json=data, headers={"Idempotency-Key": key})

    def publish(self, message: dict[str, Any], *, key: str) -> httpx.Response:
        return self.http.post("/websocket/messages", json=message, headers={"Idempotency-Key": key})


@pytest.fixture
def visitors() -> Iterator[list[Visitor]]:
    """Those whose connections end with the test."""
    visitors: list[Visitor] = []
    yield visitors
    for visitor in visitors:
        visitor.http.close()


def visit(visitors: list[Visitor], server: LiveServer, *user_ids: str) -> list[Visitor]:
    visitors.extend(arrived := [Visitor(server, user_id) for user_id in user_ids])
    return arrived


# Idempotency keys


@pytest.mark.long
def test_the_large_answers_of_one_user_do_not_make_the_command_of_another_run_twice(visitors: list[Visitor]) -> None:
    bank = Bank(**FLOOD)
    with bank.serve() as server:
        bob, mallory = visit(visitors, server, "bob", "mallory")
        bob.command("pay", 100, key="payment")
        for number in range(600):
            assert 200 == mallory.command("echo", "x" * 60_000, key=str(number)).status_code

        again, forgotten = bob.command("pay", 100, key="payment"), mallory.command("echo", "x" * 60_000, key="0")

    assert (200, {"data": 100}) == (again.status_code, again.json())
    assert 100 == bank.paid["bob"]
    assert 422 == forgotten.status_code
    assert "its answer is forgotten: it is not done again" in forgotten.json()["detail"]


def test_more_than_ten_thousand_keys_of_others_do_not_make_a_publish_run_twice(visitors: list[Visitor]) -> None:
    bank = Bank()
    with bank.serve() as server:
        bob, mallory = visit(visitors, server, "bob", "mallory")
        first = bob.publish({"type": "order"}, key="order")
        server.run(publish_keys(bank.manager, 20_001))

        again, first_of_flood = bob.publish({"type": "order"}, key="order"), mallory.publish({"type": "x"}, key="0")

    assert (201, 200) == (first.status_code, again.status_code)
    assert first.json() == again.json()
    assert 200 == first_of_flood.status_code


async def publish_keys(manager: ConnectionManager, count: int) -> None:
    for number in range(count):
        await manager.publish_batch([{"type": "x"}], idempotency_key=str(number), publisher="mallory")


def test_a_publish_whose_key_cannot_be_kept_is_refused_and_another_user_is_not(visitors: list[Visitor]) -> None:
    bank = Bank(MemoryLog(retention=Retention(max_keys=40)))
    with bank.serve() as server:
        bob, mallory = visit(visitors, server, "bob", "mallory")
        responses = [mallory.publish({"type": "x"}, key=str(number)) for number in range(30)]
        stored = bank.manager.window.latest - bank.manager.window.first_number + 1
        repeated, other = mallory.publish({"type": "x"}, key="0"), bob.publish({"type": "x"}, key="0")
        with_other_content = mallory.publish({"type": "y"}, key="0")

    accepted = sum(response.status_code == 201 for response in responses)
    assert 10 < accepted < 20
    assert [201] * accepted + [429] * (30 - accepted) == [response.status_code for response in responses]
    assert 900 < int(responses[-1].headers["retry-after"]) < 1_100
    assert accepted == stored
    assert (200, 201, 422) == (repeated.status_code, other.status_code, with_other_content.status_code)


# The rate


async def commands_until_refused(server: LiveServer, user_id: str, *, connections: int) -> int:
    """Return how many of five commands on each of several WebSockets, one after another, were done."""
    done = 0
    headers = server.headers(user_id)
    for connection in range(connections):
        async with connect(server.websocket_url, additional_headers=headers, compression=None) as websocket:
            assert "connected" == (await next_frame(websocket))["type"]
            with suppress(ConnectionClosed):
                for number in range(5):
                    request_id = f"{connection}.{number}"
                    await websocket.send(f'{{"type":"command","id":"{request_id}","name":"echo","data":1}}')
                    assert {"type": "result", "id": request_id, "data": 1} == await next_frame(websocket)
                    done += 1
            if websocket.close_code is not None:
                assert 4429 == websocket.close_code
    return done


@pytest.mark.parametrize("connections", [2, 10])
async def test_the_rate_of_a_user_is_not_reset_by_a_reconnect_nor_by_http(
    visitors: list[Visitor], connections: int
) -> None:
    bank = Bank(client_rate=0.001, client_burst=7)
    with bank.serve() as server:
        mallory, bob = visit(visitors, server, "mallory", "bob")

        done = await commands_until_refused(server, "mallory", connections=connections)
        over_http, of_another = mallory.command("echo", 1, key="http"), bob.command("echo", 1, key="http")

    assert 7 == done
    assert (429, "1000") == (over_http.status_code, over_http.headers["retry-after"])
    assert 200 == of_another.status_code


async def test_the_open_connections_of_a_user_share_one_rate() -> None:
    bank = Bank(client_rate=0.001, client_burst=7)
    with bank.serve() as server:
        headers = server.headers("mallory")
        async with AsyncExitStack() as stack:
            websockets = [
                await stack.enter_async_context(connect(server.websocket_url, additional_headers=headers))
                for _ in range(3)
            ]
            for websocket in websockets:
                assert "connected" == (await next_frame(websocket))["type"]
            done = 0
            for number in range(7):
                await websockets[number % 3].send(f'{{"type":"command","id":"{number}","name":"echo","data":1}}')
                done += (await next_frame(websockets[number % 3]))["type"] == "result"
            for number, websocket in enumerate(websockets):
                await websocket.send(f'{{"type":"command","id":"more-{number}","name":"echo","data":1}}')
                await websocket.wait_closed()

            assert [4429] * 3 == [websocket.close_code for websocket in websockets]
    assert 7 == done


# Commands that run


class SlowBank(Bank):
    """It has commands that run until they may end: ``wait`` on the event loop, and ``report`` in a thread."""

    def __init__(self) -> None:
        super().__init__(**FLOOD)
        self.running: list[str] = []
        self.may_end, self._may_end_waiting = threading.Event(), asyncio.Event()
        self.manager.command("wait")(self.wait)
        self.manager.command("report")(self.report)

    async def wait(self, data: Any, identity: Identity) -> None:
        assert data
        self.running.append(identity.user_id)
        await self._may_end_waiting.wait()

    def report(self, identity: Identity) -> None:
        self.running.append(identity.user_id)
        assert self.may_end.wait(60)

    def end(self, server: LiveServer) -> None:
        self.may_end.set()
        server.call(self._may_end_waiting.set)


@asynccontextmanager
async def http_of(server: LiveServer, user_id: str) -> AsyncIterator[Callable[..., Coroutine[Any, Any, int]]]:
    """Return a function that calls a command as a user and returns the status."""
    limits = httpx.Limits(max_connections=None)
    headers = server.headers(user_id)
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60, limits=limits) as http:

        async def call(name: str, data: Any, *, key: str) -> int:
            response = await http.post(f"/websocket/commands/{name}", json=data, headers={"Idempotency-Key": key})
            return response.status_code

        yield call


async def test_a_user_has_only_so_many_commands_running_over_http_and_websockets() -> None:
    bank = SlowBank()
    with bank.serve() as server:
        async with (
            http_of(server, "mallory") as call,
            connect(server.websocket_url, additional_headers=server.headers("mallory")) as websocket,
            connect(server.websocket_url, additional_headers=server.headers("bob")) as other,
        ):
            running = [asyncio.create_task(call("wait", 1, key=str(number))) for number in range(100)]
            await until(lambda: len(bank.running) == 100)
            with_another_key, with_a_known_key = await call("wait", 1, key="another"), await call("wait", 1, key="0")
            for each in (websocket, other):
                assert "connected" == (await next_frame(each))["type"]
                await each.send('{"type":"command","id":"w","name":"echo","data":1}')
            on_a_websocket, of_another_user = await next_frame(websocket), await next_frame(other)
            bank.end(server)
            statuses = await asyncio.gather(*running)

    assert [200] * 100 == statuses
    assert (429, 429) == (with_another_key, with_a_known_key)
    assert (4429, "too many commands are running: retry in 1 s") == (on_a_websocket["code"], on_a_websocket["detail"])
    assert "result" == of_another_user["type"]


async def test_the_running_commands_of_a_user_hold_only_so_much_data() -> None:
    bank = SlowBank()
    with bank.serve() as server:
        async with http_of(server, "mallory") as call, http_of(server, "bob") as call_as_bob:
            calls = [asyncio.create_task(call("wait", "x" * 60_000, key=str(number))) for number in range(20)]
            await until(lambda: sum(each.done() for each in calls) == 16)
            of_another_user = asyncio.create_task(call_as_bob("wait", "x" * 60_000, key="0"))
            await until(lambda: "bob" in bank.running)
            bank.end(server)
            statuses = await asyncio.gather(*calls)

            assert 200 == await of_another_user
            assert 200 == await call("wait", "x" * 60_000, key="later")
    assert [200] * 4 + [429] * 16 == sorted(statuses)


async def test_slow_commands_in_threads_delay_neither_those_of_another_user_nor_hooks() -> None:
    bank, came = SlowBank(), list[str]()

    @bank.manager.command("fast")
    def fast() -> str:
        return "done"

    @bank.manager.on_connect
    def note(event: Connected) -> None:
        came.append(event.identity.user_id)

    with bank.serve() as server:
        async with http_of(server, "mallory") as call, http_of(server, "bob") as call_as_bob:
            calls = [asyncio.create_task(call("report", None, key=str(number))) for number in range(100)]
            await until(lambda: len(bank.running) >= 10)

            statuses = [await call_as_bob("fast", None, key=str(number)) for number in range(3)]
            async with connect(server.websocket_url, additional_headers=server.headers("carol")):
                await until(lambda: came)
            assert not any(each.done() for each in calls)

            bank.end(server)
            assert {200} == set(await asyncio.gather(*calls))
    assert ([200] * 3, ["carol"]) == (statuses, came)
