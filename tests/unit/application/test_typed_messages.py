"""Typed messages: models whose classes name message types."""

from datetime import UTC, datetime

import pytest
from pydantic import BaseModel, Field

from support import connect
from unmissed import ConfigurationError, ConnectionManager, InvalidMessage


class OrderShipped(BaseModel):
    """An order has left the house."""

    order_id: int = Field(alias="orderId")
    at: datetime = datetime(2026, 1, 31, tzinfo=UTC)


async def test_a_model_is_published_with_the_name_of_its_class(manager: ConnectionManager) -> None:
    socket, _ = connect(manager)

    await manager.emit(OrderShipped(orderId=7))

    frame = socket.frames[-1]
    assert ("OrderShipped", {"orderId": 7, "at": "2026-01-31T00:00:00Z"}) == (frame["type"], frame["data"])


async def test_a_registered_model_has_the_type_that_it_was_given(manager: ConnectionManager) -> None:
    @manager.event("note.added")
    class Note(BaseModel):
        text: str

    @manager.event
    class Plain(BaseModel):
        pass

    message = await manager.emit(Note(text="hello"), users=["alice"])

    assert ("note.added", {"text": "hello"}) == (message.as_dict()["type"], message.as_dict()["data"])
    assert "Plain" == (await manager.emit(Plain())).as_dict()["type"]


async def test_a_model_and_data_are_refused(manager: ConnectionManager) -> None:
    with pytest.raises(InvalidMessage, match=r"a model is the data: pass emit\(model\) alone"):
        await manager.emit(OrderShipped(orderId=7), {"text": "hello"})


@pytest.mark.parametrize("name", ["heartbeat", ""])
def test_types_of_the_protocol_are_refused(unstarted: ConnectionManager, name: str) -> None:
    with pytest.raises(ConfigurationError, match="is reserved for the protocol: choose another name"):
        unstarted.event(name)(OrderShipped)


def test_a_type_is_used_once(unstarted: ConnectionManager) -> None:
    unstarted.event("a")(OrderShipped)

    with pytest.raises(ConfigurationError, match="two events have the type 'a': rename one"):
        unstarted.event("a")(type("Other", (BaseModel,), {}))


def test_a_model_has_one_type(unstarted: ConnectionManager) -> None:
    unstarted.event("a")(OrderShipped)

    with pytest.raises(ConfigurationError, match="OrderShipped has the type 'a' already: use a subclass"):
        unstarted.event("b")(OrderShipped)
