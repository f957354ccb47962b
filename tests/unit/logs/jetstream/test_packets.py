"""Requests to JetStream, and what its answers say."""

from base64 import b64encode
from typing import Any

import pytest

from unmissed import Draft
from unmissed.logs.jetstream.packets import Packet, api_request, encode_body, error_code, error_text, stored_body

DRAFT = Draft.of({"type": "a"}, max_bytes=65_536)


def test_a_request_without_fields_has_no_body() -> None:
    assert Packet("$JS.API.STREAM.INFO.shop", b"") == api_request("STREAM.INFO.shop")
    assert Packet("$JS.API.STREAM.MSG.GET.shop", b'{"seq": 7}') == api_request("STREAM.MSG.GET.shop", {"seq": 7})


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        ({"error": {"code": 404, "err_code": 10_037, "description": "no message found"}}, 10_037, "no message found"),
        ({"error": {"code": 503, "description": "no leader"}}, 503, "no leader"),
        ({"error": {}}, 0, "unknown error"),
    ],
)
def test_an_error_is_known_by_its_most_exact_number(answer: dict[str, Any], code: int, text: str) -> None:
    assert code == error_code(answer)
    assert f"JetStream: {text}" == error_text(answer)


def test_an_answer_without_an_error_has_no_number() -> None:
    assert None is error_code({"stream": "shop"})


def test_a_stored_message_of_ours_is_read() -> None:
    body = encode_body(DRAFT, unix_ms=1_796_000_000_000, log_ms=7, place=1)

    stored = stored_body({"data": b64encode(body).decode()})

    assert stored is not None
    assert (1_796_000_000_000, 7, DRAFT) == (stored.unix_ms, stored.log_ms, stored.draft)


@pytest.mark.parametrize("message", [{}, {"data": ""}, {"data": "bm8="}, {"data": "!"}])
def test_a_message_of_another_program_has_no_body_of_ours(message: dict[str, Any]) -> None:
    assert None is stored_body(message)
