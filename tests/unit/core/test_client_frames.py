"""Client frames: understood, or refused with a text that says how to write them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmissed.core.client_frames import (
    Authenticate,
    ClientFrame,
    Command,
    Follow,
    Ping,
    Publish,
    Unfollow,
    parse_client_frame,
)
from unmissed.core.errors import InvalidFrame

PUBLISH = '{"type":"publish","id":"c1","message":{"type":"chat","data":"\u00e9"}}'


@pytest.mark.parametrize("text", ['{"type":"ping"}', ' { "type" : "ping", "other" : [1] } '])
def test_a_ping_is_understood(text: str) -> None:
    assert Ping() == parse_client_frame(text)


def test_a_frame_names_at_most_as_many_topics_as_a_connection_follows() -> None:
    topics = [f"t{number}" for number in range(1_001)]

    assert Follow(tuple(topics[1:])) == parse_client_frame(json.dumps({"type": "follow", "topics": topics[1:]}))
    with pytest.raises(InvalidFrame, match="a frame names at most 1000 topics, and this one 1001"):
        parse_client_frame(json.dumps({"type": "follow", "topics": topics}))


def test_an_authentication_is_understood() -> None:
    assert Authenticate("abc") == parse_client_frame('{"type":"authenticate","token":"abc"}')


def test_an_authentication_is_understood_as_it_is_sent() -> None:
    frame = Authenticate("abc")

    assert frame == parse_client_frame(frame.encode().decode())


def test_a_binary_frame_is_refused() -> None:
    with pytest.raises(InvalidFrame, match="binary frames are not supported: send JSON as text"):
        parse_client_frame(b'{"type":"ping"}')


def test_a_frame_that_is_too_long_is_refused() -> None:
    with pytest.raises(InvalidFrame, match="a frame must have at most 65536 bytes"):
        parse_client_frame('{"type":"ping"}'.ljust(65_537))


@pytest.mark.parametrize("text", ["", "{", "ping", '{"type":NaN}', "[" * 3_000, "9" * 5_000])
def test_a_frame_that_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(InvalidFrame, match="the frame is not JSON: send an object"):
        parse_client_frame(text)


@pytest.mark.parametrize("text", ['{"type":"authenticate"}', '{"type":"authenticate","token":null}'])
def test_an_authentication_without_a_token_is_refused(text: str) -> None:
    with pytest.raises(InvalidFrame, match="authenticate needs a token, which is a string"):
        parse_client_frame(text)


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "1",
        '"ping"',
        "[]",
        '["type","ping"]',
        "{}",
        '{"type":null}',
        '{"type":["ping"]}',
        '{"type":"PING"}',
        '{"type":"chat"}',
        '[{"type":"ping"}]',
    ],
)
def test_a_frame_of_another_shape_is_refused(text: str) -> None:
    with pytest.raises(InvalidFrame, match="unknown frame"):
        parse_client_frame(text)


@given(text=st.text() | st.binary())
def test_a_frame_is_understood_or_refused_and_nothing_else(text: str | bytes) -> None:
    try:
        frame = parse_client_frame(text)
    except InvalidFrame:
        return

    assert isinstance(frame, ClientFrame)


def test_a_refusal_never_repeats_what_the_client_sent() -> None:
    with pytest.raises(InvalidFrame) as refused:
        parse_client_frame('{"type":"authenticate","token":["hunter2"]}')

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"type":"follow","topics":["a","b"]}', Follow(("a", "b"))),
        ('{"type":"follow","topics":[],"since":7,"epoch":"e"}', Follow((), 7, "e")),
        ('{"type":"follow","topics":["a"],"id":"f1"}', Follow(("a",), id="f1")),
        ('{"type":"follow","topics":["a"],"state":true}', Follow(("a",), state=True)),
        ('{"type":"follow","topics":["a"],"state":false}', Follow(("a",))),
        ('{"type":"unfollow","topics":["a"]}', Unfollow(("a",))),
        ('{"type":"unfollow","topics":["a"],"id":"f2"}', Unfollow(("a",), id="f2")),
        (PUBLISH, Publish("c1", PUBLISH.encode())),
        ('{"type":"command","id":"7","name":"cart.add"}', Command("7", "cart.add")),
        ('{"type":"command","id":"7","name":"cart.add","data":null}', Command("7", "cart.add", b"null")),
    ],
)
def test_a_request_or_a_change_is_understood(text: str, expected: ClientFrame) -> None:
    assert expected == parse_client_frame(text)


@pytest.mark.parametrize("kind", ["follow", "unfollow"])
def test_the_id_of_a_change_of_topics_has_the_form_of_other_ids(kind: str) -> None:
    with pytest.raises(InvalidFrame, match="an id must be a string of 1 to 255 visible ASCII characters"):
        parse_client_frame(json.dumps({"type": kind, "topics": [], "id": "with space"}))


@pytest.mark.parametrize(("request_id", "told"), [("c1", "c1"), ("with space", None), (7, None), (None, None)])
@pytest.mark.parametrize("kind", ["publish", "command", "follow", "unfollow", "authenticate"])
def test_a_refusal_tells_the_id_of_its_frame(kind: str, request_id: object, told: str | None) -> None:
    with pytest.raises(InvalidFrame) as refusal:
        parse_client_frame(json.dumps({"type": kind, "id": request_id}))

    assert told == refusal.value.request_id


@pytest.mark.parametrize("request_id", [None, 7, "", "with space", "é", "x" * 256, "a\n"])
@pytest.mark.parametrize("frame", [{"type": "publish", "message": {}}, {"type": "command", "name": "a"}])
def test_a_request_needs_an_id(request_id: object, frame: dict[str, object]) -> None:
    with pytest.raises(InvalidFrame, match="publish and command need an id: a string of 1 to 255 visible ASCII"):
        parse_client_frame(json.dumps({**frame, "id": request_id}))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"type":"publish","id":"1"}', "publish needs a message"),
        ('{"type":"command","id":"1"}', "command needs a name"),
        ('{"type":"command","id":"1","name":7}', "command needs a name"),
        ('{"type":"follow"}', "follow and unfollow need topics"),
        ('{"type":"unfollow","topics":"a"}', "follow and unfollow need topics"),
        ('{"type":"follow","topics":["a b"]}', "a topic is 1 to 200 ASCII letters"),
        ('{"type":"follow","topics":["a"],"since":-1}', "since must be one whole number"),
        ('{"type":"follow","topics":["a"],"epoch":1}', "epoch must be a string"),
        ('{"type":"follow","topics":["a"],"state":"yes"}', "state must be true or false"),
    ],
)
def test_an_incomplete_frame_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidFrame, match=reason):
        parse_client_frame(text)
