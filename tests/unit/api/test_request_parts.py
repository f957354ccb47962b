"""The strict query parameters."""

import pytest
from fastapi import HTTPException
from starlette.requests import HTTPConnection

from unmissed.api.request_parts import limit_parameter


def request(query: str) -> HTTPConnection:
    return HTTPConnection({"type": "http", "query_string": query.encode(), "headers": []})


def test_an_absent_limit_is_none_which_lets_a_page_be_read_without_counting() -> None:
    assert None is limit_parameter(request(""))
    assert None is limit_parameter(request("since=1796000000000000"), most=100)


def test_a_limit_is_a_number_up_to_the_most() -> None:
    assert 100 == limit_parameter(request("limit=100"), most=100)
    with pytest.raises(HTTPException, match="at most 100"):
        limit_parameter(request("limit=101"), most=100)
