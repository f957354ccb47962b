"""Commands: functions of the application that clients call."""

import asyncio
import functools
import json
import threading
from datetime import datetime
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict

from support import ALICE, BOB, connect, until
from unmissed import CommandError, ConfigurationError, ConnectionManager, Identity
from unmissed.testing import FakeSocket


class Item(BaseModel):
    """What a client adds to its cart."""

    name: str
    count: int = 1


def send(socket: FakeSocket, name: str, *, request_id: str = "1", **data: Any) -> None:
    socket.receive(json.dumps({"type": "command", "id": request_id, "name": name, **data}))


async def answers(socket: FakeSocket, count: int = 1) -> list[dict[str, Any]]:
    """Wait for the answers to requests, and return them."""

    def found() -> list[dict[str, Any]]:
        return [frame for frame in socket.frames if "id" in frame]

    await until(lambda: len(found()) >= count)
    return found()


async def answer_to(manager: ConnectionManager, name: str, identity: Identity = ALICE, **data: Any) -> dict[str, Any]:
    socket, _ = connect(manager, identity)
    send(socket, name, **data)
    [answer] = await answers(socket)
    return answer


async def test_a_command_takes_a_model_and_the_identity_and_its_result_is_sent_back(
    manager: ConnectionManager,
) -> None:
    @manager.command("cart.add")
    async def add(item: Item, identity: Identity) -> dict[str, object]:
        return {"user": identity.user_id, "item": item}

    answer = await answer_to(manager, "cart.add", BOB, data={"name": "tea"})

    item = {"name": "tea", "count": 1}
    assert {"type": "result", "id": "1", "data": {"user": "bob", "item": item}} == answer


@pytest.mark.parametrize("data", [None, 1, "a", [1, {"b": None}], {"c": 1.5}])
async def test_plain_json_comes_and_goes_as_it_is(manager: ConnectionManager, data: object) -> None:
    manager.command("echo")(lambda data: data)

    assert data == (await answer_to(manager, "echo", data=data))["data"]


async def test_a_command_may_take_nothing(manager: ConnectionManager) -> None:
    @manager.command("ping")
    async def ping() -> None:
        pass

    assert {"type": "result", "id": "1", "data": None} == await answer_to(manager, "ping")
    refused = await answer_to(manager, "ping", BOB, data=1)
    assert (4400, "the command ping takes no data") == (refused["code"], refused["detail"])


async def test_absent_data_is_the_default_or_null(manager: ConnectionManager) -> None:
    @manager.command("optional")
    async def optional(number: int = 7) -> int:
        return number

    @manager.command("nullable")
    async def nullable(number: int | None) -> str:
        return str(number)

    assert 7 == (await answer_to(manager, "optional"))["data"]
    assert "None" == (await answer_to(manager, "nullable", BOB))["data"]


async def test_a_function_that_is_not_async_runs_in_a_thread(manager: ConnectionManager) -> None:
    @manager.command("where")
    def where() -> bool:
        return threading.current_thread() is threading.main_thread()

    assert False is (await answer_to(manager, "where"))["data"]


async def test_a_partial_of_an_async_function_is_a_command_too(manager: ConnectionManager) -> None:
    async def add(one: int, *, data: int) -> int:
        return one + data

    manager.command("add")(functools.partial(add, 1))

    assert 3 == (await answer_to(manager, "add", data=2))["data"]


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        ({"data": {"name": "tea", "count": "many"}}, "count: Input should be a valid integer"),
        ({"data": {}}, "name: Field required"),
        ({"data": "hunter2"}, "data: Input should be an object"),
        ({}, "data: Input should be an object"),
    ],
)
async def test_invalid_data_is_refused_without_repeating_it(
    manager: ConnectionManager, data: dict[str, Any], detail: str
) -> None:
    ran: list[Item] = []
    manager.command("cart.add")(_appending(ran))

    answer = await answer_to(manager, "cart.add", **data)

    assert ("error", "1", 4400) == (answer["type"], answer["id"], answer["code"])
    assert answer["detail"].startswith(detail)
    assert "hunter2" not in json.dumps(answer)
    assert [] == ran


def _appending(ran: list[Item]) -> Any:
    def add(item: Item) -> None:
        ran.append(item)

    return add


@pytest.mark.parametrize("text", ["x" * 100_000, "\u20ac" * 100_000, "\ud800" * 100_000])
async def test_the_text_of_a_refusal_has_at_most_1_kb(manager: ConnectionManager, text: str) -> None:
    @manager.command("refuse")
    async def refuse() -> None:
        raise CommandError(text)

    answer = await answer_to(manager, "refuse")

    assert 4400 == answer["code"]
    assert 990 <= len(answer["detail"].encode()) <= 1_000
    assert answer["detail"].endswith("...")


async def test_data_with_very_many_errors_is_refused_with_a_short_text(manager: ConnectionManager) -> None:
    @manager.command("import")
    async def take(items: list[Item]) -> None:
        raise AssertionError(items)

    answer = await answer_to(manager, "import", data=[{}] * 16_000)

    assert (4400, "0.name: Field required") == (answer["code"], answer["detail"])


async def test_an_unknown_command_is_refused(manager: ConnectionManager) -> None:
    answer = await answer_to(manager, "cart.add")

    assert {"type": "error", "id": "1", "code": 4400, "detail": "no command has this name"} == answer


async def test_a_command_may_refuse_with_a_text(manager: ConnectionManager) -> None:
    @manager.command("buy")
    async def buy() -> None:
        raise CommandError("sold out")

    assert {"type": "error", "id": "1", "code": 4400, "detail": "sold out"} == await answer_to(manager, "buy")


@pytest.mark.parametrize("result", [None, float("nan"), object()])
async def test_an_exception_is_logged_and_answered_without_its_text(
    manager: ConnectionManager, caplog: pytest.LogCaptureFixture, result: object
) -> None:
    @manager.command("fail")
    def fail() -> object:
        if result is None:
            raise ValueError("hunter2")
        return result

    answer = await answer_to(manager, "fail")

    assert (1011, "internal error: the reason is in the server's log output") == (answer["code"], answer["detail"])
    assert "the command fail failed" in caplog.text


async def test_the_commands_of_one_connection_run_in_order_and_delay_nobody(manager: ConnectionManager) -> None:
    may_end, began = asyncio.Event(), list[int]()

    @manager.command("slow")
    async def slow(number: int) -> int:
        began.append(number)
        await may_end.wait()
        return number

    socket, other = connect(manager)[0], connect(manager, BOB)[0]
    for number in range(3):
        send(socket, "slow", request_id=str(number), data=number)
    send(other, "slow", request_id="other", data=9)
    await until(lambda: 9 in began)
    socket.receive('{"type":"ping"}')
    await manager.emit("news")

    assert [0, 9] == began
    assert ["pong", "news"] == [frame["type"] for frame in socket.frames[1:]]
    may_end.set()
    assert ["0", "1", "2"] == [answer["id"] for answer in await answers(socket, 3)]


async def test_a_repeated_command_runs_once_also_from_another_connection(manager: ConnectionManager) -> None:
    may_end, runs = asyncio.Event(), list[int]()

    @manager.command("pay")
    async def pay(amount: int) -> int:
        runs.append(amount)
        await may_end.wait()
        return len(runs)

    lost = connect(manager)[0]
    send(lost, "pay", request_id="a", data=5)
    await until(lambda: runs)
    lost.drop()
    socket = connect(manager)[0]
    send(socket, "pay", request_id="a", data=5)
    may_end.set()
    [first] = await answers(socket)
    send(socket, "pay", request_id="a", data=5)

    assert [first, first] == await answers(socket, 2)
    assert ([5], 1) == (runs, first["data"])
    assert 2 == (await answer_to(manager, "pay", BOB, request_id="a", data=5))["data"]


async def test_an_id_that_was_used_for_another_command_is_refused(manager: ConnectionManager) -> None:
    manager.command("echo")(lambda data: data)
    socket, _ = connect(manager)
    for data in (1, 2):
        send(socket, "echo", data=data)

    answer = (await answers(socket, 2))[1]

    assert (4400, "this id was used for another command: use a new id") == (answer["code"], answer["detail"])


async def test_commands_that_wait_are_forgotten_when_the_client_is_gone(manager: ConnectionManager) -> None:
    may_end, ran = asyncio.Event(), list[int]()

    @manager.command("slow")
    async def slow(number: int) -> None:
        await may_end.wait()
        ran.append(number)

    socket, _ = connect(manager)
    for number in range(2):
        send(socket, "slow", request_id=str(number), data=number)
    await asyncio.sleep(0)
    socket.drop()
    may_end.set()
    await until(lambda: ran)
    await asyncio.sleep(0)

    assert [0] == ran


async def test_commands_are_cancelled_when_the_manager_stops(unstarted: ConnectionManager) -> None:
    cancelled: list[bool] = []

    @unstarted.command("slow")
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)

    async with unstarted:
        socket, _ = connect(unstarted)
        send(socket, "slow")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [] == cancelled
    await until(lambda: cancelled)

    assert [True] == cancelled


class Later:
    """Names a type that does not exist where it is evaluated."""


@pytest.mark.parametrize("function", [lambda one, two: (one, two), lambda *values: values, lambda **values: values])
def test_other_parameters_are_refused(unstarted: ConnectionManager, function: Any) -> None:
    with pytest.raises(ConfigurationError, match="the command 'a' may have two named parameters, such as"):
        unstarted.command("a")(function)


def test_a_type_that_json_cannot_become_is_refused(unstarted: ConnectionManager) -> None:
    def function(thing: Later) -> None:
        del thing

    with pytest.raises(ConfigurationError, match="the command 'a': thing must be a Pydantic model or another type"):
        unstarted.command("a")(function)


def test_a_type_that_cannot_be_found_is_refused(unstarted: ConnectionManager) -> None:
    def function(thing: Any) -> None:
        del thing

    function.__annotations__["thing"] = "Missing"

    with pytest.raises(ConfigurationError, match="the command 'a' cannot be inspected: name 'Missing' is"):
        unstarted.command("a")(function)


def test_a_name_is_used_once(unstarted: ConnectionManager) -> None:
    unstarted.command("a")(lambda: None)

    with pytest.raises(ConfigurationError, match="two commands have the name 'a'"):
        unstarted.command("a")(lambda: None)


class Member(Identity):
    """An identity of an application."""


def optional(identity: Identity | None = None) -> str:
    return identity.user_id if identity else "nobody"


def annotated(identity: Annotated[Identity, "from the token"]) -> str:
    return identity.user_id


def derived(identity: Member) -> str:
    return identity.user_id


@pytest.mark.parametrize("function", [optional, annotated, derived])
async def test_a_client_cannot_send_an_identity(manager: ConnectionManager, function: Any) -> None:
    manager.command("whoami")(function)

    assert "alice" == (await answer_to(manager, "whoami"))["data"]
    forged = await answer_to(manager, "whoami", BOB, data={"user_id": "alice"})
    assert "the command whoami takes no data" == forged["detail"]


async def test_strict_models_take_what_json_has(manager: ConnectionManager) -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(strict=True)

        at: datetime

    @manager.command("when")
    def when(data: Strict) -> int:
        return data.at.year

    assert 2026 == (await answer_to(manager, "when", data={"at": "2026-01-31T00:00:00Z"}))["data"]


async def test_data_that_cannot_be_sent_back_is_refused(
    manager: ConnectionManager, caplog: pytest.LogCaptureFixture
) -> None:
    manager.command("echo")(lambda data: data)

    answer = await answer_to(manager, "echo", data={"\ud800": 1})

    assert (4400, True) == (answer["code"], answer["detail"].startswith("the data is not valid: "))
    assert "" == caplog.text


async def test_a_command_that_awaits_something_cancelled_is_answered_and_the_next_one_runs(
    manager: ConnectionManager, caplog: pytest.LogCaptureFixture
) -> None:
    @manager.command("cancelled")
    async def cancelled() -> None:
        raise asyncio.CancelledError

    manager.command("echo")(lambda data: data)
    socket, _ = connect(manager)
    send(socket, "cancelled")
    send(socket, "echo", request_id="2", data=1)

    assert [("1", "error"), ("2", "result")] == [(each["id"], each["type"]) for each in await answers(socket, 2)]
    assert "the command cancelled was cancelled" in caplog.text
