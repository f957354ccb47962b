"""Row 30: what one client makes the server hold or do is bounded, whatever the client chooses."""

import asyncio
import gc
import json
import re
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, SERVER
from websockets.protocol import Protocol as WebSocketParser

from faults.processes import ServerProcess
from support import FIRST, Serve, managed, next_frame, until
from unmissed import Access, ConnectionManager, Disconnected, Identity, Settings
from unmissed.application import hooks, results
from unmissed.cluster import notes
from unmissed.core import rate, receipts
from unmissed.core.audience import EVERYONE, Audience
from unmissed.core.chunks import Chunk, Chunks
from unmissed.core.close_codes import CloseCode
from unmissed.core.encoding import decode_items, decode_json
from unmissed.core.ephemeral import Ephemeral, WaitingMessages
from unmissed.core.evictions import MAX_EVICTED_KEYS, Evictions
from unmissed.core.messages import Message
from unmissed.core.rate import TokenBuckets
from unmissed.core.retention import Retention
from unmissed.core.revocations import MAX_REVOKED, Revocations, Token
from unmissed.core.window import Outcome, Window
from unmissed.delivery.connection import Connection
from unmissed.delivery.history import MINUTES, History
from unmissed.logs import writer
from unmissed.logs.jetstream.engine import MAX_WAITING_NOTE_BYTES
from unmissed.running import drafts_of
from unmissed.security.tokens import MAX_VERIFIED_BYTES, issue_token_under
from unmissed.server.frame_parser import FrameParser
from unmissed.testing import SECRET, FakeSocket, LiveServer, ManualClock

FILL = "x" * 60_000
MAX_MESSAGE_BYTES = 65_536
MIB = 2**20
_ATTACK_SECONDS = 10
TUNING = (Path(__file__).parents[2] / ".github/docs/tuning.md").read_text()
NESTED = "[" + ",".join(["[" * 98 + "]" * 98] * 330) + "]"
"""65 kB of JSON that takes the most memory when it is decoded."""


class Gate:
    """Opens in the thread of the server."""

    def __init__(self, server: LiveServer) -> None:
        self._server = server
        self._opened = server.call(asyncio.Event)
        server.manager.command("slow")(self.wait)

    async def wait(self, data: str) -> int:
        await self._opened.wait()
        return len(data)

    def open(self) -> None:
        self._server.call(self._opened.set)


@asynccontextmanager
async def behind_a_slow_command(server: LiveServer, *, frames: int) -> AsyncIterator[ClientConnection]:
    """Connect a client whose commands are more than may wait."""
    async with connect(server.websocket_url, additional_headers=server.headers(), proxy=None) as websocket:
        assert "connected" == (await next_frame(websocket))["type"]
        for number in range(frames):
            await websocket.send(json.dumps({"type": "command", "id": str(number), "name": "slow", "data": FILL}))
        yield websocket


async def others_are_served(server: LiveServer) -> None:
    """Let the server do all that it does at once, and show that others are not delayed."""
    async with connect(server.websocket_url, additional_headers=server.headers("bob"), proxy=None) as other:
        for _ in range(20):
            await other.send('{"type":"ping"}')
            await next_frame(other)


async def test_a_client_is_not_read_while_its_requests_wait_and_nothing_is_lost(serve: Serve) -> None:
    server = serve()
    gate = Gate(server)
    async with behind_a_slow_command(server, frames=15) as websocket:
        await websocket.send('{"type":"ping"}')
        await others_are_served(server)

        await asyncio.to_thread(gate.open)
        frames = [await next_frame(websocket) for _ in range(16)]

    assert "pong" in [frame["type"] for frame in frames[1:]]
    assert [str(number) for number in range(15)] == [frame["id"] for frame in frames if frame["type"] == "result"]


async def test_a_client_that_leaves_while_it_is_not_read_is_forgotten(serve: Serve) -> None:
    server = serve()
    gate = Gate(server)
    async with behind_a_slow_command(server, frames=15) as websocket:
        await others_are_served(server)
        websocket.transport.abort()

    await asyncio.to_thread(gate.open)

    await until(lambda: not server.manager.connections)
    await others_are_served(server)
    assert "alice" not in [each.identity.user_id for each in server.manager.connections]


async def test_a_client_that_is_not_read_can_be_closed(serve: Serve) -> None:
    server = serve()
    Gate(server)
    async with behind_a_slow_command(server, frames=15) as websocket:
        await others_are_served(server)
        [connection] = server.manager.connections

        server.call(server.manager.disconnect, connection.id)

        async with asyncio.timeout(10):
            await websocket.wait_closed()
    assert 1000 == websocket.close_code


# The memory formula of tuning.md: each row of its table is measured, with the worst client that the limits admit


class Deaf(FakeSocket):
    """A socket that keeps nothing of what is written."""

    def write(self, chunk: Chunk) -> None:  # noqa: ARG002  # a socket
        self.write_progress += 1


class Loop:
    """An event loop that runs nothing."""

    def call_soon(self, *_: object) -> object:
        return object()

    def time(self) -> float:
        return 0.0


class OpenTransport:
    """A transport that stays open."""

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def worst_topics() -> list[str]:
    return [f"{number:05}.{'x' * 59}" for number in range(1_000)]


def worst_identity(number: int = 0) -> Identity:
    """Return what a token of 8 kB makes."""
    topics = frozenset(f"{place:x}.{number:x}" for place in range(1_000))
    return Identity(f"{'u' * 2_000}{number // 1_000}", topics=topics, issued_at=number / 3)


async def itself(manager: ConnectionManager) -> object:
    socket = Deaf()
    connection = manager.connect(socket, identity=Identity("alice"))
    socket.receive('{"type":"ping"}')
    return connection


async def waiting(manager: ConnectionManager) -> object:
    """Tiny frames with one character that makes each take 4 bytes for a character, and then one large frame."""
    socket = Deaf()
    connection = manager.connect(socket, identity=Identity("alice"))
    number, fill = 0, 1
    while not socket.reading_paused or fill == 1:
        fill = 63_000 if socket.reading_paused else 1
        frame = {"type": "command", "id": str(number), "name": "\U0001f600" + "x" * fill, "data": 1}
        socket.receive(json.dumps(frame, ensure_ascii=False))
        number += 1
        manager.running.check()
    return connection


async def unread(manager: ConnectionManager) -> object:
    """Answers that wait, and as many that were just passed to the socket."""
    kept = list[object]()
    for _ in range(2):
        socket = FakeSocket()
        kept.append(manager.connect(socket, identity=Identity("alice")))
        socket.pause()
        number = 0
        while not socket.reading_paused:
            socket.receive(json.dumps({"type": "unfollow", "topics": [], "id": f"{number:0200}"}))
            number += 1
            manager.running.check()
    return kept


async def unparsed(_: ConnectionManager) -> object:
    """Half a message in fragments, the beginning of a frame, and what one read of a socket returns."""
    frames = FrameParser(
        WebSocketParser(SERVER, state=OPEN, max_size=65_536),
        OpenTransport(),  # type: ignore[arg-type]  # it has what is called
        handle=lambda _: None,
        send_output=lambda: None,
        loop=Loop(),  # type: ignore[arg-type]
        max_size=65_536,
    )
    for fragment in (b"x" * 32_000, b"y" * 32_000):
        data = Frame(Opcode.TEXT if fragment[0] == 120 else Opcode.CONT, fragment, fin=False).serialize(mask=True)
        for start in range(0, len(data), 1_024):
            frames.feed(data[start : start + 1_024])
            frames.resume()
    frames.pause()
    frames.feed(bytes(256 * 1_024))
    return frames


async def topics(manager: ConnectionManager) -> object:
    socket = Deaf()
    connection = manager.connect(socket, identity=Identity("alice", topics=frozenset("*")), topics=[])
    names = worst_topics()
    for start in range(0, 1_000, 100):
        frame = {"type": "follow", "topics": names[start : start + 100], "since": 0}
        socket.receive(json.dumps(frame))
        await until(lambda: len(connection.topics) == start + 100)  # noqa: B023  # it is over before the next
    await manager.emit("private", topics=[names[0]])
    connection.deliver()
    assert 1_000 == len(connection.topics)
    return connection


async def token(manager: ConnectionManager) -> object:
    numbers = iter(range(100))
    socket = Deaf()
    access = Access(lambda _: worst_identity(next(numbers)))
    connection = manager.connect(socket, identity=worst_identity(), access=access, topics=[])
    for _ in range(20):
        socket.receive('{"type":"authenticate","token":"t"}')
    assert 16 == len(connection.earlier)
    return connection


async def chunk(_: ConnectionManager) -> object:
    """The encoded chunk alone: its messages are in the log."""
    window = Window(Retention(), epoch="e", first_number=1)
    window.append(Message(1, "", b"x" * 65_535, EVERYONE, 0.0))
    return bytes(Chunks(window).after(0).frames)


ROWS: dict[str, Callable[[ConnectionManager], Awaitable[object]]] = {
    "itself": itself,
    "a chunk of messages": chunk,
    "frames that wait for a slow request": waiting,
    "answers that were not read": unread,
    "bytes that were not parsed": unparsed,
    "its topics": topics,
    "its token, and those before": token,
}


def documented() -> dict[str, int]:
    """Return the bytes of each row of the table."""
    rows = re.findall(r"^\| ([^|]+) \| (\d+) (kB|KiB)( \+ `MAX_MESSAGE_BYTES`)? \|$", TUNING, re.MULTILINE)
    units = {"kB": 1_000, "KiB": 1_024}
    return {name: int(size) * units[unit] + MAX_MESSAGE_BYTES * bool(more) for name, size, unit, more in rows}


def of_a_connection() -> float:
    """Return the bytes of a connection in the formula."""
    return figure(r"\(([\d.]+) MiB \+ MAX_MESSAGE_BYTES\)") + MAX_MESSAGE_BYTES


def shared() -> dict[str, float]:
    """Return the bytes of each row of the table of what all connections share."""
    return {name: int(size) * MIB for name, size in re.findall(r"^\| ([^|]+) \| (\d+) MiB \|$", TUNING, re.MULTILINE)}


def of_running_commands() -> float:
    return shared()["the data of running commands, as Python objects"]


def figure(pattern: str) -> float:
    found = re.search(pattern, TUNING)
    assert found
    return float(found[1]) * MIB


async def measured(building: Awaitable[object]) -> int:
    """Return the bytes of what is built."""
    gc.collect()
    tracemalloc.start()
    try:
        kept = await building
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del kept
    return size


def test_the_formula_is_the_sum_of_all_that_a_connection_holds() -> None:
    rows = documented()

    assert {*ROWS, "the write buffer of its socket"} == set(rows)
    assert sum(rows.values()) <= of_a_connection()
    assert sum(shared().values()) <= figure(r"\+ (\d+) MiB\n")


@pytest.mark.parametrize("row", [pytest.param(row, marks=() if row == "itself" else pytest.mark.long) for row in ROWS])
async def test_the_worst_client_takes_no_more_than_the_formula_says(row: str) -> None:
    async def size() -> int:
        async with managed(ManualClock(), client_rate=1e9, client_burst=1_000_000) as manager:
            never = asyncio.Event()
            manager.command("\U0001f600x")(lambda data: never.wait())  # noqa: ARG005  # the client sends it
            await itself(manager)
            return await measured(ROWS[row](manager))

    # Names of topics are interned. Python's table of all interned strings grows seldom, and not in both measurements.
    sizes = [await size() for _ in range(2)]

    assert min(sizes) <= documented()[row]


def events() -> object:
    """A new connection has an identity of its own, and is known by its id."""
    return [
        Disconnected(f"node.{number:012}", Identity(f"user-{number}"), 1006, "", float(number), number)
        for number in range(hooks.MAX_WAITING)
    ]


def rates() -> object:
    buckets = TokenBuckets(rate=10.0, burst=20)
    for number in range(rate.MAX_BUCKETS):
        buckets.take(f"a user with a name that is not short {number}", float(number) / 1e9)
    return buckets


def logged_out() -> object:
    revocations = Revocations(wall_clock=lambda: 1_796_000_000.0)
    for number in range(MAX_REVOKED):
        user_id = f"a user with a name that is not short {number}"
        revocations.log_out(user_id, logout_id=f"{number:012}")
        revocations.refuse([Token(user_id, number / 3, None)])
    return revocations


def evicted() -> object:
    found = Evictions(FIRST - 1, retention=Retention())
    for number in range(MAX_EVICTED_KEYS):
        # Not topics, which are interned: Python's table of all interned strings may grow now.
        found.add(Message(FIRST + number, "", b"", Audience.of(users=[f"{number:0200}"]), 0.0))
    return found


def waiting_live() -> object:
    """Most messages and most bytes: as many as fit, each with as many users as fit into it."""
    waiting = WaitingMessages()
    for number in range(2_000):
        users = [f"{number}.{user:03}" for user in range(10)]
        payload = b"x" * (6_000 + number % 2)
        waiting.add([Ephemeral(payload + b"", Audience.of(users=users), FIRST + number, 0.0)])
    return waiting


def last_hour() -> object:
    """Events of every kind and code, in every minute, with the longest texts. A short text of a client is a copy."""
    clock = ManualClock()
    history = History(clock=clock)
    worst = "\U0001f600" * 1_000
    for minute in range(2 * MINUTES):
        clock.advance(60)
        for code in (*CloseCode, 4_999):
            for number in range(4):
                text = f"{minute}.{number}.{worst}"
                history.refused(code, text, status=400, request=text, client=text)
                history.closed(ended(text), code, text)
        for number in range(4):
            text = f"{minute}.{number}.{worst}"
            history.lost(text, FIRST, FIRST + minute)
            history.stalled(ended(text), text)
            history.recovered(Outcome.RESET, text, since=FIRST, lost=None)
    return history


def ended(text: str) -> Connection:
    """Return what a history reads of a connection."""
    connection = Connection.__new__(Connection)
    connection.id, connection.identity, connection.client = f"node.{text[:16]}", Identity(text), text
    return connection


SHARED: dict[str, Callable[[], object]] = {
    "the last hour, for operators": last_hour,
    "events that wait for hooks": events,
    "the rates of users": rates,
    "users and tokens that were logged out": logged_out,
    "users and topics that lost messages by eviction": evicted,
    "ephemeral messages that wait for a flush": waiting_live,
}
LIMITS: dict[str, float] = {
    "verified tokens": MAX_VERIFIED_BYTES,
    "idempotency keys of publishes, unless the log is an engine": receipts.MAX_KEYS * receipts.KEY_BYTES,
    "idempotency keys of commands": receipts.MAX_KEYS * receipts.KEY_BYTES,
    "answers of commands": results.MAX_ANSWER_BYTES,
    "messages that wait to be written, unless the log is in memory": writer.MAX_WAITING_BYTES,
    "notes of other nodes": notes.MAX_NOTE_BYTES + notes.MAX_INCOMPLETE_BYTES + MAX_WAITING_NOTE_BYTES,
    "the data of running commands, as Python objects": results.MAX_RUNNING_BYTES / 65_536 * 3.25 * MIB,
}


def test_every_thing_that_all_share_is_in_the_table() -> None:
    assert {*SHARED, *LIMITS} == set(shared())


LARGEST = (
    "the last hour, for operators",
    "users and tokens that were logged out",
    "events that wait for hooks",
    "the rates of users",
)


@pytest.mark.parametrize("row", [pytest.param(row, marks=[pytest.mark.long] * (row in LARGEST)) for row in SHARED])
async def test_what_all_share_takes_no_more_than_the_table_says(row: str) -> None:
    async def build() -> object:
        return SHARED[row]()

    assert await measured(build()) <= shared()[row]


@pytest.mark.parametrize("row", LIMITS)
def test_the_limits_of_what_all_share_are_those_of_the_table(row: str) -> None:
    assert LIMITS[row] <= shared()[row]


@pytest.mark.parametrize(
    "text",
    [
        NESTED,
        "[" + ",".join(["{}"] * 21_000) + "]",
        "[" + ",".join(['{"":0}'] * 9_000) + "]",
        "[" + ",".join(['{"":' * 98 + "0" + "}" * 98] * 132) + "]",
        "[" + ",".join(["[{}]"] * 13_000) + "]",
        "[" + ",".join(["-9"] * 21_000) + "]",
        "[" + ",".join(['"\u00e9b"'] * 10_000) + "]",
        json.dumps("\U0001f600" + "x" * 65_000, ensure_ascii=False),
        "{" + ",".join(f'"{number:x}":0' for number in range(7_200)) + "}",
    ],
    ids=["nested", "objects", "fields", "nested objects", "both", "numbers", "strings", "text", "keys"],
)
@pytest.mark.long
async def test_the_data_of_one_command_takes_no_more_than_the_formula_says(text: str) -> None:
    assert 60_000 <= len(text.encode()) <= 65_536

    async def data() -> object:
        return text.encode(), decode_json(text)

    assert await measured(data()) <= of_running_commands() * 65_536 / results.MAX_RUNNING_BYTES


@pytest.mark.parametrize("text", ["\U0001f600" + "x" * 60_000, "x"], ids=["large", "small"])
async def test_a_batch_takes_no_more_than_the_document_says_until_it_is_published(text: str) -> None:
    message = json.dumps({"type": "a", "data": text}, ensure_ascii=False)
    most = 16 * 65_536
    count = min(most // (len(message.encode()) + 1), 500)
    body = f"[{','.join([message] * count)}]".encode()
    retention = Retention(max_messages=500)

    gc.collect()
    tracemalloc.start()
    drafts = await drafts_of(decode_items(body, max_item_bytes=65_536), max_message_bytes=65_536, retention=retention)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak <= 8 * len(body) + sum(draft.size_in_log for draft in drafts)


# And measured from outside


class Hostile:
    """A client that makes the server hold as much as it can, within the limits, and reads nothing."""

    def __init__(self, server: ServerProcess, number: int) -> None:
        self.user_id = f"hostile{number}"
        self._url = f"ws://127.0.0.1:{server.port}/ws?topics="
        self._token = issue_token_under(
            Settings.load(jwt_secret=SECRET),
            user_id=self.user_id,
            scope="messages:publish",
            topics=["*", *(f"{place:x}" for place in range(800))],
            expires_in=3_600.0,
        )
        self.headers = {"Authorization": f"Bearer {self._token}"}

    async def attack(self, *, until_over: asyncio.Event) -> None:
        async with connect(self._url, additional_headers=self.headers, proxy=None) as websocket:
            websocket.transport.pause_reading()
            names = worst_topics()
            for start in range(0, 1_000, 500):
                topics = [name.replace("x" * 20, f"{self.user_id:x<20}") for name in names[start : start + 500]]
                await websocket.send(json.dumps({"type": "follow", "topics": topics, "since": 0}))
            sending = asyncio.create_task(self._send(websocket))
            await until_over.wait()
            sending.cancel()
            websocket.transport.abort()

    async def _send(self, websocket: ClientConnection) -> None:
        """Send commands that never end as fast as the rate allows: 16 at once, then 9 a second."""
        number = 0
        while True:
            command = f'{{"type":"command","id":"{number}","name":"slow","data":{NESTED}}}'
            await websocket.send(command)
            number += 1
            await asyncio.sleep(0 if number < 16 else 0.11)

    async def command(self, http: httpx.AsyncClient, number: int) -> int:
        headers = {**self.headers, "Content-Type": "application/json", "Idempotency-Key": f"http{number}"}
        response = await http.post("/websocket/commands/slow", content=NESTED, headers=headers)
        return response.status_code


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_thirty_hostile_connections_take_no_more_than_the_formula_says(tmp_path: Path) -> None:
    command = (
        *("uvicorn", "slow_application:app", "--app-dir", str(Path(__file__).parent), "--no-access-log"),
        *("--http", "unmissed.server:HttpProtocol", "--ws", "unmissed.server:WebSocketProtocol"),
    )
    count, peak = 30, 0
    with ServerProcess(*command, log=tmp_path / "log") as server:
        over, clients = asyncio.Event(), [Hostile(server, number) for number in range(count)]
        async with httpx.AsyncClient(base_url=server.url, timeout=200, limits=httpx.Limits()) as http:
            await http.get("/livez")
            calm = server.resident_bytes
            async with asyncio.TaskGroup() as group:
                for client in clients:
                    group.create_task(client.attack(until_over=over))
                calls = [asyncio.create_task(client.command(http, number)) for client in clients for number in range(3)]
                began = time.monotonic()
                while sum(call.done() for call in calls) < 2 * count or time.monotonic() < began + _ATTACK_SECONDS:
                    assert time.monotonic() < began + 250
                    await asyncio.sleep(0.1)
                    peak = max(peak, server.resident_bytes)
                listed = await http.get("/websocket/connections", headers=server.headers())
                over.set()
            for call in calls:
                call.cancel()

    assert count == len(listed.json()["connections"])
    assert {429} == {call.result() for call in calls if not call.cancelled() and call.done()}
    assert peak - calm <= count * of_a_connection() + of_running_commands()
