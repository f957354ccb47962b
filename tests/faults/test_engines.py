"""Row 33: engines that moved, were demoted or damaged, or hold the data of another program."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import nats
import pytest
from redis import Redis

from engines import NatsServer, RedisServer
from places import Place
from support import until
from unit.logs.test_base import drafts, payloads, until_reached
from unmissed.core.audience import EVERYONE
from unmissed.core.errors import ConfigurationError, LogUnavailable
from unmissed.core.retention import Retention
from unmissed.core.window import Outcome, Window
from unmissed.lab.process import free_ports
from unmissed.logs.engine import Seen
from unmissed.logs.jetstream.address import StreamAddress
from unmissed.logs.jetstream.engine import JetStreamEngine
from unmissed.logs.redis.engine import RedisEngine
from unmissed.logs.redis.redis_clients import client_factory
from unmissed.logs.writer import Write

pytestmark = pytest.mark.live


@pytest.fixture
async def places() -> AsyncIterator[list[Place]]:
    """Return a list for the places that are to be closed at the end of the test."""
    places: list[Place] = []
    yield places
    for place in places:
        await place.close_all()


def at(url: str, places: list[Place]) -> Place:
    places.append(Place(url))
    return places[-1]


def visible(window: Window) -> list[str]:
    """Return the data of what everyone sees."""
    return [message.as_dict()["data"] for message in window if message.audience is EVERYONE]


async def store(url: str, *, messages: int, key: str) -> None:
    """Store one batch, without reading it."""
    engine = JetStreamEngine(StreamAddress.of(url), retention=Retention())
    await engine.connect()
    state = await engine.state(None)
    fingerprint = b"of the batch"
    write = Write(drafts(messages), key, fingerprint, asyncio.get_running_loop().create_future())
    await engine.write([write], Seen(state.epoch, state.latest, 0))
    await engine.close()


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
async def test_a_batch_that_a_killed_nats_server_kept_in_part_is_published_once(
    tmp_path: Path, places: list[Place], kept: float
) -> None:
    with NatsServer(tmp_path) as server:
        log, window = await at(server.url, places).open()
        await log.publish(drafts(1, of="before "))
        await places[0].close_all()
        [block] = server.store.rglob("unmissed/msgs/*.blk")
        before = block.stat().st_size
        await store(server.url, messages=100, key="key")

        server.kill()
        with block.open("r+b") as file:
            file.truncate(before + round((block.stat().st_size - before) * kept))
        block.with_name("index.db").unlink(missing_ok=True)
        server.start()
        (log, window), (other, second) = [await at(server.url, places).open() for _ in range(2)]
        part = visible(window)
        repeated = await log.publish(drafts(100), idempotency_key="key")
        again = await other.publish(drafts(100), idempotency_key="key")
        await until_reached(second, window.latest)

        expected = ["before 0", *map(str, range(100))]
        assert ["before 0"] == part
        assert expected == visible(window) == visible(second)
        assert payloads(window) == payloads(second)
        assert repeated.receipt == again.receipt
        assert window.first_number + 1 < repeated.receipt.first


def documented_permissions(name: str) -> str:
    """Return the block of the documentation for this name."""
    text = Path(__file__, "../../../.github/docs/logs.md").resolve().read_text()
    [block] = re.findall(r"^permissions: \{\n.*?^\}$", text, re.DOTALL | re.MULTILINE)
    return re.sub(r"\bshop\b", name, block)


@pytest.fixture
def tenants(tmp_path: Path) -> Iterator[NatsServer]:
    """Return a server with the users one and two, who have the documented permissions for streams of their names."""
    users = ", ".join(
        f"{{ user: {name}, password: {name}, {documented_permissions(name)} }}" for name in ("one", "two")
    )
    config = tmp_path / "nats.conf"
    config.write_text(f"authorization {{ users = [{users}] }}")
    with NatsServer(tmp_path, options=["--config", str(config)]) as server:
        yield server


def url_of(server: NatsServer, name: str) -> str:
    return f"{server.url.replace('//', f'//{name}:{name}@')}?name={name}"


async def test_the_documented_permissions_are_all_that_a_log_needs(tenants: NatsServer, places: list[Place]) -> None:
    for name in ("one", "two"):
        (log, window), (_, other) = [await at(url_of(tenants, name), places).open() for _ in range(2)]
        await log.publish(drafts(3), idempotency_key="key")
        again = await log.publish(drafts(3), idempotency_key="key")
        await until_reached(other, window.latest)
        epoch, latest = window.epoch, window.latest
        assert log.channel is not None
        notes = log.channel.receive()
        assert b"" == await anext(notes)
        await log.channel.send(b"note")

        assert again.repeated
        assert b"note" == await anext(notes)
        await notes.aclose()

    engine = JetStreamEngine(StreamAddress.of(url_of(tenants, "two")), retention=Retention())
    # The engine begins a new epoch, and the windows of the logs above follow it.
    lost = await engine.state(Seen(epoch, latest + 10_000_000, 0))
    await engine.close()
    assert epoch != lost.epoch


@pytest.mark.parametrize(
    "request_to",
    [
        "$JS.API.STREAM.INFO.one",
        "$JS.API.STREAM.MSG.GET.one",
        "$JS.API.STREAM.DELETE.one",
        "$JS.API.STREAM.PURGE.one",
        "$JS.API.STREAM.UPDATE.one",
        "$JS.API.CONSUMER.CREATE.one.two",
        "$JS.API.CONSUMER.NAMES.one",
        "$JS.API.STREAM.NAMES",
        "one-nodes",
        "one.epoch.key",
    ],
)
async def test_a_user_with_the_documented_permissions_may_not_publish_for_another(
    tenants: NatsServer, request_to: str
) -> None:
    assert f'permissions violation for publish to "{request_to.lower()}"' in await refusal(tenants, publish=request_to)


@pytest.mark.parametrize("subject", ["_INBOX.>", "_INBOX.one.>", "one-nodes", "one.>", ">", "$JS.>"])
async def test_a_user_with_the_documented_permissions_may_not_read_what_another_is_sent(
    tenants: NatsServer, subject: str
) -> None:
    expected = f'permissions violation for subscription to "{subject.lower()}"'
    assert expected in await refusal(tenants, subscribe=subject)


async def refusal(server: NatsServer, *, publish: str = "", subscribe: str = "") -> str:
    """Return what the server answers the user two."""
    errors: asyncio.Queue[str] = asyncio.Queue()

    async def failed(error: Exception) -> None:
        errors.put_nowait(str(error).lower())

    client = await nats.connect(server.url, user="two", password="two", error_cb=failed)
    if publish:
        await client.publish(publish, b"{}")
    else:
        await client.subscribe(subscribe)
    async with asyncio.timeout(10):
        error = await errors.get()
    await client.close()
    return error


@pytest.fixture
def redis_pair(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """Return a primary and its replica, which has what the primary has."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with RedisServer(tmp_path / "one") as primary, RedisServer(tmp_path / "two") as replica:
        follow(replica, primary)
        yield primary, replica


def follow(replica: RedisServer, primary: RedisServer) -> None:
    with Redis(port=replica.port) as redis, Redis(port=primary.port) as other:
        other.config_set("repl-diskless-sync-delay", 0)
        redis.replicaof("127.0.0.1", str(primary.port))
        while redis.info("replication")["master_link_status"] != "up":
            pass


def fail_over(primary: RedisServer, replica: RedisServer, *, demote: bool) -> None:
    """Promote the replica. The old primary stays up, and does not end its connections."""
    with Redis(port=replica.port) as redis, Redis(port=primary.port) as other:
        # The server waits for the writes of this client alone.
        other.set("written", "after the messages")
        other.wait(1, 10_000)
        redis.replicaof("NO", "ONE")
        if demote:
            other.replicaof("127.0.0.1", str(replica.port))


class Endpoint:
    """A name that leads new connections to another server as soon as ``target`` is changed."""

    def __init__(self, target: int) -> None:
        self.target = target

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Forward connections, and yield the URL."""
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.create_task(self._forward(reader, writer)))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        try:
            yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, out = await asyncio.open_connection("127.0.0.1", self.target)
        with closing(writer), closing(out):
            copies = [asyncio.create_task(copy(reader, out)), asyncio.create_task(copy(upstream, writer))]
            try:
                await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in copies:
                    each.cancel()
                await asyncio.gather(*copies, return_exceptions=True)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


async def test_a_redis_endpoint_that_moved_is_followed_although_the_old_server_still_answers(
    redis_pair: tuple[RedisServer, RedisServer], places: list[Place]
) -> None:
    primary, replica = redis_pair
    endpoint = Endpoint(primary.port)
    async with endpoint.serving() as url:
        (log, window), (_, reading) = [await at(url, places).open() for _ in range(2)]
        first = await log.publish(drafts(3))

        fail_over(primary, replica, demote=True)
        endpoint.target = replica.port
        # The retries of 1.5 s after a failover and one connection that times out take less.
        async with asyncio.timeout(10):
            second = await log.publish(drafts(1))
            await until_reached(reading, second.receipt.first)

        with Redis(port=replica.port) as redis:
            assert str(second.receipt.first).encode() == redis.hget("{unmissed}:life", "latest")
        assert first.receipt.epoch == second.receipt.epoch
        assert first.receipt.first + 3 < second.receipt.first
        assert payloads(window) == payloads(reading)
        await places[0].close_all()
        await places[1].close_all()


async def test_a_node_that_only_reads_leaves_a_server_that_was_demoted(
    redis_pair: tuple[RedisServer, RedisServer], places: list[Place]
) -> None:
    primary, replica = redis_pair
    endpoint = Endpoint(primary.port)
    async with endpoint.serving() as url:
        log, _ = await at(url, places).open()
        await log.publish(drafts(1))

        fail_over(primary, replica, demote=True)
        endpoint.target = replica.port
        with Redis(port=replica.port) as redis:
            await until(lambda: "unmissed" in [client["name"] for client in redis.client_list()])
            role = redis.info("replication")["role"]
        await places[0].close_all()

    assert "master" == role


def redis_engine(url: str) -> RedisEngine:
    return RedisEngine(
        client_factory(url, tls={}), shown=url, name="unmissed", retention=Retention(), first_number=None
    )


async def test_a_replica_is_no_place_for_a_log(redis_pair: tuple[RedisServer, RedisServer]) -> None:
    engine = redis_engine(redis_pair[1].url)
    await engine.connect()

    with pytest.raises(LogUnavailable, match="this server is a replica"):
        await engine.state(Seen("epoch", 1_796_000_000_000_000, 0))

    await engine.close()


async def test_a_redis_cluster_is_refused_at_the_start(tmp_path: Path, places: list[Place]) -> None:
    # By default, its port for the other nodes is 10,000 above: an outgoing connection may have that one.
    [bus_port] = free_ports(1)
    with (
        RedisServer(tmp_path, options=["--cluster-enabled", "yes", "--cluster-port", str(bus_port)]) as server,
        pytest.raises(ConfigurationError, match="is a node of a Redis Cluster, which cannot hold the log"),
    ):
        await at(f"redis://127.0.0.1:{server.port}", places).open()


async def test_a_redis_that_sends_its_clients_to_another_node_is_named_as_a_cluster() -> None:
    """Some services do not say that they are one."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while line := await reader.readline():
                arguments = []
                for _ in range(int(line[1:])):
                    size = int((await reader.readline())[1:])
                    arguments.append((await reader.readexactly(size + 2))[:-2])
                match arguments[0]:
                    case b"INFO":
                        writer.write(b"$19\r\nredis_version:7.0.0\r\n")
                    case b"EVALSHA":
                        writer.write(b"-MOVED 6615 127.0.0.1:7000\r\n")
                    case _:
                        writer.write(b"+OK\r\n")

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        engine = redis_engine(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await engine.connect()
        with pytest.raises(LogUnavailable, match="is a node of a Redis Cluster"):
            await engine.state(None)
        await engine.close()


@pytest.mark.parametrize(
    ("entry_id", "deleted"),
    [("{next}-0", False), ("{next}-7", False), ("{latest}-7", False), (f"{2**63}-0", False), (f"{2**63}-0", True)],
)
async def test_an_entry_of_another_program_in_redis_stops_nobody_and_hides_nothing(
    tmp_path: Path, places: list[Place], entry_id: str, *, deleted: bool
) -> None:
    with RedisServer(tmp_path) as server, Redis(port=server.port) as redis:
        (log, window), (_, second) = [await at(server.url, places).open() for _ in range(2)]
        first = await log.publish(drafts(2, of="before "), idempotency_key="key")
        added = entry_id.format(latest=window.latest, next=window.latest + 1)

        redis.xadd("{unmissed}:messages", {"ms": "1", "draft": "no"}, id=added)
        if deleted:
            redis.xdel("{unmissed}:messages", added)
        async with asyncio.timeout(10):
            later = await log.publish(drafts(2, of="after "))
            await until_reached(second, later.receipt.first + 1)
        _, third = await at(server.url, places).open()

        assert first.receipt.first + 2 == later.receipt.first
        assert ["before 0", "before 1", "after 0", "after 1"] == visible(window) == visible(second) == visible(third)
        assert log.unavailable is None
        for place in places:
            await place.close_all()


async def test_an_entry_of_another_program_that_is_read_late_hides_no_message(tmp_path: Path) -> None:
    """It was removed, and a message has its number, before the node that read it looks at it."""
    with RedisServer(tmp_path) as server, Redis(port=server.port) as redis:
        engine = redis_engine(server.url)
        await engine.connect()
        state = await engine.state(None)
        assert engine._clients is not None  # noqa: SLF001
        read, arrived, looked_at = engine._clients.redis.xread, asyncio.Event(), asyncio.Event()  # noqa: SLF001

        async def read_late(*arguments: Any, **options: Any) -> Any:
            found = await read(*arguments, **options)
            if found:
                arrived.set()
                await looked_at.wait()
            return found

        blocks = engine.read(state.latest)
        await anext(blocks)
        engine._clients.redis.xread = read_late  # type: ignore[method-assign]  # noqa: SLF001
        reading = asyncio.ensure_future(anext(blocks))
        redis.xadd("{unmissed}:messages", {"ms": "1", "draft": "no"}, id=f"{state.first_number}-7")
        async with asyncio.timeout(60):
            await arrived.wait()
            write = Write(drafts(1), None, b"", asyncio.get_running_loop().create_future())
            await engine.write([write], Seen(state.epoch, state.latest, 0))
            looked_at.set()

            assert [] == await reading
        after = await engine.state(Seen(state.epoch, state.latest, 0))
        assert (state.first_number, state.first_number) == (after.oldest, after.latest)
        await blocks.aclose()
        await engine.close()


async def test_an_entry_that_replaced_a_message_in_redis_is_a_gap_and_logged_once(
    tmp_path: Path, places: list[Place], caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer(tmp_path) as server, Redis(port=server.port) as redis:
        place = at(server.url, places)
        log, _ = await place.open()
        number = (await log.publish(drafts(3))).receipt.first + 1
        await place.close(log)
        entries = redis.xrange("{unmissed}:messages")
        redis.delete("{unmissed}:messages")
        for entry_id, fields in entries:
            damaged = entry_id == f"{number}-0".encode()
            redis.xadd("{unmissed}:messages", {"ms": "x", "draft": "no"} if damaged else fields, id=entry_id)

        log, window = await place.open()
        await log.publish(drafts(1, of="after "))

        assert ["2", "after 0"] == visible(window)
        assert Outcome.GAP is window.locate(number - 1).outcome
        assert Outcome.COMPLETE is window.locate(number).outcome
        assert 1 == sum("cannot be read: skipped" in record.message for record in caplog.records)
        await place.close_all()
