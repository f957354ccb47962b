"""URLs of logs as they may be shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmissed.core.urls import without_login


@pytest.mark.parametrize(
    "url", ["memory:", "sqlite:unmissed.db", "redis://localhost:6379/1?name=chat", "nats://one:4222,two:4222", ""]
)
def test_a_url_without_a_login_is_shown_as_it_is(url: str) -> None:
    assert url == without_login(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://alice:secret@localhost:6379/1", "redis://localhost:6379/1"),
        ("redis://:secret@localhost", "redis://localhost"),
        ("nats://token@one:4222,two:4222?name=chat", "nats://one:4222,two:4222?name=chat"),
        ("redis+sentinel://:se@cret@one,two/mymaster", "redis+sentinel://one,two/mymaster"),
    ],
)
def test_the_user_and_the_password_are_left_out(url: str, expected: str) -> None:
    assert expected == without_login(url)


@pytest.mark.parametrize("password", ["se/cret", "/secret", "se?cret", "se#cret", "se@cret", "//secret", "se\ncret"])
@pytest.mark.parametrize("start", ["nats://alice:", "nats://", "nats:alice:"])
def test_a_password_is_left_out_even_if_it_should_have_been_escaped(start: str, password: str) -> None:
    assert "cret" not in without_login(f"{start}{password}@localhost:4222")


@given(login=st.text())
def test_nothing_of_a_login_is_shown(login: str) -> None:
    assert "redis://host" == without_login(f"redis://{login}@host")
