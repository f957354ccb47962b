"""The bodies of the REST routes, as OpenAPI shows them. They document; stored bytes are sent as they are."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from unmissed.core.window import Outcome
from unmissed.core.wire import MAX_SEQUENCE_NUMBER


class Message(BaseModel):
    """A message, the same for everybody, live or recovered. Other keys that its publisher gave are kept."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="What the message is about.", examples=["chat"])
    sequence_number: int = Field(description="From 1, without holes.", ge=1, le=MAX_SEQUENCE_NUMBER, examples=[512])
    timestamp: str = Field(description="RFC 3339, UTC.", examples=["2026-01-31T12:00:00.000Z"])
    data: Any = Field(description="Whatever the publisher gave.", examples=[{"text": "hello"}])


class Recovery(BaseModel):
    """What the log holds after a position."""

    messages: list[Message] = Field(description="After since, oldest first, visible to this user.")
    epoch: str = Field(description="The name of this life of the log.", examples=["k3J9x0aQ_2fM"])
    oldest: int = Field(description="The oldest number that can be held.", examples=[13])
    latest: int = Field(description="The newest number; 0 before the first message.", examples=[512])
    outcome: Outcome = Field(description="complete: nothing is missing; gap: some are lost; reset: numbers began anew.")
    has_more: bool = Field(description="Whether limit cut the answer: ask again with the last number.")


class Publish(BaseModel):
    """A message to publish. Any other keys are kept."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="What it is about; the protocol's own types are refused.", examples=["chat"])
    data: Any = Field(None, description="Any JSON.", examples=[{"text": "hello"}])
    users: list[str] | None = Field(None, description="User ids; everyone when left out.", examples=[["alice"]])


class Stamp(BaseModel):
    """What a published message was given."""

    sequence_number: int = Field(examples=[513])
    epoch: str = Field(examples=["k3J9x0aQ_2fM"])
    timestamp: str = Field(examples=["2026-01-31T12:00:00.000Z"])
