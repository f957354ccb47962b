"""Typed messages: Pydantic models for message types. The public API calls them events."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from unmissed.core.errors import ConfigurationError
from unmissed.core.server_frames import RESERVED_TYPES


class TypedMessages:
    """The models of one application, each with its message type: ``manager.events``.

    Registered models are described in ``asyncapi.json``. A model that is not registered can be published, too: its
    class name is the type.
    """

    def __init__(self) -> None:
        self._types: dict[type[BaseModel], str] = {}

    def __iter__(self) -> Iterator[tuple[str, type[BaseModel]]]:
        """Iterate over message types and models, as they were registered."""
        return iter([(message_type, model) for model, message_type in self._types.items()])

    def add(self, model: type[BaseModel], message_type: str) -> None:
        """Register a model for a message type. Raises ConfigurationError."""
        if not isinstance(model, type) or not issubclass(model, BaseModel):
            raise ConfigurationError(f"{model!r} is no event: decorate a Pydantic model, class Shipped(BaseModel)")
        if message_type in RESERVED_TYPES or not message_type:
            raise ConfigurationError(f"the type {message_type!r} is reserved for the protocol: choose another name")
        if message_type in self._types.values():
            raise ConfigurationError(f"two events have the type {message_type!r}: rename one")
        if model in self._types:
            raise ConfigurationError(f"{model.__name__} has the type {self._types[model]!r} already: use a subclass")
        self._types[model] = message_type

    def message_of(self, event: BaseModel) -> Mapping[str, Any]:
        """Return the message for an event: the type of its class, by default the name, and its fields as data."""
        model = type(event)
        return {"type": self._types.get(model, model.__name__), "data": event.model_dump(mode="json", by_alias=True)}
