"""The streams in which the server keeps what rules and keys retain."""

import secrets
from collections.abc import AsyncIterator

import pytest

from engines import NatsServer
from unmissed.core.errors import LogUnavailable
from unmissed.core.retention import Retention, Rule
from unmissed.logs.jetstream.address import StreamAddress
from unmissed.logs.jetstream.archive_streams import archive_streams, arrange
from unmissed.logs.jetstream.filing import rule_part
from unmissed.logs.jetstream.nats_connection import NatsConnection
from unmissed.logs.jetstream.packets import api_request, error_code

pytestmark = pytest.mark.live

ROOMS, USERS = Rule("rooms.*", 100, 86_400.0), Rule("@*", 50, 3_600.0)


@pytest.fixture
def address(nats_server: NatsServer) -> StreamAddress:
    """Return an address at which there is no stream."""
    return StreamAddress.of(f"{nats_server.url}?name=test-{secrets.token_hex(8)}")


@pytest.fixture
async def connection(address: StreamAddress) -> AsyncIterator[NatsConnection]:
    """Return a connection to the server at the address."""
    connection = NatsConnection(address)
    await connection.open()
    yield connection
    await connection.close()


async def names(connection: NatsConnection, address: StreamAddress) -> set[str]:
    """Return the last parts of the names of the archives."""
    answer = await connection.ask(api_request("STREAM.NAMES"))
    return {name.removeprefix(f"{address.name}-") for name in answer["streams"] or () if name.startswith(address.name)}


async def limit(connection: NatsConnection, name: str) -> int:
    answer = await connection.ask(api_request(f"STREAM.INFO.{name}"))
    most: int = answer["config"]["max_msgs_per_subject"]
    return most


async def test_there_is_one_stream_for_values_one_for_marks_and_one_for_each_rule(
    connection: NatsConnection, address: StreamAddress
) -> None:
    await arrange(connection, address, Retention(), before=())
    without = await names(connection, address)
    await arrange(connection, address, Retention(rules=(ROOMS, USERS)), before=())

    assert {"values"} == without
    assert {"values", "marks", "others", f"rule-{rule_part(ROOMS)}", f"rule-{rule_part(USERS)}"} == await names(
        connection, address
    )


async def test_streams_follow_changes_of_the_rules(connection: NatsConnection, address: StreamAddress) -> None:
    stream = f"{address.name}-rule-{rule_part(ROOMS)}"
    await arrange(connection, address, Retention(rules=(ROOMS, USERS)), before=())

    more = Rule("rooms.*", 200, 86_400.0)
    await arrange(connection, address, Retention(rules=(more,)), before=(ROOMS, USERS))

    assert 201 == await limit(connection, stream)
    assert {"values", "marks", "others", f"rule-{rule_part(ROOMS)}"} == await names(connection, address)


async def test_a_stream_that_cannot_be_changed_is_named(connection: NatsConnection, address: StreamAddress) -> None:
    config = {"name": f"{address.name}-values", "subjects": [f"{address.name}.taken"], "storage": "memory"}
    assert None is error_code(await connection.ask(api_request(f"STREAM.CREATE.{address.name}-values", config)))

    with pytest.raises(LogUnavailable, match=f"{address.name}-values"):
        await arrange(connection, address, Retention(), before=())


def test_everything_is_kept_longer_than_any_rule_says(address: StreamAddress) -> None:
    ages = {config["max_age"] for config in archive_streams(address, Retention(rules=(ROOMS, USERS)))}

    assert {int((86_400 + 7_200) * 1e9)} == ages
