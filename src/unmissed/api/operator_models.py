"""The bodies of the REST routes for operators."""

from typing import Annotated

from pydantic import BaseModel, Field

from unmissed.api.models import MessageBody
from unmissed.delivery.history import HistoryKind

_Rfc3339 = Annotated[str, Field(description="RFC 3339, UTC.", examples=["2026-01-31T12:00:00.000Z"])]


class RuleBody(BaseModel):
    """What a rule of retention keeps, and its limits."""

    pattern: str | None = Field(
        description="The topics or users that the rule is for; null for all messages without a rule.",
        examples=["rooms.*"],
    )
    max_messages: int = Field(description="The most messages of each topic, or of all without a rule.", examples=[100])
    max_age: float = Field(description="Seconds that a message is retained.", examples=[604_800])
    messages: int = Field(description="The retained messages, including values.", examples=[1_240])
    values: int = Field(
        description="How many of them are values by key, which do not count for max_messages.", examples=[40]
    )
    topics: int = Field(description="How many topics or users have messages that count.", examples=[12])
    bytes: int = Field(description="Bytes that the messages take.", examples=[450_000])


class LogBody(BaseModel):
    """How full the log is, and its limits."""

    messages: int = Field(description="The retained messages of all rules, including values.")
    values: int = Field(description="How many of them are values by key.")
    bytes: int
    reach_seconds: float = Field(description="The age of the oldest message without a rule.")
    max_messages: int = Field(description="The most messages without a rule, apart from values.")
    max_bytes: int
    max_age: float = Field(description="Seconds that a message without a rule is retained.")
    rules: list[RuleBody] = Field(description="First what is retained without a rule, then by each rule.")


class StatusBody(BaseModel):
    """The log as this node sees it, and counters since its start."""

    node_id: str = Field(description="The ids of the connections to this node begin with it.", examples=["5kVt0p3y"])
    problem: str | None = Field(description="What fails on this node, if anything.", examples=[None])
    epoch: str = Field(examples=["k3J9x0aQ_2fM"])
    oldest: int = Field(description="The lowest number that is retained, or the next one.", examples=[1795409482123469])
    latest: int = Field(description="The newest number so far.", examples=[1795409482123968])
    log: LogBody
    connections: int = Field(description="The open connections to this node.")
    published: int = Field(description="Messages that this node has published.")
    delivered: int = Field(description="Messages written to connections.")
    ephemeral_delivered: int = Field(description="Ephemeral messages written to connections.")
    ephemeral_dropped: int = Field(description="Ephemeral messages that this node dropped for all connections.")
    evicted: int = Field(description="Messages that the log of this node has evicted.")
    replaced: int = Field(description="Messages that later ones with their key have replaced or deleted.")
    gaps: int = Field(description="Gaps that were declared to connected clients.")
    stalls: int = Field(description="Connections that were dropped because their client took nothing.")


class ConnectionBody(BaseModel):
    """One open connection."""

    connection_id: str = Field(examples=["5kVt0p3y.Z1qAx0aQ2fM7"])
    node_id: str = Field(description="The node that has the connection.", examples=["5kVt0p3y"])
    user_id: str = Field(examples=["alice"])
    connected_at: _Rfc3339
    position: int = Field(description="The last sequence number that was sent or skipped.")
    lag: int = Field(description="How many sequence numbers the position is behind the latest message.")
    topics: list[str] = Field(description="The topics that the client follows: the first 20 in alphabetical order.")
    total_topics: int = Field(description="How many topics the client follows.")
    transport: str = Field(description="websocket or events.", examples=["websocket"])
    client: str | None = Field(description="The client's address, if the server knows it.", examples=["192.0.2.7"])


class ConnectionsBody(BaseModel):
    """A page of the open connections to all nodes."""

    connections: list[ConnectionBody]
    total: int = Field(description="How many connections are open.", examples=[10_000])
    matching: int = Field(description="How many of them match the filters, on all pages.", examples=[12])
    next: str | None = Field(description="Request the next connections with this value of after; null at the end.")


class ClosedBody(BaseModel):
    """What was closed."""

    closed: int = Field(description="The number of connections.")


class TopicBody(BaseModel):
    """A topic that clients follow."""

    topic: str = Field(examples=["rooms.1"])
    connections: int = Field(description="How many connections follow the topic.", examples=[2])


class TopicsBody(BaseModel):
    """The topics that clients of all nodes follow, those with the most connections first."""

    topics: list[TopicBody]
    total: int = Field(description="How many topics are followed.", examples=[3])
    matching: int = Field(description="How many of them contain the searched text.", examples=[1])


class NodeBody(BaseModel):
    """One node. All but its id is null if it has not answered within a second."""

    node_id: str = Field(description="The ids of the connections to the node begin with it.", examples=["5kVt0p3y"])
    own: bool = Field(description="Whether this node has answered the request.")
    connections: int | None = Field(description="The open connections to the node.")
    behind: int | None = Field(description="How many of them have pending messages.")
    latest: int | None = Field(description="The newest number that the node has.", examples=[1795409482123968])
    started_at: _Rfc3339 | None
    draining: bool | None = Field(description="Whether the node is shutting down.")
    problem: str | None = Field(description="What fails on the node, if anything.", examples=[None])


class NodesBody(BaseModel):
    """The nodes that share the log, ordered by id."""

    nodes: list[NodeBody]


class HistoryBody(BaseModel):
    """One event of the last hour. Texts that clients choose are shortened to 200 characters."""

    time: _Rfc3339
    kind: HistoryKind = Field(
        description="gap: a client has lost messages that were evicted; reset: a client came with a position of "
        "another epoch; stall: a connection was dropped because its client took nothing; close: a connection has "
        "ended; refused: a request or a handshake was refused."
    )
    node_id: str = Field(description="The node on which it happened.", examples=["5kVt0p3y"])
    connection_id: str | None = Field(description="null for requests.", examples=["5kVt0p3y.Z1qAx0aQ2fM7"])
    user_id: str | None = Field(description="null for what was refused.", examples=["alice"])
    client: str | None = Field(description="The client's address, if the server knows it.", examples=["192.0.2.7"])
    code: int | None = Field(
        description="The close code; for a refusal over HTTP, the one that a WebSocket would get.", examples=[4401]
    )
    status: int | None = Field(description="The HTTP status of a refusal.", examples=[401])
    reason: str = Field(examples=["the token has expired: reconnect with a new one"])
    request: str | None = Field(description="Method and path of what was refused.", examples=["WebSocket /ws"])
    first: int | None = Field(
        serialization_alias="from",
        description="Of a gap: the first number that may be lost; of a reset: the position of the client.",
    )
    last: int | None = Field(serialization_alias="to", description="Of a gap: the last number that is lost.")
    count: int = Field(description="How often the same client was refused for the same reason.", examples=[1])


class MinuteBody(BaseModel):
    """How many events there were in one minute."""

    time: _Rfc3339
    gap: int = 0
    reset: int = 0
    stall: int = 0
    close: int = 0
    refused: int = 0


class PastBody(BaseModel):
    """The last hour of all nodes. The newest 100 entries of each kind and code are kept, and all are counted."""

    entries: list[HistoryBody] = Field(description="The newest first.")
    minutes: list[MinuteBody] = Field(description="The minutes in which there was anything, the oldest first.")
    closes: dict[str, int] = Field(
        description="Ended connections by close code. Codes that this protocol does not have are other.",
        examples=[{"1006": 2, "other": 1}],
    )
    refusals: dict[str, int] = Field(description="Refused requests and handshakes by code.", examples=[{"4401": 3}])
    since: str = Field(description="All events since then are counted: an hour ago, or the start of the first node.")


class LogMessageBody(BaseModel):
    """A retained message, and to whom it is addressed."""

    message: MessageBody
    everyone: bool = Field(description="Whether it is for everyone: then both lists are empty.")
    topics: list[str] = Field(description="The topics that it is addressed to.", examples=[["orders.42"]])
    users: list[str] = Field(description="The ids of the users that it is addressed to.", examples=[["alice"]])
    bytes: int = Field(description="Bytes of its JSON.", examples=[117])


class LogPageBody(BaseModel):
    """Retained messages, whoever they are for, the newest first."""

    messages: list[LogMessageBody]
    examined: int = Field(description="How many messages were looked at for this page.", examples=[2_000])
    next: int | None = Field(
        description="Request older messages with this value of before, also if this page is empty; null at the end."
    )
    epoch: str = Field(examples=["k3J9x0aQ_2fM"])
    oldest: int = Field(description="The lowest number that is retained, or the next one.", examples=[1795409482123469])
    latest: int = Field(description="The newest number so far.", examples=[1795409482123968])
