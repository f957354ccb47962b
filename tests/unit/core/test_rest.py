"""Bodies of the message routes."""

import json

import pytest

from support import nth
from unmissed.core.rest import RecoveryAnswer, closing_answer, problem, stamp_body


@pytest.mark.parametrize("has_more", [True, False])
def test_a_recovery_holds_the_payloads_byte_for_byte(has_more: object) -> None:
    payloads = [b'{"type":"a","data":1.0}', '{"type":"é"}'.encode()]

    body = RecoveryAnswer(
        payloads=payloads,
        epoch="e",
        first=nth(1),
        oldest=nth(1),
        latest=nth(2),
        outcome="complete",
        has_more=bool(has_more),
        sequence_number=nth(2),
        lost=None,
        heartbeat_seconds=25.0,
        max_age=900.0,
        rate=10.0,
        burst=20,
        expires_in=3_599.25,
        topics={"b", "a"},
    ).encode()

    expected = {
        "messages": [{"type": "a", "data": 1.0}, {"type": "é"}],
        "epoch": "e",
        "first": nth(1),
        "oldest": nth(1),
        "latest": nth(2),
        "outcome": "complete",
        "has_more": has_more,
        "sequence_number": nth(2),
        "topics": ["a", "b"],
        "heartbeat_seconds": 25,
        "max_age": 900,
        "rate": 10,
        "burst": 20,
        "expires_in": 3_599.25,
    }
    assert expected == json.loads(body)
    assert b",".join(payloads) in body


def test_a_recovery_without_messages_is_json_too() -> None:
    body = RecoveryAnswer(
        payloads=[],
        epoch="e",
        first=nth(1),
        oldest=nth(1),
        latest=nth(0),
        outcome="complete",
        has_more=False,
        sequence_number=nth(0),
        lost=None,
        heartbeat_seconds=25.0,
        max_age=900.0,
        rate=10.0,
        burst=20,
    ).encode()

    assert [] == json.loads(body)["messages"]


def test_the_stamp_of_a_publish_is_json() -> None:
    body = stamp_body(2**53 - 1, epoch="k3J9x0aQ_2fM", timestamp="2026-01-31T12:00:00.000Z")

    expected = {"sequence_number": 2**53 - 1, "epoch": "k3J9x0aQ_2fM", "timestamp": "2026-01-31T12:00:00.000Z"}
    assert expected == json.loads(body)


@pytest.mark.parametrize(
    ("status", "name", "title"),
    [
        (401, "unauthorized", "Unauthorized"),
        (413, "content-too-large", "Content Too Large"),
        (414, "uri-too-long", "URI Too Long"),
        (418, "i-m-a-teapot", "I'm a Teapot"),
        (422, "unprocessable-content", "Unprocessable Content"),
        (499, "status-499", "Status 499"),
        (503, "service-unavailable", "Service Unavailable"),
    ],
)
def test_a_problem_has_the_type_of_its_status_in_every_version_of_python(status: int, name: str, title: str) -> None:
    expected = {"type": f"urn:unmissed:problem:{name}", "title": title, "status": status, "detail": "why"}

    assert expected == problem(status, "why")


def test_an_answer_that_closes_is_a_whole_response() -> None:
    head, _, body = closing_answer(431, "the head is too long").partition(b"\r\n\r\n")

    assert problem(431, "the head is too long") == json.loads(body)
    assert head.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n")
    assert head.endswith(f"Content-Length: {len(body)}".encode())
