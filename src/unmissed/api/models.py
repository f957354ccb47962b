"""The bodies of the REST routes, for the OpenAPI documentation only: stored bytes are sent unchanged."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from unmissed.core.audience import MAX_USERS
from unmissed.core.messages import STAMPED_KEYS
from unmissed.core.topics import MAX_TOPICS, TOPIC_PATTERN
from unmissed.core.window import Outcome
from unmissed.core.wire import MAX_SEQUENCE_NUMBER, RESERVED_TYPES

_REFUSED: list[Any] = [{"required": [key]} for key in STAMPED_KEYS]


class MessageBody(BaseModel):
    """A message, identical for every client, live or recovered. Other keys from its publisher are kept."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="The message type, chosen by the publisher.", examples=["chat"])
    sequence_number: int = Field(
        description="Contiguous, and never used twice.", ge=1, le=MAX_SEQUENCE_NUMBER, examples=[1795409482123968]
    )
    timestamp: str = Field(description="RFC 3339, UTC.", examples=["2026-01-31T12:00:00.000Z"])
    data: Any = Field(default=None, description="What the publisher sent, if anything.", examples=[{"text": "hello"}])


class RecoveryBody(BaseModel):
    """What the log holds after a position."""

    messages: list[MessageBody] = Field(description="The messages after since that this user may see, oldest first.")
    epoch: str = Field(description="Random identifier of the current epoch of the log.", examples=["k3J9x0aQ_2fM"])
    oldest: int = Field(description="The lowest number that is not evicted.", examples=[1795409482123469])
    latest: int = Field(description="The newest number so far.", examples=[1795409482123968])
    outcome: Outcome = Field(
        description="complete: nothing is missing; gap: some messages are lost; reset: since is from another epoch."
    )
    has_more: bool = Field(
        description="Whether limit or 1 MiB truncated the list. Request the rest with the last number."
    )


class PublishBody(BaseModel):
    """A message to publish. Any other keys are kept."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={"not": {"anyOf": _REFUSED}},
    )

    type: str = Field(
        description="The message type; types of the protocol are refused.",
        examples=["chat"],
        min_length=1,
        json_schema_extra={"not": {"enum": [*sorted(RESERVED_TYPES)]}},
    )
    data: Any = Field(default=None, description="Any JSON; may be left out.", examples=[{"text": "hello"}])
    users: list[Annotated[str, Field(min_length=1)]] | None = Field(
        default=None,
        description="User ids; leave out, together with topics, for everyone.",
        examples=[["alice"]],
        min_length=1,
        max_length=MAX_USERS,
    )
    topics: list[Annotated[str, Field(pattern=TOPIC_PATTERN)]] | None = Field(
        default=None,
        description="Topics, whose followers see the message in addition to users.",
        examples=[["orders.42"]],
        min_length=1,
        max_length=MAX_TOPICS,
    )


class StampBody(BaseModel):
    """The stamp of a published message."""

    sequence_number: int = Field(examples=[1795409482123969])
    epoch: str = Field(examples=["k3J9x0aQ_2fM"])
    timestamp: str = Field(examples=["2026-01-31T12:00:00.000Z"])
