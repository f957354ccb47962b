"""Server frames: their exact bytes, which clients and recordings rely on."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import nth
from unmissed.core import errors
from unmissed.core.fields import fields_of
from unmissed.core.server_frames import (
    PONG,
    RESERVED_TYPES,
    SERVER_FRAMES,
    AuthenticatedFrame,
    ConnectedFrame,
    ErrorFrame,
    FollowingFrame,
    GapFrame,
    HeartbeatFrame,
    PublishedFrame,
    ReconnectFrame,
    ResultFrame,
    ServerFrame,
    StateFrame,
)

GREETING: dict[str, Any] = {
    "connection_id": "5kVt0p3y.1qA",
    "epoch": "k3J9x0aQ_2fM",
    "first": nth(1),
    "oldest": nth(3),
    "latest": nth(9),
    "sequence_number": nth(2),
    "heartbeat_seconds": 25.0,
    "max_age": 900.0,
    "rate": 10.0,
    "burst": 20,
}
GREETING_TEXT = (
    f'{{"type":"connected","connection_id":"5kVt0p3y.1qA","oldest":{nth(3)},"latest":{nth(9)},'
    f'"sequence_number":{nth(2)},"epoch":"k3J9x0aQ_2fM","first":{nth(1)},"heartbeat_seconds":25,"max_age":900,'
    '"rate":10,"burst":20'
)
FRAMES = [
    (ConnectedFrame(**GREETING), GREETING_TEXT + "}"),
    (
        ConnectedFrame(
            **GREETING,
            outcome="gap",
            first_lost=nth(3),
            last_lost=nth(9),
            topics=frozenset({"b", "a"}),
            expires_at=1_796_000_000.5,
            expires_in=3_600.0,
        ),
        (
            f'{GREETING_TEXT},"outcome":"gap","from":{nth(3)},"to":{nth(9)},"topics":["a","b"],'
            '"expires_at":1796000000.5,"expires_in":3600}'
        ),
    ),
    (HeartbeatFrame(sequence_number=nth(7)), f'{{"type":"heartbeat","sequence_number":{nth(7)}}}'),
    (
        GapFrame(first=nth(3), last=nth(9), sequence_number=nth(2)),
        f'{{"type":"gap","from":{nth(3)},"to":{nth(9)},"sequence_number":{nth(2)}}}',
    ),
    (
        ConnectedFrame(**GREETING, state=True),
        GREETING_TEXT + ',"state":true}',
    ),
    (
        StateFrame(values=[b'{"type":"a"}', b'{"type":"b"}'], has_more=True, id="f1"),
        '{"type":"state","values":[{"type":"a"},{"type":"b"}],"has_more":true,"id":"f1"}',
    ),
    (
        StateFrame(values=[], has_more=False, sequence_number=nth(7)),
        f'{{"type":"state","values":[],"has_more":false,"sequence_number":{nth(7)}}}',
    ),
    (PublishedFrame(id="c1"), '{"type":"published","id":"c1"}'),
    (ReconnectFrame(after_ms=250), '{"type":"reconnect","after_ms":250}'),
    (ErrorFrame(code=4400, detail='no "é"'), '{"type":"error","code":4400,"detail":"no \\"é\\""}'),
    (ErrorFrame(code=4400, detail="no", id="c1"), '{"type":"error","id":"c1","code":4400,"detail":"no"}'),
    (
        AuthenticatedFrame(added={"b", "a"}, removed=(), sequence_number=nth(7), expires_at=1.796e9, expires_in=60.5),
        (
            f'{{"type":"authenticated","added":["a","b"],"removed":[],"sequence_number":{nth(7)},'
            '"expires_at":1796000000,"expires_in":60.5}'
        ),
    ),
    (
        FollowingFrame(added=(), removed={"a"}, sequence_number=nth(7)),
        f'{{"type":"following","added":[],"removed":["a"],"sequence_number":{nth(7)}}}',
    ),
    (
        FollowingFrame(added={"a"}, removed=(), sequence_number=nth(7), outcome="complete", id="f1"),
        f'{{"type":"following","added":["a"],"removed":[],"sequence_number":{nth(7)},"outcome":"complete","id":"f1"}}',
    ),
    (PublishedFrame(id="c1", sequence_number=nth(8)), f'{{"type":"published","id":"c1","sequence_number":{nth(8)}}}'),
    (ResultFrame(id="c1", data={"é": None}), '{"type":"result","id":"c1","data":{"é":null}}'),
    (ResultFrame(id="c1", data=None), '{"type":"result","id":"c1","data":null}'),
]


@pytest.mark.parametrize(("frame", "text"), FRAMES)
def test_a_frame_is_these_bytes(frame: ServerFrame, text: str) -> None:
    assert text == frame.encode().decode()


@pytest.mark.parametrize(("frame", "text"), FRAMES)
def test_a_frame_has_the_fields_that_are_described(frame: ServerFrame, text: str) -> None:
    described = fields_of(type(frame))

    names = {*json.loads(text)} - {"type"}
    assert {field.name for field in described if field.required} <= names <= {field.name for field in described}


def test_pong_has_no_fields() -> None:
    assert b'{"type":"pong"}' == PONG


def test_the_reserved_types_are_those_of_all_frames_and_of_messages_of_the_server() -> None:
    assert {type(frame) for frame, _ in FRAMES} < {*SERVER_FRAMES}
    assert {json.loads(text)["type"] for _, text in FRAMES} | {"pong", "presence"} == RESERVED_TYPES


@pytest.mark.parametrize("name", ["heartbeat_seconds", "max_age", "expires_at", "expires_in"])
def test_a_time_without_end_is_left_out(name: str) -> None:
    frame = ConnectedFrame(**{**GREETING, name: math.inf})

    assert name not in json.loads(frame.encode())


@given(epoch=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_a_text_comes_back_from_its_frame(epoch: str) -> None:
    assert epoch == json.loads(ConnectedFrame(**{**GREETING, "epoch": epoch}).encode())["epoch"]


@pytest.mark.parametrize("data", [math.nan, "\ud800", object()])
def test_a_result_without_a_json_form_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        ResultFrame(id="c1", data=data).encode()


def test_an_error_has_the_code_and_the_text_of_its_exception() -> None:
    frame = ErrorFrame.of(errors.TopicRefused("orders.42"), request_id="f1")

    assert (4403, "f1") == (frame.code, frame.id)
    assert frame.detail.startswith("the topic orders.42 is not granted")


def test_the_reason_of_an_unavailable_log_is_not_sent() -> None:
    frame = ErrorFrame.of(errors.LogUnavailable("redis://10.0.0.7 does not answer"), request_id=None)

    assert 1013 == frame.code
    assert "10.0.0.7" not in frame.detail


def test_a_failure_of_the_server_has_no_reason() -> None:
    sent = json.loads(ErrorFrame.internal(request_id="c1").encode())

    assert ("c1", 1011) == (sent["id"], sent["code"])
    assert "the reason is in the server's log output" in sent["detail"]


@given(detail=st.text(alphabet=st.characters(exclude_categories=[]), max_size=2_000))
def test_a_detail_has_at_most_a_thousand_bytes_whatever_the_text(detail: str) -> None:
    sent = json.loads(ErrorFrame(code=4400, detail=detail).encode())["detail"]

    assert len(sent.encode()) <= 1_000
