"""The bodies of the REST routes. Those of messages are for the documentation only: stored bytes are sent unchanged."""

from typing import Annotated, Any

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from unmissed.core.audience import MAX_TOPICS, MAX_USERS, TOPIC_PATTERN
from unmissed.core.fields import MAX_SEQUENCE_NUMBER
from unmissed.core.messages import STAMPED_KEYS
from unmissed.core.server_frames import RESERVED_TYPES
from unmissed.core.window import Outcome

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
    first: int = Field(
        description="The number with which this epoch began. What is lost after position 0 is lost from here.",
        examples=[1795409482121000],
    )
    oldest: int = Field(
        description="The lowest retained number, latest + 1 if no message is retained. Later ones may be evicted.",
        examples=[1795409482123469],
    )
    latest: int = Field(description="The newest number so far.", examples=[1795409482123968])
    outcome: Outcome = Field(
        description="complete: nothing is missing; gap: some messages are lost, and what is retained follows; "
        "reset: since is from another epoch, and all that is retained follows."
    )
    has_more: bool = Field(
        description="Whether limit or 1 MiB truncated the list. Request the rest with sequence_number."
    )
    sequence_number: int = Field(
        description="Your position after this page: send it as since in the next request.", examples=[1795409482123968]
    )
    lost_from: int | None = Field(
        default=None,
        alias="from",
        description="With a gap or a reset: of the messages from..to, at least the one numbered to is lost.",
        examples=[1795409482123400],
    )
    lost_to: int | None = Field(
        default=None,
        alias="to",
        description="As from. While you page through a gap, the next page may declare it again.",
        examples=[1795409482123468],
    )
    topics: list[str] = Field(description="The topics whose messages are included.", examples=[["orders.42"]])
    heartbeat_seconds: float = Field(description="Seconds between two heartbeats of a connection.", examples=[25])
    max_age: float = Field(
        description="Seconds that messages without a rule, and answers, are retained.", examples=[900]
    )
    rate: float = Field(description="Requests a second that you may send on average.", examples=[10])
    burst: int = Field(description="Requests that you may send at once.", examples=[20])
    expires_in: float | None = Field(
        default=None, description="Seconds until the token expires; absent if it does not.", examples=[3600]
    )


class StateBody(BaseModel):
    """The retained values by key."""

    values: list[MessageBody] = Field(
        description="Messages with a key: the newest of each, and the pieces with append, oldest first. About 1 MiB."
    )
    epoch: str = Field(description="Random identifier of the current epoch of the log.", examples=["k3J9x0aQ_2fM"])
    first: int = Field(description="The number with which this epoch began.", examples=[1795409482121000])
    latest: int = Field(description="The newest number so far.", examples=[1795409482123968])
    sequence_number: int = Field(
        description="Where the state is cut: everything after it follows with since.", examples=[1795409482123968]
    )
    has_more: bool = Field(
        description="Request the rest with after, the number of the last value, and through, this sequence_number."
    )
    topics: list[str] = Field(description="The topics whose values are included.", examples=[["users.42"]])


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

    ephemeral: bool = Field(
        default=False,
        description="Delivered live to clients that are up to date, without a number, and not stored: for a typing "
        "indicator, for example. An array has it for all messages or for none. It has no Idempotency-Key.",
    )


class PresentUser(BaseModel):
    """A user who follows a topic."""

    user_id: str = Field(examples=["alice"])
    connections: int = Field(description="How many of the user's connections follow the topic.", examples=[2])


class PresenceBody(BaseModel):
    """Who follows a topic now."""

    topic: str = Field(examples=["rooms.1"])
    users: list[PresentUser] = Field(description="The users in alphabetical order, at most limit of them.")
    total_users: int = Field(
        description="How many users follow the topic. If there are more on a node than the limit, "
        "a user who is connected to several nodes may count more than once.",
        examples=[1],
    )
    total_connections: int = Field(examples=[2])


def answer(body: BaseModel) -> Response:
    """Return the response with this body."""
    return Response(
        body.model_dump_json(by_alias=True), headers={"Cache-Control": "no-store"}, media_type="application/json"
    )


class ResultBody(BaseModel):
    """The answer to a command."""

    data: Any = Field(description="What the command returned.")


class StampBody(BaseModel):
    """The stamp of a published message."""

    sequence_number: int = Field(examples=[1795409482123969])
    epoch: str = Field(examples=["k3J9x0aQ_2fM"])
    timestamp: str = Field(examples=["2026-01-31T12:00:00.000Z"])


class LiveBody(BaseModel):
    """The answer about an ephemeral message, which has no number."""

    timestamp: str = Field(examples=["2026-01-31T12:00:00.000Z"])
