"""The streams in which the server keeps what rules and keys retain beyond the tail. It fills them by itself."""

from collections.abc import Iterator
from typing import Any

from unmissed.core.errors import LogUnavailable
from unmissed.core.retention import Retention, Rule
from unmissed.logs.jetstream.address import StreamAddress
from unmissed.logs.jetstream.filing import BROADCAST, MIXED, OTHER, PIECE, VALUE, rule_part, source
from unmissed.logs.jetstream.nats_connection import NatsConnection
from unmissed.logs.jetstream.packets import NO_STREAM, STREAM_EXISTS, api_request, error_code, error_text

_LATE_SECONDS = 7_200
"""How much longer than any rule the server keeps messages: a node evicts them by its own clock, and knows whose."""

_MIXED_MESSAGES = 5_000
"""How many messages are known that another key decides about. Older ones count as lost for every client."""


def archive_streams(address: StreamAddress, retention: Retention) -> Iterator[dict[str, Any]]:
    """Yield the settings of the streams: of values, of marks if there are rules, and of each rule."""
    name = address.name
    yield _stream(
        address,
        retention,
        "values",
        1,
        source(name, "{epoch}.v.{identity}", kind=VALUE),
        source(name, "{epoch}.p.{identity}", kind=PIECE),
    )
    if retention.rules:
        yield _stream(
            address,
            retention,
            "marks",
            max(_MIXED_MESSAGES, retention.max_messages + 1),
            source(name, "{epoch}.b", mark=BROADCAST),
            source(name, "{epoch}.x", mark=MIXED),
        )
        # Apart from the marks, for which they would leave no room. As many as the tail has: one below it is among them.
        yield _stream(address, retention, "others", retention.max_messages + 1, source(name, "{epoch}.o", mark=OTHER))
    for rule in retention.rules:
        part = rule_part(rule)
        # One more than the rule keeps: a node that starts evicts it, and so knows what was evicted last.
        yield _stream(
            address, retention, f"rule-{part}", rule.max_messages + 1, source(name, "{epoch}.{bucket}", rule=part)
        )


def _stream(
    address: StreamAddress, retention: Retention, part: str, messages: int, *transforms: dict[str, Any]
) -> dict[str, Any]:
    ages = (retention.max_age, *(rule.max_age for rule in retention.rules))
    return {
        "name": f"{address.name}-{part}",
        "description": "Messages of unmissed that rules and keys retain",
        "storage": "file",
        "num_replicas": address.replicas,
        "max_msgs_per_subject": messages,
        "max_age": int((max(ages) + _LATE_SECONDS) * 1e9),
        "max_bytes": 4 * retention.max_bytes,
        "sources": [{"name": address.name, "subject_transforms": [*transforms]}],
    }


async def arrange(
    connection: NatsConnection, address: StreamAddress, retention: Retention, *, before: tuple[Rule, ...]
) -> None:
    """Create the streams, change those with other settings, and delete those of rules that exist no longer."""
    for config in archive_streams(address, retention):
        answer = await connection.ask(api_request(f"STREAM.CREATE.{config['name']}", config))
        if error_code(answer) == STREAM_EXISTS:
            answer = await connection.ask(api_request(f"STREAM.UPDATE.{config['name']}", config))
        if error_code(answer) is not None:
            raise LogUnavailable(f"{config['name']}: {error_text(answer)}")
    present = {rule_part(rule) for rule in retention.rules}
    for part in sorted({rule_part(rule) for rule in before} - present):
        answer = await connection.ask(api_request(f"STREAM.DELETE.{address.name}-rule-{part}"))
        if error_code(answer) not in (None, NO_STREAM):
            raise LogUnavailable(error_text(answer))
