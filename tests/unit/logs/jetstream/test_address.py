"""The parts of a nats:// URL."""

import pytest

from unmissed.core.errors import ConfigurationError
from unmissed.logs.jetstream.address import StreamAddress


@pytest.mark.parametrize(
    ("given", "servers", "user", "password", "name"),
    [
        ("nats://a", ("nats://a:4222",), None, None, "unmissed"),
        ("nats://a:1,b/?name=X-1", ("nats://a:1", "nats://b:4222"), None, None, "X-1"),
        ("nats://u:p%40%2F@[::1]:5?tls=true", ("tls://[::1]:5",), "u", "p@/", "unmissed"),
        ("nats://token@a", ("nats://a:4222",), "token", None, "unmissed"),
    ],
)
def test_a_url_tells_the_servers_and_the_stream(
    given: str, servers: tuple[str, ...], user: str | None, password: str | None, name: str
) -> None:
    address = StreamAddress.of(given)

    assert (servers, user, password, name) == (address.servers, address.user, address.password, address.name)


def test_a_server_is_said_to_lose_nothing_only_with_sync_always() -> None:
    assert [True, False] == [StreamAddress.of(url).sync_always for url in ("nats://a?sync=always", "nats://a")]


@pytest.mark.parametrize(
    "given",
    [
        "nats://",
        "nats://u:secret@",
        "nats://u:secret@h:port",
        "nats://u:secret@h,,i",
        "nats://u:secret@h/path",
        "nats://u:secret@h?name=a.b",
        "nats://u:secret@h?name=",
        "nats://u:secret@h?replicas=2",
        "nats://u:secret@h?tls=yes",
        "nats://u:secret@h?sync=sometimes",
        "nats://u:secret@h?other=1",
    ],
)
def test_an_invalid_url_is_refused_without_its_password(given: str) -> None:
    with pytest.raises(ConfigurationError, match="UNMISSED_LOG_URL") as refused:
        StreamAddress.of(given)

    assert "secret" not in str(refused.value)


def test_a_password_is_not_in_the_text_of_an_address() -> None:
    assert "secret" not in repr(StreamAddress.of("nats://user:secret@host"))
