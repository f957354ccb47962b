"""What can be started, what may lose its log, and addresses of nodes."""

import pytest

from unmissed.core.errors import ConfigurationError
from unmissed.lab.proxy import FaultProxy
from unmissed.lab.verify.deployment import NodeAddress, ProxiedNode, Setup

CHAOS, CALM = {"chaos": True, "foreign": False}, {"chaos": False, "foreign": False}
ELSEWHERE = {"chaos": True, "foreign": True}


@pytest.mark.parametrize(
    "setup",
    [
        Setup(),
        Setup("sqlite"),
        Setup("redis", nodes=3),
        Setup("redis", engine_persistence=False),
        Setup("nats", nodes=3, engine_nodes=3),
        Setup("postgres", nodes=3, pgbouncer=True),
    ],
)
def test_a_combination_that_exists_is_accepted(setup: Setup) -> None:
    assert None is refusal(setup)


@pytest.mark.parametrize(
    ("setup", "reason"),
    [
        (Setup("memory", nodes=2), "--nodes 2 needs a log that nodes share"),
        (Setup("sqlite", nodes=2), "--nodes 2 needs a log that nodes share"),
        (Setup("redis", engine_nodes=3), "--engine-nodes 3 needs --log nats"),
        (Setup("nats", engine_nodes=2), "--engine-nodes is 1 or 3"),
        (Setup("nats", engine_persistence=False), "--no-engine-persistence needs --log redis"),
        (Setup("redis", pgbouncer=True), "--pgbouncer needs --log postgres"),
    ],
)
def test_another_combination_is_refused(setup: Setup, reason: str) -> None:
    assert (refusal(setup) or "accepted").startswith(reason)


def refusal(setup: Setup) -> str | None:
    """Return why a combination is refused, or None."""
    try:
        setup.check()
    except ConfigurationError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("setup", "circumstances"),
    [
        (Setup("memory"), CHAOS),
        (Setup("memory"), ELSEWHERE),
        (Setup("redis", engine_persistence=False), CHAOS),
    ],
)
def test_a_log_in_memory_may_be_lost_with_its_process(setup: Setup, circumstances: dict[str, bool]) -> None:
    assert setup.may_lose_its_log(**circumstances)


@pytest.mark.parametrize(
    ("setup", "circumstances"),
    [
        (Setup("memory"), CALM),
        (Setup("redis", engine_persistence=False), CALM),
        (Setup("sqlite"), CHAOS),
        (Setup("redis"), ELSEWHERE),
        (Setup("nats", engine_nodes=3), CHAOS),
        (Setup("postgres"), CHAOS),
    ],
)
def test_another_log_may_not_be_lost(setup: Setup, circumstances: dict[str, bool]) -> None:
    assert not setup.may_lose_its_log(**circumstances)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8000", NodeAddress("127.0.0.1", 8000)),
        ("http://example.com/", NodeAddress("example.com", 80)),
        ("http://example.com:81/live/", NodeAddress("example.com", 81, "/live")),
    ],
)
def test_an_address_is_read_from_a_url(url: str, address: NodeAddress) -> None:
    assert address == NodeAddress.of(url)


@pytest.mark.parametrize("url", ["https://example.com", "127.0.0.1:8000", "http://", "http://a:b", "http://a/?token=x"])
def test_a_url_that_cannot_be_verified_is_refused_without_its_query(url: str) -> None:
    with pytest.raises(ConfigurationError, match="http://127") as refused:
        NodeAddress.of(url)
    assert "token" not in str(refused.value)


def test_clients_name_the_node_and_connect_to_the_proxy() -> None:
    node = ProxiedNode(NodeAddress("node", 81, "/live"), FaultProxy("node", 81))

    assert "ws://node:81/live/ws?since=7" == node.websocket_url(since=7, epoch=None)
    assert "ws://node:81/live/ws" == node.websocket_url(since=None)
    assert "http://127.0.0.1:0/live/websocket/messages" == node.messages_url
