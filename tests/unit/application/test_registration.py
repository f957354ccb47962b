"""Decorators: with and without parentheses, each registers what it decorates, or says what is wrong."""

import functools
from typing import Any

import pytest
from pydantic import BaseModel

from support import connect, until
from unmissed import ConfigurationError, Connected, ConnectionManager, Disconnected, Followed, Unfollowed


class Shipped(BaseModel):
    order: int


async def test_a_command_without_a_name_has_that_of_its_function(manager: ConnectionManager) -> None:
    @manager.command
    async def say(text: str) -> str:
        return text

    socket, _ = connect(manager)
    socket.receive('{"type":"command","id":"1","name":"say","data":"hello"}')
    await until(lambda: socket.frames[-1]["type"] == "result")

    assert "hello" == socket.frames[-1]["data"]
    assert "hello" == await say("hello")


def test_a_command_has_the_name_that_it_is_given(unstarted: ConnectionManager) -> None:
    @unstarted.command("cart.add")
    def add() -> None: ...

    assert ["cart.add"] == [command.name for command in unstarted.commands]


def test_every_decorator_returns_what_it_decorates(unstarted: ConnectionManager) -> None:
    def command() -> None: ...
    def came(event: Connected) -> None: ...
    def left(event: Disconnected) -> None: ...
    def entered(event: Followed) -> None: ...
    def went(event: Unfollowed) -> None: ...

    assert command is unstarted.command(command)
    assert came is unstarted.on_connect(came)
    assert left is unstarted.on_disconnect(left)
    assert entered is unstarted.on_follow(entered)
    assert went is unstarted.on_unfollow(went)
    assert Shipped is unstarted.event(Shipped)
    assert (["command"], [came], [left], [entered], [went], [("Shipped", Shipped)]) == (
        [each.name for each in unstarted.commands],
        unstarted._hooks.on_connect,  # noqa: SLF001
        unstarted._hooks.on_disconnect,  # noqa: SLF001
        unstarted._hooks.on_follow,  # noqa: SLF001
        unstarted._hooks.on_unfollow,  # noqa: SLF001
        [*unstarted.events],
    )


@pytest.mark.parametrize("nameless", [lambda: None, functools.partial(print), 42, None])
def test_a_command_without_any_name_is_refused(unstarted: ConnectionManager, nameless: Any) -> None:
    with pytest.raises(ConfigurationError, match=r'or give it one, as in @manager\.command\("cart\.add"\)'):
        unstarted.command(nameless)
    assert [] == [*unstarted.commands]


@pytest.mark.parametrize(("name", "function"), [("", print), ("say", "not a function"), ("say", None)])
def test_what_is_no_command_is_refused(unstarted: ConnectionManager, name: str, function: Any) -> None:
    with pytest.raises(ConfigurationError, match="a command is a function with a name"):
        unstarted.command(name)(function)


@pytest.mark.parametrize("model", [int, dict, 42, None, lambda: None])
def test_what_is_no_model_is_no_event(unstarted: ConnectionManager, model: Any) -> None:
    for decorate in (unstarted.event, unstarted.event("order.shipped")):
        with pytest.raises(ConfigurationError, match="decorate a Pydantic model"):
            decorate(model)
    assert [] == [*unstarted.events]


@pytest.mark.parametrize("decorator", ["on_connect", "on_disconnect", "on_follow", "on_unfollow"])
def test_what_is_no_function_is_no_hook(unstarted: ConnectionManager, decorator: str) -> None:
    with pytest.raises(ConfigurationError, match=f"write @manager.{decorator} above it"):
        getattr(unstarted, decorator)("came")
