"""Bodies of the message routes."""

import json

import pytest

from support import nth
from unmissed.core.rest import RecoveryAnswer, stamp_body


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
        heartbeat_seconds=25.0,
        max_age=900.0,
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
        "topics": ["a", "b"],
        "heartbeat_seconds": 25,
        "max_age": 900,
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
        heartbeat_seconds=25.0,
        max_age=900.0,
    ).encode()

    assert [] == json.loads(body)["messages"]


def test_the_stamp_of_a_publish_is_json() -> None:
    body = stamp_body(2**53 - 1, epoch="k3J9x0aQ_2fM", timestamp="2026-01-31T12:00:00.000Z")

    expected = {"sequence_number": 2**53 - 1, "epoch": "k3J9x0aQ_2fM", "timestamp": "2026-01-31T12:00:00.000Z"}
    assert expected == json.loads(body)
