"""Event streams on a live server, on both sockets: what a client sees."""

import asyncio
import re
import threading
from typing import Annotated

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Query
from websockets.sync.client import connect

from event_client import EventClient
from support import LOGGED, SOCKETS, Serve, nth, nths, until
from unmissed import ConnectionManager, Identity, Settings, create_router
from unmissed.core.rest import EVENTS_PATH
from unmissed.testing import SECRET, LiveServer


def close(server: LiveServer) -> None:
    [connection] = server.manager.connections
    server.manager.disconnect(connection.id)


def test_a_stream_says_where_it_starts_and_delivers_what_is_new(server: LiveServer) -> None:
    server.publish("before")

    with EventClient(server) as client:
        [connected] = client.events(1)
        server.publish("after", {"x": 1})
        [message] = client.events(1)

    assert ("connected", nth(1), str(nth(1))) == (connected.type, connected.frame["latest"], connected.id)
    assert ("after", {"x": 1}, str(nth(2))) == (message.type, message.frame["data"], message.id)


def test_the_frames_are_those_of_a_websocket_byte_for_byte(server: LiveServer) -> None:
    server.publish("a", "é\r\n\u2028")
    query = f"?since=0&epoch={server.manager.window.epoch}"
    headers = server.headers()  # One token: its expiry is in the first frame.

    with (
        EventClient(server, query, headers=headers) as client,
        connect(f"{server.websocket_url}{query}", additional_headers=headers, proxy=None) as websocket,
    ):
        frames = [websocket.recv(10, decode=False) for _ in range(3)]
        body = b""
        for part in client.response.iter_bytes():
            body += part
            if body.count(b"\n\n") == 3:
                break

    connected, *others = body.split(b"\n\n")
    assert [b"id: %d\ndata: %b" % (nth(1), frame) for frame in frames[1:]] == others[:-1]
    # Two connections at two moments: their ids differ, and the seconds that the token has left.
    greetings = [re.sub(rb'"(connection_id|expires_in)":[^,}]+', b"", frame) for frame in (frames[0], connected)]
    assert f"id: {nth(0)}\ndata: ".encode() + greetings[0] == greetings[1]


def test_what_was_missed_comes_first_and_then_a_heartbeat(server: LiveServer) -> None:
    for number in range(3):
        server.publish("a", number)

    with EventClient(server, f"?since={nth(1)}") as client:
        events = client.with_heartbeats(4)

    assert ["connected", "a", "a", "heartbeat"] == [event.type for event in events]
    assert [*map(str, nths(1, 2, 3, 3))] == [event.id for event in events]
    assert "complete" == events[0].frame["outcome"]


def test_the_last_event_id_of_a_browser_wins_over_its_old_url(server: LiveServer) -> None:
    for number in range(3):
        server.publish("a", number)
    headers = {**server.headers(), "Last-Event-ID": str(nth(2))}

    with EventClient(server, "?since=0&epoch=old", headers=headers) as client:
        connected, message = client.events(2)

    assert ("complete", nth(2), nth(3)) == (
        connected.frame["outcome"],
        connected.frame["sequence_number"],
        message.frame["sequence_number"],
    )


def test_a_position_of_another_epoch_is_a_reset_and_one_that_was_evicted_a_gap(serve: Serve) -> None:
    server = serve(max_messages=1)
    server.publish("a")
    server.publish("b")

    outcomes = []
    for query in (f"?since={nth(2)}&epoch=old", "?since=0"):
        with EventClient(server, query) as client:
            outcomes.append(client.events(1)[0].frame["outcome"])

    assert ["reset", "gap"] == outcomes


def test_no_proxy_or_browser_keeps_or_collects_the_events(server: LiveServer) -> None:
    with EventClient(server) as client:
        headers = client.response.headers

    assert "text/event-stream" == headers["content-type"]
    assert "no-store" == headers["cache-control"]
    assert "no" == headers["x-accel-buffering"]


def test_a_message_to_others_is_not_seen(server: LiveServer) -> None:
    token = server.token("alice", topics=["news"])
    with (
        EventClient(server, "?topics=news", headers={"Authorization": f"Bearer {token}"}) as alice,
        EventClient(server, user_id="bob") as bob,
    ):
        assert ["news"] == alice.events(1)[0].frame["topics"]
        bob.events(1)
        server.publish("for alice", users=["alice"])
        server.publish("news", topics=["news"])
        server.publish("for all")

        assert ["for alice", "news", "for all"] == [event.type for event in alice.events(3)]
        assert ["for all"] == [event.type for event in bob.events(1)]


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        pytest.param("", {"Authorization": "Bearer nonsense"}, 401, id="token"),
        pytest.param("?since=abc", {"Authorization": "Bearer nonsense"}, 401, id="401 comes before 422"),
        pytest.param("?since=abc", {}, 422, id="since"),
        pytest.param("?since=1&since=2", {}, 422, id="since twice"),
        pytest.param("", {"Last-Event-ID": "abc"}, 422, id="Last-Event-ID"),
        pytest.param("?topics=secret", {}, 403, id="topic"),
        pytest.param("?topics=,", {}, 422, id="no topic"),
        pytest.param("", {"Origin": "https://evil.example"}, 403, id="origin"),
    ],
)
def test_a_refusal_is_a_status_with_a_problem(
    server: LiveServer, query: str, headers: dict[str, str], status: int
) -> None:
    with EventClient(server, query, headers={**server.headers(), **headers}) as client:
        assert status == client.problem()[0]


def test_without_a_token_the_client_is_told_to_send_one(server: LiveServer) -> None:
    with EventClient(server, headers={}) as client:
        assert (401, "a bearer token is required: send the header 'Authorization: Bearer <token>'") == client.problem()
        assert "Bearer" == client.response.headers["www-authenticate"]


def test_a_token_in_the_url_counts_only_where_it_is_allowed_and_only_for_streams(serve: Serve) -> None:
    strict, relaxed = serve(), serve(allow_query_token=True)

    with EventClient(relaxed, f"?token={relaxed.token()}", headers={}) as client:
        assert "connected" == client.events(1)[0].type
    with EventClient(strict, f"?token={strict.token()}", headers={}) as client:
        status, detail = client.problem()
        assert 401 == status
        assert "set UNMISSED_ALLOW_QUERY_TOKEN" in detail
    assert 401 == httpx.get(f"{relaxed.url}/websocket/messages?token={relaxed.token()}").status_code


def test_a_token_in_the_url_is_not_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    server = serve(allow_query_token=True)

    with EventClient(server, f"?token={server.token()}", headers={}) as client:
        client.events(1)

    assert f"GET {EVENTS_PATH}" in caplog.text
    assert server.token()[:30] not in caplog.text


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_a_page_of_an_allowed_origin_may_read_it(serve: Serve, method: str) -> None:
    server = serve(allowed_origins="https://app.example.com")
    headers = {
        **server.headers(),
        "Origin": "https://app.example.com",
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization, last-event-id",
    }

    with httpx.stream(method, f"{server.url}{EVENTS_PATH}", headers=headers) as response:
        assert 200 == response.status_code
        assert "https://app.example.com" == response.headers["access-control-allow-origin"]


def test_the_limit_of_connections_counts_both_transports(serve: Serve) -> None:
    server = serve(max_connections_per_user=1)

    with connect(server.websocket_url, additional_headers=server.headers(), proxy=None) as websocket:
        websocket.recv(10)
        with EventClient(server) as client, EventClient(server, user_id="bob") as other:
            assert (429, "this user has too many connections: close some") == client.problem()
            assert "connected" == other.events(1)[0].type


async def test_operators_see_the_transport_and_log_a_stream_out(server: LiveServer) -> None:
    admin = {"Authorization": f"Bearer {server.token('ops', scope='admin')}"}
    async with httpx.AsyncClient(base_url=server.url, headers=admin) as http:
        with EventClient(server) as client:
            client.events(1)
            [listed] = (await http.get("/websocket/connections")).json()["connections"]
            await http.delete("/websocket/connections", params={"user": "alice"})
            [end] = await asyncio.to_thread(client.rest)

    assert ("events", "alice", "127.0.0.1") == (listed["transport"], listed["user_id"], listed["client"])
    assert {"type": "error", "code": 4401, "detail": "logged out: log in again"} == end.frame
    await until(lambda: not server.manager.connections)


def test_a_stream_ends_when_its_token_expires(server: LiveServer) -> None:
    token = server.token(expires_in=1)

    with EventClient(server, headers={"Authorization": f"Bearer {token}"}) as client:
        connected, end = client.rest()

    assert "expires_at" in connected.frame
    assert (4401, "the token has expired: reconnect with a new one") == (end.frame["code"], end.frame["detail"])


def test_a_stream_ends_after_its_longest_duration_and_resumes(serve: Serve) -> None:
    server = serve(events_seconds=0.5)

    with EventClient(server) as client:
        connected, reconnect = client.rest()

    assert ("connected", "reconnect") == (connected.type, reconnect.type)
    assert 0 == reconnect.frame["after_ms"]
    server.publish("meanwhile")
    with EventClient(server, f"?since={connected.id}") as client:
        assert ["connected", "meanwhile"] == [event.type for event in client.events(2)]


def test_a_stop_says_when_to_come_back_and_ends_the_stream(server: LiveServer) -> None:
    with EventClient(server) as client:
        client.events(1)
        stopping = threading.Thread(target=server.stop)
        stopping.start()

        assert ["reconnect"] == [event.type for event in client.rest()]
        stopping.join()


def test_a_server_that_is_draining_refuses_with_503(server: LiveServer) -> None:
    server.call(lambda: server.manager.running.drain(seconds=1))

    with EventClient(server) as client:
        assert (503, "the server is shutting down: reconnect or retry shortly") == client.problem()
        assert "1" == client.response.headers["retry-after"]


def test_a_close_of_the_application_is_told(server: LiveServer) -> None:
    with EventClient(server) as client:
        client.events(1)
        server.call(close, server)

        assert [1000] == [event.frame["code"] for event in client.rest()]


def test_recoveries_are_counted(server: LiveServer) -> None:
    with EventClient(server, "?since=0") as client:
        client.events(1)

    assert {("events", "complete"): 1} == server.manager.running.measures.recoveries


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT"])
def test_other_methods_are_not_allowed(server: LiveServer, method: str) -> None:
    response = httpx.request(method, f"{server.url}{EVENTS_PATH}", headers=server.headers())

    assert 405 == response.status_code


@pytest.mark.parametrize("socket", SOCKETS)
def test_the_authentication_and_authorization_of_an_application_count(socket: str) -> None:
    async def authenticate(user: Annotated[str | None, Query()] = None) -> Identity:
        if user is None:
            raise HTTPException(401, "who are you?")
        return Identity(user)

    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    app = FastAPI(lifespan=manager.lifespan)
    router = create_router(manager, authenticate=authenticate, authorize=lambda _, topic: topic != "secret")
    app.include_router(router, prefix="/live")
    with LiveServer(app, manager=manager, **SOCKETS[socket], **LOGGED) as server:
        url = f"{server.url}/live{EVENTS_PATH}"

        assert 401 == httpx.get(url).status_code
        assert 403 == httpx.get(url, params={"user": "alice", "topics": "secret"}).status_code
        with httpx.stream("GET", url, params={"user": "alice", "topics": "news"}) as response:
            assert '"topics":["news"]' in next(line for line in response.iter_lines() if line.startswith("data"))


def test_a_stream_may_begin_with_the_state_and_go_on_from_its_number(server: LiveServer) -> None:
    asyncio.run_coroutine_threadsafe(
        server.manager.publish({"type": "cart", "key": "cart", "data": 1}), server.manager.running.loop
    ).result(10)

    with EventClient(server, "?state=true") as client:
        connected, state = client.events(2)
    server.publish("missed")
    with EventClient(server, "?state=true", headers={**server.headers(), "Last-Event-ID": state.id or ""}) as client:
        again, missed = client.events(2)

    assert (True, None) == (connected.frame["state"], connected.id)
    assert ("state", str(nth(1)), ["cart"]) == (state.type, state.id, [each["key"] for each in state.frame["values"]])
    assert (None, "missed") == (again.frame.get("state"), missed.type)
