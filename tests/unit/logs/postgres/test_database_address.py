"""Addresses of databases."""

import pytest

from unmissed.core.errors import ConfigurationError
from unmissed.logs.postgres.database_address import DatabaseAddress


def test_an_address_has_defaults() -> None:
    address = DatabaseAddress.of("postgresql://alice:secret@db:6543/shop")

    assert "postgresql://alice:secret@db:6543/shop" == address.dsn
    assert ("postgresql://db:6543/shop", "unmissed") == (address.label, address.schema)
    assert (True, 0.02) == (address.notify, address.poll_seconds)


def test_options_of_our_own_do_not_reach_the_driver() -> None:
    address = DatabaseAddress.of("postgres://db/shop?name=orders&notify=false&poll=5&sslmode=require")

    assert "postgresql://db/shop?sslmode=require" == address.dsn
    assert ("orders", False, 0.005) == (address.schema, address.notify, address.poll_seconds)


def test_of_several_hosts_the_primary_is_used() -> None:
    address = DatabaseAddress.of("postgresql://a:1,b:2/shop")

    assert "postgresql://a:1,b:2/shop?target_session_attrs=primary" == address.dsn


def test_an_address_shows_no_password() -> None:
    address = DatabaseAddress.of("postgresql://alice:secret@db/shop")

    assert "secret" not in repr(address)
    assert "secret" not in address.label


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgresql:///shop",
        "postgresql:shop",
        "postgresql://user:se/cret@db/shop",
        "postgresql://user:se#cret@db/shop",
        "postgresql://user:se?cret@db/shop",
        "postgresql://db/shop?name=",
        f"postgresql://db/shop?name={'n' * 64}",
        "postgresql://db/shop?name=a.b",
        "postgresql://db/shop?poll=0",
        "postgresql://db/shop?notify=no",
        "postgresql://db/shop?unknown=1",
    ],
)
def test_an_address_that_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="UNMISSED_OUTBOX_URL") as refused:
        DatabaseAddress.of(url, setting="UNMISSED_OUTBOX_URL")

    assert "cret" not in str(refused.value)
