"""What is special about a log in a NATS JetStream stream, on real servers."""

import asyncio
import json
import secrets
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, closing, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import nats
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from engines import NatsServer, nats_cluster
from support import until
from unit.logs.test_base import RecordingListener, drafts, numbers, payloads, until_reached
from unmissed.core.audience import EVERYONE
from unmissed.core.errors import ConfigurationError, InvalidMessage, LogUnavailable, MessageTooLarge
from unmissed.core.messages import Draft
from unmissed.core.retention import Retention
from unmissed.core.window import Outcome, Window
from unmissed.lab.process import free_ports
from unmissed.logs.base import Publication
from unmissed.logs.engine import Seen
from unmissed.logs.feed import Record
from unmissed.logs.jetstream.address import StreamAddress
from unmissed.logs.jetstream.consumer import StreamConsumer
from unmissed.logs.jetstream.engine import JetStreamEngine
from unmissed.logs.jetstream.nats_connection import NatsConnection
from unmissed.logs.jetstream.packets import Packet, api_request, encode_body
from unmissed.logs.jetstream.publisher import subject_part
from unmissed.logs.jetstream.stream import StreamInfo
from unmissed.logs.shared_log import SharedLog
from unmissed.logs.writer import Stored, Write


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """Return a NATS server for one test."""
    with NatsServer(tmp_path) as server:
        yield server


@pytest.fixture
def url(nats_server: NatsServer) -> str:
    """Return the URL of a stream that does not exist."""
    return f"{nats_server.url}?name=test-{secrets.token_hex(8)}"


def engine(url: str, *, retention: Retention | None = None) -> JetStreamEngine:
    return JetStreamEngine(StreamAddress.of(url), retention=retention or Retention())


@asynccontextmanager
async def node(url: str, *, retention: Retention | None = None) -> AsyncIterator[tuple[SharedLog, Window]]:
    log = SharedLog(engine(url, retention=retention), retention=retention)
    window = await log.open()
    try:
        yield log, window
    finally:
        await log.close()


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[NatsConnection]:
    connection = NatsConnection(StreamAddress.of(url))
    await connection.open()
    try:
        yield connection
    finally:
        await connection.close()


async def api(url: str, request: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask the JetStream API, with the name of the stream in the place of ``*``."""
    async with connection(url) as connected:
        answer = await connected.ask(api_request(request.replace("*", StreamAddress.of(url).name), body))
    assert "error" not in answer, answer
    return answer


async def written(writer: JetStreamEngine, key: str, *, seen: Seen) -> Stored:
    """Write one message as soon as the server can be reached."""
    write = Write(drafts(1), key, b"fingerprint", asyncio.get_running_loop().create_future())
    async with asyncio.timeout(10):
        while True:
            try:
                [stored] = await writer.write([write], seen)
            except LogUnavailable as error:
                if "cannot be reached" not in error.reason:
                    raise
            else:
                assert isinstance(stored, Stored)
                return stored


async def test_the_message_has_the_number_and_the_time_of_the_stream(url: str) -> None:
    async with node(url) as (log, window):
        publication = await log.publish(drafts(2))
        info = await api(url, "STREAM.INFO.*")

    assert publication.receipt.first + 1 == info["state"]["last_seq"]
    assert window.first_number == info["config"]["first_seq"]
    assert abs(time.time() - info["state"]["first_seq"] / 1e6) < 60
    assert publication.receipt.timestamp[:16] in (info["state"]["last_ts"][:16], info["state"]["first_ts"][:16])


async def test_messages_have_the_time_of_the_server_when_the_clock_of_the_node_is_set(url: str) -> None:
    wall_clock = [time.time()]
    node = JetStreamEngine(StreamAddress.of(url), retention=Retention(), wall_clock=lambda: wall_clock[0])
    await node.connect()
    state = await node.state(None)
    wall_clock[0] -= 3600

    stored = await written(node, "key", seen=Seen(state.epoch, state.latest, 0))

    stamped = datetime.fromisoformat(stored.receipt.timestamp).timestamp()
    assert abs(stamped - state.log_ms / 1000) < 60
    await node.close()


async def test_messages_have_the_time_that_has_passed_since_the_server_told_its_own(url: str) -> None:
    clock = [0.0]
    node = JetStreamEngine(StreamAddress.of(url), retention=Retention(), clock=lambda: clock[0])
    await node.connect()
    state = await node.state(None)
    clock[0] += 90

    stored = await written(node, "key", seen=Seen(state.epoch, state.latest, 0))

    stamped = datetime.fromisoformat(stored.receipt.timestamp).timestamp()
    assert stamped == pytest.approx(state.log_ms / 1000 + 90, abs=0.01)
    await node.close()


async def test_a_missing_package_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nats.aio.client", None)

    with pytest.raises(ConfigurationError, match=r"pip install 'unmissed\[nats\]'"):
        await engine(url).connect()


async def test_a_server_that_cannot_be_reached_is_named() -> None:
    unreachable = f"nats://user:secret@127.0.0.1:{free_ports(1)[0]}"

    with pytest.raises(LogUnavailable, match=r"nats://127.0.0.1:\d+ cannot be reached") as unavailable:
        await engine(unreachable).connect()

    assert "secret" not in str(unavailable.value)


@asynccontextmanager
async def older_server(version: str) -> AsyncIterator[str]:
    """Run a server that answers the greeting of a client as this version does."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO %b\r\n" % json.dumps({"version": version, "headers": True, "max_payload": 1000}).encode())
        with closing(writer), suppress(ConnectionError):
            while line := await reader.readline():
                if line == b"PING\r\n":
                    writer.write(b"PONG\r\n")

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def closed_by_the_server() -> AsyncIterator[NatsConnection]:
    """Return a connection in the moment after the server has ended it, when only the client knows."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO %b\r\n" % json.dumps({"version": "2.12.0", "headers": True, "max_payload": 99}).encode())
        with closing(writer), suppress(ConnectionError):
            while line := await reader.readline():
                if line == b"PING\r\n":
                    writer.write(b"PONG\r\n")
                elif line.startswith(b"PUB end"):
                    writer.write(b"-ERR 'Maximum Payload Violation'\r\n")

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server, connection(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}") as connected:
        yield connected


async def repeat(call: Callable[[], Awaitable[object]]) -> None:
    """Do this in every step of the loop."""
    while True:
        await call()
        await asyncio.sleep(0)


async def test_a_packet_for_a_client_that_is_closing_finds_the_log_unavailable() -> None:
    async with closed_by_the_server() as connected:
        await connected.send(Packet("end", b"", answered=False))

        with pytest.raises(LogUnavailable, match="cannot be reached"):
            await repeat(lambda: connected.send(Packet("more", b"", answered=False)))

        assert connected.lost is not None


async def test_subscribing_with_a_client_that_is_closing_finds_the_log_unavailable() -> None:
    async def receive(_: object) -> None: ...

    async with closed_by_the_server() as connected:
        _, unsubscribe = await connected.subscribe(receive, on_end=lambda: None)
        await connected.send(Packet("end", b"", answered=False))

        with pytest.raises(LogUnavailable, match="cannot be reached"):
            await repeat(lambda: connected.subscribe(receive, on_end=lambda: None))

        await unsubscribe()


async def test_unsubscribing_from_a_client_that_is_closing_ends_the_connection() -> None:
    async def receive(_: object) -> None: ...

    async with closed_by_the_server() as connected:
        await connected.send(Packet("end", b"", answered=False))

        while connected.lost is None:
            with suppress(LogUnavailable):
                _, unsubscribe = await connected.subscribe(receive, on_end=lambda: None)
            await asyncio.sleep(0)
            await unsubscribe()

        assert "cannot be reached" in str(connected.lost)


@pytest.mark.parametrize("version", ["2.11.9", "2.9.0-RC.1", "unknown"])
async def test_a_server_without_atomic_batches_is_refused(version: str) -> None:
    async with older_server(version) as url:
        with pytest.raises(ConfigurationError, match=r"needs 2\.12 or newer"):
            await engine(url).connect()


async def test_a_server_without_jetstream_is_refused(tmp_path: Path) -> None:
    with (
        NatsServer(tmp_path, jetstream=False) as server,
        pytest.raises(ConfigurationError, match="start nats-server with --jetstream"),
    ):
        await engine(server.url).connect()


async def test_notes_of_a_server_that_has_no_jetstream_yet_are_unavailable(tmp_path: Path) -> None:
    """A server accepts connections a moment before its JetStream answers."""
    with NatsServer(tmp_path, jetstream=False) as server:
        node = engine(server.url)
        notes = node.receive()

        with pytest.raises(LogUnavailable, match="has no JetStream"):
            await anext(notes)

        await node.close()


async def test_a_note_that_the_server_cannot_take_is_refused_alone(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("max_payload: 4096")
    with NatsServer(tmp_path, options=["--config", str(config)]) as server:
        node = engine(server.url)
        await node.connect()
        notes = node.receive()
        assert b"" == await anext(notes)

        with pytest.raises(LogUnavailable, match="a note of 4097 bytes exceeds max_payload of NATS, 4096"):
            await node.send(b"x" * 4097)
        await node.send(b"x" * 4096)

        assert 4096 == len(await anext(notes))
        await notes.aclose()
        await node.close()


async def test_wrong_credentials_are_refused_without_being_repeated(tmp_path: Path) -> None:
    with NatsServer(tmp_path, options=["--user", "user", "--pass", "right"]) as server:
        right = server.url.replace("//", "//user:right@")
        async with node(right) as (log, _):
            await log.publish(drafts(1))

        with pytest.raises(ConfigurationError, match="refuses the user or password") as refused:
            await engine(right.replace("right", "wrong")).connect()

    assert "wrong" not in str(refused.value)


async def test_credentials_are_not_sent_to_a_server_without_tls(tmp_path: Path) -> None:
    with NatsServer(tmp_path, options=["--user", "user", "--pass", "right"]) as server:
        url = server.url.replace("//", "//user:right@")

        with pytest.raises(ConfigurationError, match="does not use TLS"):
            await engine(f"{url}?tls=true").connect()


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


async def test_tls_is_used_and_the_certificate_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = write_certificate(tmp_path)
    options = ["--tls", "--tlscert", str(certificate), "--tlskey", str(key), "--user", "user", "--pass", "right"]
    with NatsServer(tmp_path, options=options) as server:
        url = f"{server.url.replace('//', '//user:right@')}?tls=true"

        with pytest.raises(LogUnavailable, match="cannot be reached"):
            await NatsConnection(StreamAddress.of(url), connect_seconds=1.0).open()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with node(url) as (log, window):
            await log.publish(drafts(2))

            assert 2 == len(window)


async def test_replicas_need_a_cluster(url: str) -> None:
    with pytest.raises(ConfigurationError, match="replicas > 1 not supported"):
        await engine(f"{url}&replicas=3").connect()


async def test_a_stream_with_other_settings_is_refused_with_every_difference(url: str) -> None:
    async with node(url):
        pass
    config = (await api(url, "STREAM.INFO.*"))["config"]
    await api(url, "STREAM.UPDATE.*", config | {"max_age": 10**9, "max_msgs": 7, "discard": "new"})

    with pytest.raises(ConfigurationError, match="nats stream edit") as refused:
        await engine(url).connect()

    for text in ("max_age is 1000000000", "max_msgs is 7", "--max-age=8100s", "--max-msgs=10000", "--discard=old"):
        assert text in str(refused.value)


async def test_a_stream_that_keeps_more_is_used(url: str) -> None:
    async with node(url):
        pass
    config = (await api(url, "STREAM.INFO.*"))["config"]
    await api(url, "STREAM.UPDATE.*", config | {"max_age": 0, "max_msgs": -1, "max_bytes": -1})

    async with node(url) as (log, _):
        assert log.unavailable is None


async def test_a_stream_that_keeps_less_than_this_node_is_refused(url: str) -> None:
    async with node(url):
        pass

    with pytest.raises(ConfigurationError, match="--max-age=9000s"):
        await engine(url, retention=Retention(max_age=1800)).connect()


async def test_a_stream_of_another_application_is_refused(url: str) -> None:
    name = StreamAddress.of(url).name
    await api(url, "STREAM.CREATE.*", {"name": name, "subjects": [f"{name}.>"]})

    with pytest.raises(ConfigurationError, match="belongs to another application"):
        await engine(url).connect()


async def test_nodes_that_create_the_stream_at_the_same_time_share_it(url: str) -> None:
    engines = [engine(url) for _ in range(8)]

    await asyncio.gather(*(each.connect() for each in engines))
    states = await asyncio.gather(*(each.state(None) for each in engines))

    assert 1 == len({(state.epoch, state.first_number) for state in states})
    for each in engines:
        await each.close()


async def test_the_largest_batch_and_message_are_published(url: str) -> None:
    large = [Draft.of({"type": "a", "data": "x" * 65_000}, max_bytes=65_536) for _ in range(500)]
    addressed = Draft.of({"type": "a", "data": "x" * 65_000, "users": ["u" * 200] * 100}, max_bytes=10**6)

    async with node(url) as (log, window):
        batch = await log.publish(large)
        await log.publish([addressed])

        assert 500 == batch.receipt.count
        assert window.latest == window.first_number + 500


async def test_a_message_that_the_server_can_never_take_is_refused_alone(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("max_payload: 4096")
    with NatsServer(tmp_path, options=["--config", str(config)]) as server:
        async with node(server.url) as (log, window):
            too_large = Draft.of({"type": "a", "data": "x" * 4_000}, max_bytes=5_000)

            refused, published = await asyncio.gather(
                log.publish([too_large]), log.publish(drafts(1)), return_exceptions=True
            )

            assert isinstance(refused, MessageTooLarge)
            assert isinstance(published, Publication)
            assert 1 == len(window)


async def test_a_batch_that_the_server_cannot_take_is_refused(url: str) -> None:
    async with node(url) as (log, window):
        with pytest.raises(InvalidMessage, match="at most 1000 messages"):
            await log.publish(drafts(1_001))

        await log.publish(drafts(1))
        assert 1 == len(window)


def write_of(count: int, *, key: str | None = None) -> Write:
    return Write(drafts(count), key, b"fingerprint", asyncio.get_running_loop().create_future())


async def written_in_turn(url: str, writes: Sequence[Write]) -> list[list[Stored]]:
    """Return the results of every call that it takes to write these."""
    node = engine(url)
    await node.connect()
    state = await node.state(None)
    calls: list[list[Stored]] = []
    while remaining := writes[sum(map(len, calls)) :]:
        results = await node.write(remaining, Seen(state.epoch, state.latest, 0))
        calls.append([result for result in results if isinstance(result, Stored)])
        assert 0 < len(results) == len(calls[-1])
    await node.close()
    return calls


async def test_a_write_stores_only_as_many_batches_as_take_less_than_a_second(url: str) -> None:
    """A server needs up to 15 ms for an atomic batch, and a publisher waits for two seconds."""
    calls = await written_in_turn(url, [write_of(2) for _ in range(70)])

    assert [30, 30, 10] == [len(results) for results in calls]
    firsts = [stored.receipt.first for results in calls for stored in results]
    assert [*range(firsts[0], firsts[0] + 140, 2)] == firsts


@pytest.mark.parametrize(("messages", "expected"), [(1, [1_000]), (300, [6, 1]), (1_000, [2, 2, 2, 1])])
async def test_a_write_stores_a_limited_number_of_messages(url: str, messages: int, expected: list[int]) -> None:
    calls = await written_in_turn(url, [write_of(messages) for _ in range(sum(expected))])

    assert expected == [len(results) for results in calls]


async def test_publishes_with_one_key_get_its_receipt_however_many_they_are(url: str) -> None:
    calls = await written_in_turn(url, [write_of(1, key="key") for _ in range(150)])

    stored = [each for results in calls for each in results]
    assert 1 == len({each.receipt for each in stored})
    assert [True, *[False] * 149] == [each.new for each in stored]


async def test_an_idle_stream_stays_readable(url: str) -> None:
    """The server ends a pull after a while, and the next one continues."""
    name = StreamAddress.of(url).name
    observer = await nats.connect(url.partition("?")[0])
    pulls = await observer.subscribe(f"$JS.API.CONSUMER.MSG.NEXT.{name}.>")
    async with node(url) as (log, window), connection(url) as connected:
        stream = StreamInfo.of(await api(url, "STREAM.INFO.*"), StreamAddress.of(url), Retention())
        consumer = StreamConsumer(connected, stream=stream, pull_seconds=2)
        reading = asyncio.create_task(first_records(consumer, window.latest))
        asked = list[int]()
        while asked.count(2 * 10**9) < 2:
            asked.append(json.loads((await pulls.next_msg(timeout=60)).data)["expires"])
        await observer.close()

        await log.publish(drafts(1))

        assert [window.first_number] == [record.number for record in await reading]


async def first_records(consumer: StreamConsumer, number: int) -> Sequence[Record]:
    """Return the first messages after a number that a consumer yields."""
    async with asyncio.timeout(60), aclosing(consumer.after(number)) as blocks:
        return await anext(records async for records in blocks if records)


async def store_part(url: str, window: Window, *, key: str, messages: int = 2, of: str = "") -> None:
    """Store the first messages of a batch, as a single server does that is killed while it stores the batch."""
    subject = f"{StreamAddress.of(url).name}.{window.epoch}.{subject_part(key)}.0.-.-"
    now_ms = int(time.time() * 1000)
    async with connection(url) as connected:
        for place, draft in enumerate(drafts(messages, of=of), start=1):
            await connected.ask(Packet(subject, encode_body(draft, unix_ms=now_ms, log_ms=now_ms, place=place)))


def visible_data(window: Window) -> list[str]:
    """Return the data of all messages that somebody sees."""
    return [
        message.as_dict()["data"]
        for message in window.messages_after(window.evicted_through)
        if message.audience is EVERYONE
    ]


async def test_part_of_a_batch_is_shown_to_nobody_and_its_repetition_stores_the_whole(url: str) -> None:
    async with node(url) as (log, window), node(url) as (other, second):
        await store_part(url, window, key="key")

        first = await log.publish(drafts(3), idempotency_key="key")
        again = await other.publish(drafts(3), idempotency_key="key")
        await until_reached(second, window.latest)

        assert (window.first_number + 2, 3) == (first.receipt.first, first.receipt.count)
        assert first.receipt == again.receipt
        assert ["0", "1", "2"] == visible_data(window) == visible_data(second)
        assert payloads(window) == payloads(second)
        assert Outcome.COMPLETE is window.locate(window.first_number - 1).outcome


async def test_parts_of_batches_at_the_end_stop_no_node_and_are_not_reported_as_stored(url: str) -> None:
    """A server that is killed again and again may keep several parts."""
    async with node(url) as (log, window):
        start = (await log.publish(drafts(1, of="whole "))).receipt.first
        for key in ("one", "two"):
            await store_part(url, window, key=key, messages=3, of=key)
        await until_reached(window, start + 3)

        async with node(url) as (other, second):
            async with asyncio.timeout(30):
                await other.catch_up(start + 5)
            assert start + 3 == window.latest == second.latest
            publication = await other.publish(drafts(1, of="later "))
            await until_reached(window, publication.receipt.first)

            assert start + 7 == publication.receipt.first
            assert ["whole 0", "later 0"] == visible_data(window) == visible_data(second)
            assert Outcome.COMPLETE is second.locate(start, keys=frozenset()).outcome


async def test_part_of_a_batch_makes_no_gap_when_it_is_evicted(url: str) -> None:
    retention = Retention(max_messages=4)
    async with node(url, retention=retention) as (log, window):
        start = (await log.publish(drafts(1))).receipt.first
        await store_part(url, window, key="key", messages=3)
        for _ in range(4):
            await log.publish(drafts(1))

        assert start + 3 == window.evicted_through
        assert Outcome.COMPLETE is window.locate(start, keys=frozenset()).outcome


async def test_a_batch_whose_first_messages_are_discarded_is_no_part(url: str) -> None:
    retention = Retention(max_messages=5)
    async with node(url, retention=retention) as (log, _):
        await log.publish(drafts(8))

        async with node(url, retention=retention) as (_, second):
            assert ["3", "4", "5", "6", "7"] == visible_data(second)


async def test_a_write_without_a_key_is_stored_whole_after_its_part(url: str) -> None:
    """The server was killed while it stored the batch, and the writer tries again."""
    writer = engine(url)
    await writer.connect()
    state = await writer.state(None)
    write = Write(drafts(3), None, b"", asyncio.get_running_loop().create_future())
    async with connection(url) as connected:
        part = encode_body(write.drafts[0], unix_ms=1_796_000_000_000, log_ms=1_796_000_000_000, place=1)
        await connected.ask(Packet(f"{StreamAddress.of(url).name}.{state.epoch}.{write.id}.0.-.-", part))

    [stored] = await writer.write([write], Seen(state.epoch, state.latest, 0))

    assert isinstance(stored, Stored)
    assert (state.latest + 2, 3, True) == (stored.receipt.first, stored.receipt.count, stored.new)
    await writer.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"1796000000000 1796000000000 1 - id\n\n{",
        b"1796000000000 1796000000000 0 - id\n\n{\n}",
        b"1796000000000 1796000000000 1 - id\n\n{\n}",
        b"9" * 30 + b' 1796000000000 1 - id\n\n{"type":"a"\n}',
        b'1796000000000 1796000000000 1 - id\n["@a",1]\n{"type":"a"\n}',
        b'1796000000000 1796000000000 1 - id\n7\n{"type":"a"\n}',
        b"[" * 10_000,
    ],
    ids=["empty", "text", "short", "no place", "no type", "no time", "no keys", "no list", "deep"],
)
async def test_a_message_of_another_program_is_skipped_by_every_node_and_logged_once(
    url: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with node(url) as (log, window):
        before = await log.publish(drafts(1, of="before "))
        async with connection(url) as connected:
            await connected.ask(
                Packet(f"{StreamAddress.of(url).name}.{window.epoch}.{subject_part('key')}.0.-.-", body)
            )
        await until_reached(window, before.receipt.first + 1)
        foreign = [record.message for record in caplog.records if "did not write" in record.message]

        async with node(url) as (other, second):
            after = await other.publish(drafts(2, of="after "), idempotency_key="key")
            await until_reached(window, second.latest)

            assert before.receipt.first + 2 == after.receipt.first
            assert ["before 0", "after 0", "after 1"] == visible_data(window) == visible_data(second)
            assert (None, None) == (log.unavailable, other.unavailable)
            assert Outcome.COMPLETE is window.locate(before.receipt.first).outcome
    assert 1 == len(foreign)


async def test_the_state_of_a_stream_that_ends_with_a_message_of_another_program_is_no_loss(url: str) -> None:
    async with node(url) as (log, window):
        number = (await log.publish(drafts(1))).receipt.first + 1
        async with connection(url) as connected:
            await connected.ask(Packet(f"{StreamAddress.of(url).name}.{window.epoch}.foreign.0.-.-", b"hello"))
        await until_reached(window, number)
        other = engine(url)
        await other.connect()

        same = await other.state(Seen(window.epoch, number, 0))
        await other.close()

        assert (window.epoch, number) == (same.epoch, same.latest)


@pytest.mark.parametrize("status", ["503", "409 Consumer Deleted", "100 Idle Heartbeat", "409 \udcff", "x"])
async def test_a_message_with_the_headers_of_a_status_is_skipped(url: str, status: str) -> None:
    async with node(url) as (log, window):
        host, port = StreamAddress.of(url).servers[0].removeprefix("nats://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        headers = f"NATS/1.0 {status}\r\n\r\n".encode(errors="surrogateescape")
        subject = f"{StreamAddress.of(url).name}.{window.epoch}.foreign.0.-.-"
        writer.write(
            b'CONNECT {"verbose":false,"headers":true}\r\n'
            b"HPUB %b %d %d\r\n%b\r\nPING\r\n" % (subject.encode(), len(headers), len(headers), headers)
        )
        while await reader.readline() != b"PONG\r\n":
            pass
        writer.close()

        publication = await log.publish(drafts(1))

        assert window.first_number + 1 == publication.receipt.first
        assert ["0"] == visible_data(window)
        assert log.unavailable is None


async def test_holes_of_a_damaged_stream_are_skipped(url: str) -> None:
    async with node(url) as (log, window):
        await log.publish(drafts(5))
        await api(url, "STREAM.PURGE.*", {"filter": f"{StreamAddress.of(url).name}.{window.epoch}.none.0.-.-"})
        first = await log.publish(drafts(1), idempotency_key="hole")
        await log.publish(drafts(2))
        subject = f"{StreamAddress.of(url).name}.{window.epoch}.{subject_part('hole')}.>"
        assert 1 == (await api(url, "STREAM.PURGE.*", {"filter": subject}))["purged"]

    async with node(url) as (log, window):
        await until_reached(window, first.receipt.first + 2)
        await log.publish(drafts(1))

        assert [*range(first.receipt.first + 1, first.receipt.first + 4)] == numbers(
            [*window.messages_after(window.evicted_through)]
        )


async def test_a_hole_between_messages_is_skipped(url: str) -> None:
    async with node(url) as (log, window):
        await log.publish(drafts(3))
        first = (await log.publish(drafts(1), idempotency_key="hole")).receipt.first
        await log.publish(drafts(2))
        subject = f"{StreamAddress.of(url).name}.{window.epoch}.{subject_part('hole')}.>"
        assert 1 == (await api(url, "STREAM.PURGE.*", {"filter": subject}))["purged"]

    async with node(url) as (log, window):
        await until_reached(window, first + 2)
        await log.publish(drafts(1))

        assert [first + 1, first + 2, first + 3] == numbers([*window.messages_after(window.evicted_through)])


async def test_a_deleted_stream_is_followed_by_an_epoch_with_higher_numbers(url: str) -> None:
    async with node(url) as (one, first), node(url) as (two, second):
        listener = RecordingListener()
        two.subscribe(listener)
        await one.publish(drafts(3))
        await until_reached(second, first.latest)
        epoch, latest = first.epoch, first.latest

        await api(url, "STREAM.DELETE.*")
        await until(lambda: first.epoch == second.epoch != epoch)
        publication = await one.publish(drafts(1))
        await until_reached(second, publication.receipt.first)

        assert latest < first.first_number == publication.receipt.first
        assert "restart" in listener.calls
        assert payloads(first) == payloads(second)


async def test_the_last_position_of_a_lost_epoch_is_a_reset_also_if_the_clock_is_behind(url: str) -> None:
    node = JetStreamEngine(StreamAddress.of(url), retention=Retention(), wall_clock=lambda: 1_000_000_000.0)
    await node.connect()
    lost = Seen("lost", 1_796_000_000_000_000, 1)

    state = await node.state(lost)
    await node.close()

    window = Window(Retention(), epoch=state.epoch, first_number=state.first_number)
    assert Outcome.RESET is window.locate(lost.latest).outcome


async def test_nodes_that_find_the_same_loss_begin_one_epoch(url: str) -> None:
    engines = [engine(url) for _ in range(4)]
    await asyncio.gather(*(each.connect() for each in engines))
    state = await engines[0].state(None)
    seen = Seen(state.epoch, state.first_number + 10, 0)

    states = await asyncio.gather(*(each.state(seen) for each in engines))
    settled = await asyncio.gather(*(each.state(seen) for each in engines))

    assert state.epoch not in {each.epoch for each in states}
    assert 1 == len({(each.epoch, each.first_number) for each in settled})
    assert seen.latest < settled[0].first_number
    for each in engines:
        await each.close()


async def test_another_message_of_the_same_number_begins_an_epoch(url: str) -> None:
    async with node(url) as (log, window):
        await log.publish(drafts(1))
        epoch, latest = window.epoch, window.latest
    other = engine(url)
    await other.connect()

    same = await other.state(Seen(epoch, latest, 0))
    state = await other.state(Seen(epoch, latest, 1))
    await other.close()

    assert epoch == same.epoch != state.epoch


async def test_an_old_copy_of_the_store_uses_no_number_again(server: NatsServer, tmp_path: Path) -> None:
    async with node(server.url) as (log, window):
        await log.publish(drafts(3))
        server.kill()
        shutil.copytree(server.store, tmp_path / "copy")
        server.start()
        await log.publish(drafts(3, of="later "))
        epoch, latest = window.epoch, window.latest
        server.kill()
        shutil.rmtree(server.store)
        shutil.copytree(tmp_path / "copy", server.store)
        publishing = asyncio.ensure_future(log.publish(drafts(2, of="last ")))
        server.start()

        publication = await publishing

        assert latest < window.first_number == publication.receipt.first
        assert epoch != window.epoch == publication.receipt.epoch
        assert [message.payload for message in publication.messages] == payloads(window)


async def test_a_write_to_an_old_copy_is_refused_before_a_number_is_used(server: NatsServer, tmp_path: Path) -> None:
    """Writing may be what finds the server first: nobody has read the state of the stream since."""
    writer = engine(server.url)
    await writer.connect()
    state = await writer.state(None)
    server.kill()
    shutil.copytree(server.store, tmp_path / "copy")
    server.start()
    stored = await written(writer, "one", seen=Seen(state.epoch, state.latest, 0))
    server.kill()
    shutil.rmtree(server.store)
    shutil.copytree(tmp_path / "copy", server.store)
    server.start()

    with pytest.raises(LogUnavailable, match="a new epoch has begun"):
        await written(writer, "two", seen=Seen(state.epoch, stored.receipt.first, 0))

    info = await api(server.url, "STREAM.INFO.*")
    assert 0 == info["state"]["messages"]
    assert stored.receipt.first < info["config"]["first_seq"]
    await writer.close()


async def test_a_write_does_not_wait_for_the_state(url: str) -> None:
    """Clients that come with a position ahead of this node ask for the state."""
    node = engine(url)
    await node.connect()
    state = await node.state(None)
    seen = Seen(state.epoch, state.latest, 0)
    states = [asyncio.create_task(node.state(seen)) for _ in range(100)]
    await asyncio.wait(states, return_when=asyncio.FIRST_COMPLETED)

    await written(node, "key", seen=seen)

    assert not all(each.done() for each in states)
    await asyncio.gather(*states)
    await node.close()


async def test_a_killed_server_loses_and_repeats_nothing(server: NatsServer) -> None:
    async with node(server.url) as (log, window):
        epoch = window.epoch
        publishes = [
            asyncio.ensure_future(log.publish(drafts(1, of=f"{index} "), idempotency_key=f"key {index}"))
            for index in range(400)
        ]
        await until_reached(window, window.first_number + 20)
        server.kill()
        await until(lambda: log.unavailable)
        unavailable = log.unavailable
        server.start()

        publications = await asyncio.gather(*publishes)
        again = [await log.publish(drafts(1, of=f"{index} "), idempotency_key=f"key {index}") for index in range(400)]

        assert f"{server.url} cannot be reached" == unavailable
        assert epoch == window.epoch
        assert {each.receipt.first for each in publications} == {*range(window.first_number, window.latest + 1)}
        assert [each.receipt for each in publications] == [each.receipt for each in again]
        assert 400 == len(window)
        assert all(each.repeated for each in again)
        assert not any(each.repeated for each in publications)


async def test_a_server_that_hangs_makes_the_log_unavailable_until_it_continues(server: NatsServer) -> None:
    async with node(server.url) as (log, window):
        server.signal(signal.SIGSTOP)
        publishing = asyncio.ensure_future(log.publish(drafts(1)))
        await until(lambda: log.unavailable)
        server.signal(signal.SIGCONT)

        await publishing

        assert 1 == len(window)


async def test_close_waits_for_no_server_and_leaves_no_tasks(server: NatsServer) -> None:
    before = asyncio.all_tasks()
    large = [Draft.of({"type": "a", "data": "x" * 65_000}, max_bytes=65_536) for _ in range(300)]
    async with node(server.url) as (log, _):
        server.signal(signal.SIGSTOP)
        publishing = asyncio.ensure_future(log.publish(large))
        await asyncio.sleep(0)
        started = time.monotonic()
    server.signal(signal.SIGCONT)
    await asyncio.gather(publishing, return_exceptions=True)

    assert time.monotonic() - started < 4
    assert before == asyncio.all_tasks()


async def test_a_stream_without_a_leader_is_unavailable(url: str) -> None:
    async with node(url):
        info = await api(url, "STREAM.INFO.*")

    with pytest.raises(LogUnavailable, match="no leader"):
        StreamInfo.of(info | {"cluster": {"leader": ""}}, StreamAddress.of(url), Retention())


@pytest.mark.parametrize(
    ("replicas", "certain"),
    [
        ([], False),
        ([{"current": True, "active": 1}, {"current": False, "active": 0}], True),
        ([{"current": True, "active": 4 * 10**9}, {"current": True, "offline": True, "active": 1}], False),
    ],
)
async def test_a_leader_that_hears_from_no_majority_is_not_believed(
    url: str, replicas: Sequence[dict[str, Any]], *, certain: bool
) -> None:
    async with node(url):
        info = await api(url, "STREAM.INFO.*")
    info["config"]["num_replicas"] = 3

    stream = StreamInfo.of(
        info | {"cluster": {"leader": "a", "replicas": replicas}}, StreamAddress.of(f"{url}&replicas=3"), Retention()
    )

    assert certain is stream.leader_is_certain


@pytest.mark.long
async def test_a_cluster_whose_leader_is_killed_loses_nothing(tmp_path: Path) -> None:
    async with (
        nats_cluster(tmp_path) as cluster,
        node(cluster.url) as (one, first),
        node(cluster.url) as (two, second),
    ):
        epoch = first.epoch
        publishes = [
            asyncio.ensure_future(log.publish(drafts(2, of=f"{index} "), idempotency_key=f"key {index // 2}"))
            for index in range(100)
            for log in (one, two)
        ]
        await until_reached(first, first.first_number + 20)
        leader = (await api(cluster.url, "STREAM.INFO.*"))["cluster"]["leader"]
        next(server for server in cluster.servers if server.name == leader).kill()
        more = [asyncio.ensure_future(log.publish(drafts(1))) for log in (one, two) * 20]

        outcomes = await asyncio.gather(*publishes, *more, return_exceptions=True)
        published = [each for each in outcomes if isinstance(each, Publication)]
        latest = max(each.receipt.first + each.receipt.count - 1 for each in published)
        await asyncio.gather(until_reached(first, latest), until_reached(second, latest))

        assert epoch == first.epoch == second.epoch
        assert payloads(first) == payloads(second)
        assert latest == first.latest == first.first_number + 2 * 50 + 40 - 1
        assert {message.payload for each in published for message in each.messages} == {*payloads(first)}
