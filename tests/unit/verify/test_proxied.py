"""Addresses of nodes."""

import pytest

from unmissed.core.errors import ConfigurationError
from unmissed.verify.proxied import Address, ProxiedNode
from unmissed.verify.proxy import FaultProxy


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8000", Address("127.0.0.1", 8000)),
        ("http://example.com/", Address("example.com", 80)),
        ("http://example.com:81/live/", Address("example.com", 81, "/live")),
    ],
)
def test_an_address_is_read_from_a_url(url: str, address: Address) -> None:
    assert address == Address.of(url)


@pytest.mark.parametrize("url", ["https://example.com", "127.0.0.1:8000", "http://", "http://a:b", "http://a/?token=x"])
def test_a_url_that_cannot_be_verified_is_refused_without_its_query(url: str) -> None:
    with pytest.raises(ConfigurationError, match="http://127") as refused:
        Address.of(url)
    assert "token" not in str(refused.value)


def test_clients_name_the_node_and_connect_to_the_proxy() -> None:
    node = ProxiedNode(Address("node", 81, "/live"), FaultProxy("node", 81, draw=lambda: None))

    assert "ws://node:81/live/ws?since=7" == node.websocket_url(since=7, epoch=None)
    assert "ws://node:81/live/ws" == node.websocket_url(since=None)
    assert "http://127.0.0.1:0/live/websocket/messages" == node.messages_url
