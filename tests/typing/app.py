"""A small application that uses every public name, for type checkers."""

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, assert_type

from fastapi import Depends, FastAPI, WebSocket
from pydantic import BaseModel

import unmissed
from unmissed import (
    Access,
    AlreadyRunning,
    AsgiWebSocket,
    Bearer,
    Channel,
    Chunk,
    CommandError,
    ConfigurationError,
    Connected,
    Connection,
    ConnectionManager,
    ConnectionRefused,
    Disconnected,
    Draft,
    Draining,
    Feed,
    Followed,
    IdempotencyConflict,
    Identity,
    InvalidMessage,
    InvalidToken,
    InvalidTopic,
    JwksVerifier,
    JwtVerifier,
    Log,
    LogUnavailable,
    Message,
    NotRunning,
    Outcome,
    Page,
    Publication,
    Receipt,
    RequestRefused,
    RequestUnanswered,
    Retention,
    Settings,
    Socket,
    SocketListener,
    TokenRules,
    TokenVerifier,
    TooManyRequests,
    Unfollowed,
    UnknownConnection,
    UnmissedError,
    Window,
    WindowListener,
    WrongThread,
    client,
    create_app,
    create_router,
    get_current_user_id,
    get_identity,
    issue_token,
    rfc3339,
)
from unmissed.testing import FakeSocket, LiveServer, ManualClock

settings = Settings(max_messages=1000, max_age=60, first_number=1, allow_query_token=True, log_url="memory:")
KEY = "k" * 32


class CountingLog:
    """A log that anyone could write."""

    def __init__(self) -> None:
        self.window = Window(Retention(max_messages=10), epoch="one", first_number=1)
        self.feed = Feed(self.window)
        self.unavailable: str | None = None
        self.channel: Channel | None = None

    async def open(self) -> Window:
        return self.window

    def subscribe(self, listener: WindowListener) -> None:
        self.feed.subscribe(listener)

    async def close(self) -> None: ...

    async def catch_up(self, number: int) -> None: ...

    def expire(self) -> None:
        self.window.expire(time.monotonic())

    async def publish(self, drafts: Sequence[Draft], *, idempotency_key: str | None = None) -> Publication:
        timestamp = rfc3339(time.time())
        messages = tuple(
            draft.stamp(self.window.latest + 1 + index, timestamp=timestamp, now=time.monotonic())
            for index, draft in enumerate(drafts)
        )
        self.feed.extend(messages)
        return Publication(Receipt(messages[0].sequence_number, len(messages), "one", timestamp), messages)


class PrintingSocket:
    """A transport that anyone could write."""

    writable = buffer_empty = True
    write_progress = receive_progress = 0

    def attach(self, listener: SocketListener) -> None:
        self.listener = listener

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def write(self, chunk: Chunk) -> None:
        print(chunk.texts)

    def keepalive(self) -> bool:
        return False

    def close(self, code: int, reason: str = "") -> None:
        self.listener.socket_closed(code, reason)

    def abort(self) -> None: ...


class Verifier:
    """A token verifier that anyone could write."""

    def verify(self, token: str) -> Identity:
        if not token:
            raise InvalidToken("no token")
        return Identity(token)


class AsyncVerifier:
    """A token verifier that asks a database."""

    async def verify(self, token: str) -> Identity:
        await asyncio.sleep(0)
        return Identity(token)


rules = TokenRules(audiences=["chat"], identity=lambda claims: Identity(str(claims["oid"])))
log: Log = CountingLog()
socket: Socket = PrintingSocket()
verifiers: list[TokenVerifier] = [
    Verifier(),
    AsyncVerifier(),
    JwtVerifier(KEY, rules=rules),
    JwksVerifier("https://login.example.com/jwks.json", rules=rules),
]
access = Access(verifiers[1].verify)
manager = ConnectionManager(settings, log=log, clock=ManualClock())
app = FastAPI(lifespan=manager.lifespan)
app.include_router(
    create_router(manager, authenticate=Bearer(verifiers[0]), authorize=lambda user, topic: user.grants(topic))
)
ready: FastAPI = create_app(Settings.load(jwt_secret=KEY))


@app.get("/me")
async def me(
    identity: Annotated[Identity, Depends(get_identity)], user_id: Annotated[str, Depends(get_current_user_id)]
) -> str:
    return f"{user_id} {sorted(identity.scopes)} {unmissed.__version__}"


@app.websocket("/own")
async def own(websocket: WebSocket) -> None:
    await websocket.accept()
    served = AsgiWebSocket(websocket.receive, websocket.send)
    manager.connect(served, identity=Identity("alice"))
    await served.run()


class Item(BaseModel):
    name: str


@manager.event("item.sold")
class Sold(Item):
    price: int


@manager.command("sell")
def sell(item: Item, identity: Identity) -> int:
    if identity.user_id == item.name:
        raise CommandError("not for sale")
    return 1


@manager.on_connect
async def came(event: Connected) -> None:
    print(event.identity.user_id)


@manager.on_disconnect
def left(event: Disconnected) -> None:
    print(event.code, event.seconds)


@manager.on_follow
async def entered(event: Followed) -> None:
    print(event.identity.user_id, event.topics)


@manager.on_unfollow
def went(event: Unfollowed) -> None:
    print(event.identity.user_id, event.topics)


async def publish() -> None:
    assert_type(sell(Item(name="tea"), Identity("alice")), int)
    assert_type(await manager.emit(Sold(name="tea", price=1)), Message)
    assert_type(await manager.users("news"), dict[str, int])
    try:
        message = await manager.broadcast({"type": "a", "data": 1})
        assert_type(message, Message)
        assert_type((message.type, message.topics, message.users), tuple[str, list[str], list[str]])
        assert_type(await manager.emit("a", idempotency_key="k"), Message)
        assert_type(await manager.publish_batch([{"type": "a"}], idempotency_key="k"), Publication)
    except IdempotencyConflict:
        print("use a new key")
    except InvalidMessage as error:
        print(error)
    except TooManyRequests as error:
        print(error.retry_after)
    except LogUnavailable as error:
        print(error.reason)
    except (AlreadyRunning, NotRunning, WrongThread, Draining):
        pass
    manager.connect(socket, identity=Identity("bob"))
    page = manager.get_messages_since(0, user_id="alice", topics=["news"])
    assert_type(page, Page)
    if page.outcome is Outcome.COMPLETE and not page.has_more:
        print([message.as_dict() for message in page.messages])
    connection: Connection = manager.connect(FakeSocket(), identity=Identity("alice"), since=0, access=access)
    try:
        await manager.send_message(connection.id, {"type": "a"})
    except UnknownConnection as error:
        print(error.connection_id)


async def watch() -> None:
    try:
        async with client.connect("http://localhost", token=issue_token(KEY, user_id="a", expires_in=60)) as stream:
            async for event in stream:
                assert_type(event, client.Event)
            assert_type(await stream.publish({"type": "a"}, topics=["news"], idempotency_key="k"), int)
            assert_type(await stream.follow("news"), list[str])
            assert_type(stream.status, client.Status)
    except RequestRefused as error:
        print(error.code, error.reason)
    except (RequestUnanswered, TooManyRequests, InvalidTopic) as error:
        print(error)
    except ConnectionRefused as error:
        print(error.code, error.reason)
    except (ConfigurationError, UnmissedError):
        pass


def run() -> None:
    with LiveServer(app, manager=manager) as server:
        print(server.publish("a").sequence_number)
    asyncio.run(watch())
    asyncio.run(publish())
