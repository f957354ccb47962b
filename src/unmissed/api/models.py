"""The bodies of the REST routes for OpenAPI. They only document: stored bytes are sent unchanged."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from unmissed.core.window import Outcome
from unmissed.core.wire import MAX_SEQUENCE_NUMBER


class MessageBody(BaseModel):
    """A message, identical for every client, live or recovered. Other keys from its publisher are kept."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="What the message is about.", examples=["chat"])
    sequence_number: int = Field(
        description="Without holes, and never used twice.", ge=1, le=MAX_SEQUENCE_NUMBER, examples=[1795409482123968]
    )
    timestamp: str = Field(description="RFC 3339, UTC.", examples=["2026-01-31T12:00:00.000Z"])
    data: Any = Field(default=None, description="What the publisher sent, if anything.", examples=[{"text": "hello"}])


class RecoveryBody(BaseModel):
    """What the log holds after a position."""

    messages: list[MessageBody] = Field(description="After since, oldest first, visible to this user.")
    epoch: str = Field(description="The name of this life of the log.", examples=["k3J9x0aQ_2fM"])
    oldest: int = Field(description="The oldest number that can be held.", examples=[1795409482123469])
    latest: int = Field(description="The newest number so far.", examples=[1795409482123968])
    outcome: Outcome = Field(
        description="complete: nothing is missing; gap: some messages are lost; reset: since is of another life."
    )
    has_more: bool = Field(description="Whether limit cut the answer short: ask again with the last number.")


class PublishBody(BaseModel):
    """A message to publish. Any other keys are kept."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="What it is about; the protocol's own types are refused.", examples=["chat"])
    data: Any = Field(default=None, description="Any JSON; may be left out.", examples=[{"text": "hello"}])
    users: list[str] | None = Field(default=None, description="User ids; leave out for everyone.", examples=[["alice"]])


class StampBody(BaseModel):
    """The stamp of a published message."""

    sequence_number: int = Field(examples=[1795409482123969])
    epoch: str = Field(examples=["k3J9x0aQ_2fM"])
    timestamp: str = Field(examples=["2026-01-31T12:00:00.000Z"])
