"""What a bearer token may look like."""

import pytest

from unmissed.core.errors import ConfigurationError
from unmissed.security.bearer import clean_token


@pytest.mark.parametrize(
    "text", ["abc.DEF-1_2~+/=", " abc.DEF-1_2~+/=", "abc.DEF-1_2~+/=\r\n", "\tabc.DEF-1_2~+/=\u00a0"]
)
def test_whitespace_around_a_token_is_removed(text: str) -> None:
    assert "abc.DEF-1_2~+/=" == clean_token(text)


@pytest.mark.parametrize(
    "text", ["", " \n", "secret token", "secret\ntoken", "secret\x00", "s\u00e9cret", "secret\udcff"]
)
def test_what_is_no_token_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        clean_token(text)

    assert "cret" not in str(refused.value)
    assert not refused.value.__context__
