"""PostgreSQL: what transactions publish, restarts, copies of the data, and what a node sees of them."""

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import asyncpg
import pytest

from engines import PgBouncer, PostgresServer
from places import Place
from support import until
from unit.logs.test_base import RecordingListener, drafts, numbers, until_reached
from unmissed.core.errors import ConfigurationError, LogUnavailable
from unmissed.core.receipts import Receipt
from unmissed.core.retention import Retention
from unmissed.core.window import Outcome, Window
from unmissed.lab.postgres_servers import installed
from unmissed.logs.base import Log
from unmissed.logs.engine import Seen
from unmissed.logs.postgres.database_address import DatabaseAddress
from unmissed.logs.postgres.engine import PostgresEngine
from unmissed.logs.writer import Stored, Write

pytestmark = pytest.mark.live

EMPTY_ALL = """
    DO $$ DECLARE name text; BEGIN
        FOR name IN SELECT format('unmissed.%I', tablename) FROM pg_tables WHERE schemaname = 'unmissed' LOOP
            EXECUTE 'TRUNCATE ' || name;
        END LOOP;
    END $$
"""


@pytest.fixture
async def server(postgres_server: PostgresServer) -> PostgresServer:
    """Return the PostgreSQL that all tests of this process share, without a log."""
    async with connection_to(postgres_server) as connection:
        await connection.execute("DROP SCHEMA IF EXISTS unmissed CASCADE")
    return postgres_server


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[PostgresServer]:
    """Return a PostgreSQL of this test alone, which it may kill, or change for all."""
    with PostgresServer(tmp_path) as server:
        yield server


@pytest.fixture
async def places() -> AsyncIterator[list[Place]]:
    """Return a list for the places that are to be closed at the end of the test."""
    places: list[Place] = []
    yield places
    for place in places:
        await place.close_all()


@pytest.fixture
async def connections() -> AsyncIterator[list[asyncpg.Connection]]:
    """Return a list for the connections of applications that are to be closed at the end of the test."""
    connections: list[asyncpg.Connection] = []
    yield connections
    for connection in connections:
        connection.terminate()


def at(url: str, places: list[Place]) -> Place:
    places.append(Place(url))
    return places[-1]


async def connected(server: PostgresServer, connections: list[asyncpg.Connection]) -> asyncpg.Connection:
    connections.append(await asyncpg.connect(server.url))
    return connections[-1]


async def publish(connection: asyncpg.Connection, *data: object, name: str = "unmissed") -> None:
    """Publish on a connection, in its transaction if there is one."""
    for each in data:
        await connection.execute(f"SELECT {name}.publish('order', $1::jsonb)", json.dumps(each))


def data_in(window: Window) -> list[object]:
    return [message.data for message in window]


async def until_it_has(window: Window, *data: object) -> None:
    await until(lambda: [*data] == data_in(window))


async def until_available(log: Log) -> None:
    await until(lambda: log.unavailable is None)


async def until_unavailable(log: Log) -> str:
    await until(lambda: log.unavailable)
    return str(log.unavailable)


async def test_what_a_transaction_publishes_arrives_when_it_commits(
    server: PostgresServer, places: list[Place], connections: list[asyncpg.Connection]
) -> None:
    log, window = await at(server.url, places).open()
    first, second = await connected(server, connections), await connected(server, connections)

    async with first.transaction():
        await publish(first, "committed later", "and this")
        async with second.transaction():
            await publish(second, "committed first")
        await until_it_has(window, "committed first")
        await log.publish(drafts(1))
    await until_it_has(window, "committed first", "0", "committed later", "and this")

    assert [*range(window.first_number, window.first_number + 4)] == numbers([*window])


async def test_what_is_rolled_back_never_existed(
    server: PostgresServer, places: list[Place], connections: list[asyncpg.Connection]
) -> None:
    _, window = await at(server.url, places).open()
    connection = await connected(server, connections)

    outer = connection.transaction()
    await outer.start()
    await publish(connection, "kept")
    inner = connection.transaction()
    await inner.start()
    await publish(connection, "back to the savepoint")
    await inner.rollback()
    await outer.commit()
    lost = connection.transaction()
    await lost.start()
    await publish(connection, "rolled back")
    await lost.rollback()
    await publish(connection, "last")

    await until_it_has(window, "kept", "last")


async def test_a_prepared_transaction_arrives_with_its_commit(
    server: PostgresServer, places: list[Place], connections: list[asyncpg.Connection]
) -> None:
    _, window = await at(server.url, places).open()
    connection = await connected(server, connections)

    await connection.execute("BEGIN")
    await publish(connection, "prepared")
    await connection.execute("PREPARE TRANSACTION 'order'")
    await publish(connection, *range(300))
    await until(lambda: 300 == len(window))
    await connection.execute("COMMIT PREPARED 'order'")

    await until_it_has(window, *range(300), "prepared")


async def test_a_publish_follows_what_was_committed_before_it(
    server: PostgresServer, places: list[Place], connections: list[asyncpg.Connection]
) -> None:
    """Also if one pass takes only a part of it."""
    log, window = await at(server.url, places).open()
    connection = await connected(server, connections)

    async with connection.transaction():
        await publish(connection, *range(700))
    publication = await log.publish(drafts(1))

    assert window.first_number + 700 == publication.receipt.first


async def test_a_large_transaction_arrives_whole_and_in_order(
    server: PostgresServer, places: list[Place], connections: list[asyncpg.Connection]
) -> None:
    _, window = await at(server.url, places).open()
    connection = await connected(server, connections)

    await connection.execute("SELECT unmissed.publish('order', to_jsonb(id)) FROM generate_series(1, 5000) AS id")
    await until_reached(window, window.first_number + 4_999)

    assert [*range(4_501, 5_001)] == data_in(window)


async def test_a_leader_that_has_stopped_is_replaced(
    server: PostgresServer, places: list[Place], connections: list[asyncpg.Connection]
) -> None:
    _, window = await at(server.url, places).open()
    connection = await connected(server, connections)

    # As a node does that is stopped at once.
    await until_it_has(window)
    await connection.execute(
        "INSERT INTO unmissed.lease VALUES (true, 'stopped', extract(epoch FROM clock_timestamp()) * 1000 + 800) "
        "ON CONFLICT (one) DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms"
    )
    await publish(connection, "late")

    await until_it_has(window, "late")


async def test_a_lease_from_the_future_is_none(
    server: PostgresServer, places: list[Place], connections: list[asyncpg.Connection]
) -> None:
    """As after the clock of the server was set back."""
    _, window = await at(server.url, places).open()
    connection = await connected(server, connections)

    await connection.execute("UPDATE unmissed.lease SET holder = 'other', until_ms = until_ms + 86400000")
    await publish(connection, "on time")

    await until_it_has(window, "on time")


async def test_a_restart_loses_nothing_and_uses_higher_numbers(own_server: PostgresServer, places: list[Place]) -> None:
    log, window = await at(own_server.url, places).open()
    listener = RecordingListener()
    log.subscribe(listener)
    first = await log.publish(drafts(3), idempotency_key="key")

    own_server.kill()
    waiting = asyncio.ensure_future(log.publish(drafts(1)))
    await until_unavailable(log)
    own_server.start()
    second = await waiting
    again = await log.publish(drafts(3), idempotency_key="key")

    assert first.receipt.epoch == second.receipt.epoch == window.epoch
    assert first.receipt.first + 3 < second.receipt.first == window.latest
    assert Outcome.COMPLETE is window.locate(first.receipt.first - 1).outcome
    assert first.receipt == again.receipt
    assert "restart" not in listener.calls


@pytest.mark.long
async def test_an_older_copy_begins_an_epoch(tmp_path: Path, own_server: PostgresServer, places: list[Place]) -> None:
    """A node that has read what the copy does not have reports it, and no number is used twice."""
    log, window = await at(own_server.url, places).open()
    other, other_window = await at(own_server.url, places).open()
    await log.publish(drafts(3))
    copy_of(own_server, tmp_path / "copy")
    lost = await log.publish(drafts(2, of="lost"))
    await until_reached(other_window, lost.receipt.first + 1)

    restore(own_server, tmp_path / "copy")
    new = await other.publish(drafts(1, of="new"))

    assert lost.receipt.epoch != new.receipt.epoch
    assert lost.receipt.first + 1 < new.receipt.first
    await until(lambda: window.epoch == new.receipt.epoch)
    assert Outcome.RESET is window.locate(lost.receipt.first).outcome


@pytest.mark.long
async def test_an_older_copy_without_a_node_uses_no_number_twice(
    tmp_path: Path, own_server: PostgresServer, places: list[Place]
) -> None:
    place = at(own_server.url, places)
    log, _ = await place.open()
    await log.publish(drafts(3))
    copy_of(own_server, tmp_path / "copy")
    lost = await log.publish(drafts(50))
    await place.close(log)

    restore(own_server, tmp_path / "copy")
    log, _ = await place.open()
    new = await log.publish(drafts(1))

    assert lost.receipt.first + 50 < new.receipt.first


@pytest.mark.long
async def test_a_standby_that_has_everything_continues_the_epoch(
    tmp_path: Path, own_server: PostgresServer, places: list[Place]
) -> None:
    with standby_of(own_server, tmp_path) as standby:
        log, window = await at(either(own_server, standby), places).open()
        listener = RecordingListener()
        log.subscribe(listener)
        first = await log.publish(drafts(3))
        await until_replayed(own_server, standby)

        own_server.kill()
        await promote(standby)
        second = await log.publish(drafts(1))

        assert first.receipt.epoch == second.receipt.epoch
        assert first.receipt.first + 3 < second.receipt.first
        assert 4 == len(window)
        assert "restart" not in listener.calls
        await places[0].close_all()


@pytest.mark.long
async def test_a_standby_that_lacks_messages_begins_an_epoch(
    tmp_path: Path, own_server: PostgresServer, places: list[Place]
) -> None:
    with standby_of(own_server, tmp_path) as standby:
        log, _ = await at(either(own_server, standby), places).open()
        await log.publish(drafts(3))
        await until_replayed(own_server, standby)
        standby.kill()
        first = await log.publish(drafts(3))

        own_server.kill()
        standby.start()
        await promote(standby)
        second = await log.publish(drafts(1))

        assert first.receipt.epoch != second.receipt.epoch
        assert first.receipt.first + 2 < second.receipt.first
        await places[0].close_all()


@pytest.mark.long
async def test_a_standby_begins_an_epoch_if_no_node_has_read_the_primary(
    tmp_path: Path, own_server: PostgresServer, places: list[Place]
) -> None:
    """A copy cannot vouch for itself, and neither can a node that knows nothing but the copy."""
    with standby_of(own_server, tmp_path) as standby:
        place = at(either(own_server, standby), places)
        log, _ = await place.open()
        first = await log.publish(drafts(3))
        await until_replayed(own_server, standby)
        await place.close(log)

        own_server.kill()
        await promote(standby)
        log, _ = await place.open()
        second = await log.publish(drafts(1))

        assert first.receipt.epoch != second.receipt.epoch
        assert first.receipt.first + 2 < second.receipt.first
        await place.close_all()


@pytest.mark.parametrize("damage", ["TRUNCATE unmissed.messages", "DROP SCHEMA unmissed CASCADE", EMPTY_ALL])
async def test_a_log_that_was_emptied_begins_an_epoch(damage: str, server: PostgresServer, places: list[Place]) -> None:
    log, window = await at(server.url, places).open()
    first = await log.publish(drafts(3))

    async with connection_to(server) as connection:
        await connection.execute(damage)
    second = await log.publish(drafts(1, of="new"))

    assert first.receipt.epoch != second.receipt.epoch
    assert first.receipt.first + 2 < second.receipt.first
    await until_it_has(window, "new0")


async def test_a_log_that_was_emptied_while_no_node_ran_uses_no_number_twice(
    server: PostgresServer, places: list[Place]
) -> None:
    place = at(server.url, places)
    log, _ = await place.open()
    first = await log.publish(drafts(3))
    await place.close(log)

    async with connection_to(server) as connection:
        await connection.execute("TRUNCATE unmissed.messages")
    log, _ = await place.open()
    second = await log.publish(drafts(1))

    assert first.receipt.epoch != second.receipt.epoch
    assert first.receipt.first + 2 < second.receipt.first


async def test_a_lock_that_is_held_is_reported_and_ends(
    server: PostgresServer, places: list[Place], connections: list[asyncpg.Connection]
) -> None:
    """As by somebody who looks at the table in psql. Transactions commit all the same."""
    log, window = await at(server.url, places).open()
    person, connection = await connected(server, connections), await connected(server, connections)

    async with person.transaction():
        await person.execute("SELECT * FROM unmissed.life FOR UPDATE")
        await publish(connection, "committed")
        waiting = asyncio.ensure_future(log.publish(drafts(1)))
        assert "lock timeout" in await until_unavailable(log)
    await waiting

    await until_it_has(window, "committed", "0")


async def test_a_publish_that_is_tried_again_is_stored_once(server: PostgresServer) -> None:
    engine = engine_at(server.url)
    await engine.connect()
    state = await engine.state(None)
    seen = Seen(state.epoch, state.latest, 0)
    done = asyncio.get_running_loop().create_future()
    writes = [Write(drafts(2), key, b"fingerprint", done) for key in (None, "-:key")]

    first = await stored(engine, writes, seen)
    again = await stored(engine, writes, seen)

    assert [state.latest + 1, state.latest + 3] == [receipt.first for receipt in first]
    assert first == again
    assert state.latest + 4 == (await engine.state(seen)).latest
    await engine.close()


async def test_notes_reach_every_node_in_order(server: PostgresServer) -> None:
    engines = [engine_at(server.url) for _ in range(2)]
    for engine in engines:
        await engine.connect()
    listeners = [engine.receive() for engine in engines]
    assert [b"", b""] == [await anext(listener) for listener in listeners]

    for number in range(100):
        await engines[number % 2].send(b"%d" % number)

    for listener in listeners:
        assert [b"%d" % number for number in range(100)] == [await anext(listener) for _ in range(100)]
        await listener.aclose()
    for engine in engines:
        await engine.close()


async def test_notes_end_with_the_connection(own_server: PostgresServer) -> None:
    engine = engine_at(own_server.url)
    await engine.connect()
    notes = engine.receive()
    await anext(notes)

    own_server.kill()
    with pytest.raises(LogUnavailable):
        await anext(notes)
    await engine.close()


async def test_a_role_that_prefers_another_isolation_can_own_a_log(
    own_server: PostgresServer, places: list[Place]
) -> None:
    async with connection_to(own_server) as connection:
        await connection.execute("ALTER ROLE unmissed SET default_transaction_isolation = 'repeatable read'")

    log, window = await at(own_server.url, places).open()
    await log.publish(drafts(2))

    assert 2 == len(window)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("COMMENT ON SCHEMA unmissed IS 'unmissed log format 2'", "newer version of unmissed .*: update this node"),
        ("COMMENT ON SCHEMA unmissed IS 'unmissed log format 0'", "older version .* DROP SCHEMA"),
        ("COMMENT ON SCHEMA unmissed IS 'unmissed outbox format 1'", "is of an outbox, not of a log: choose another"),
        ("COMMENT ON SCHEMA unmissed IS NULL", "belongs to another program: choose another"),
    ],
)
async def test_the_schema_of_another_is_refused(
    change: str, error: str, server: PostgresServer, places: list[Place]
) -> None:
    place = at(server.url, places)
    log, _ = await place.open()
    await place.close(log)
    async with connection_to(server) as connection:
        await connection.execute(change)

    with pytest.raises(ConfigurationError, match=error):
        await place.open()


async def test_a_role_without_rights_learns_what_to_grant(own_server: PostgresServer, places: list[Place]) -> None:
    async with connection_to(own_server) as connection:
        await connection.execute("CREATE ROLE clerk LOGIN")

    with pytest.raises(ConfigurationError, match=r"permission denied .* GRANT CREATE ON DATABASE"):
        await at(own_server.url.replace("unmissed@", "clerk@"), places).open()


async def test_a_database_that_does_not_exist_is_refused(server: PostgresServer, places: list[Place]) -> None:
    with pytest.raises(ConfigurationError, match='database "shop" does not exist'):
        await at(server.url.replace("/postgres", "/shop"), places).open()


async def test_a_log_works_behind_pgbouncer(
    tmp_path: Path, server: PostgresServer, places: list[Place], connections: list[asyncpg.Connection]
) -> None:
    with PgBouncer(tmp_path, server) as bouncer:
        place = at(bouncer.url, places)
        nodes = [await place.open() for _ in range(3)]
        connection = await connected(server, connections)

        for number in range(30):
            await nodes[number % 3][0].publish(drafts(1, of=f"{number} "))
        await publish(connection, "last")

        for _, window in nodes:
            await until_it_has(window, *(f"{number} 0" for number in range(30)), "last")
        await place.close_all()


async def stored(engine: PostgresEngine, writes: Sequence[Write], seen: Seen) -> list[Receipt]:
    return [result.receipt for result in await engine.write(writes, seen) if isinstance(result, Stored)]


async def test_a_pooler_without_its_option_is_reported(
    tmp_path: Path, server: PostgresServer, places: list[Place]
) -> None:
    refused = pytest.raises(ConfigurationError, match=r"behind PgBouncer, add \?notify=false")
    with PgBouncer(tmp_path, server) as bouncer, refused:
        await at(bouncer.url.partition("?")[0], places).open()


def engine_at(url: str) -> PostgresEngine:
    return PostgresEngine(DatabaseAddress.of(url), retention=Retention(), first_number=None, max_message_bytes=65_536)


def copy_of(server: PostgresServer, copy: Path) -> None:
    """Copy the files of a server, which is stopped for this, as a snapshot of its volume."""
    server.kill()
    shutil.copytree(server.data, copy)
    server.start()


def restore(server: PostgresServer, copy: Path) -> None:
    """Replace the files of a server with an older copy."""
    server.kill()
    server.restore(copy)
    server.start()


@contextlib.contextmanager
def standby_of(server: PostgresServer, folder: Path) -> Iterator[PostgresServer]:
    """Run a server that replicates another one."""
    copy = folder / "standby"
    command = [installed("pg_basebackup"), "-D", str(copy), "-R", "-X", "stream", "-d", server.url, "--checkpoint=fast"]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603  # our own command
    with PostgresServer(folder, copy=copy) as standby:
        yield standby


def either(server: PostgresServer, standby: PostgresServer) -> str:
    """Return the URL of whichever is the primary."""
    return server.url.replace(f":{server.port}/", f":{server.port},127.0.0.1:{standby.port}/")


async def promote(standby: PostgresServer) -> None:
    async with connection_to(standby) as connection:
        await connection.execute("SELECT pg_promote()")


async def until_replayed(server: PostgresServer, standby: PostgresServer) -> None:
    """Wait until a standby has what its primary has written."""
    async with connection_to(server) as connection:
        written = await connection.fetchval("SELECT pg_current_wal_lsn()::text")
    async with connection_to(standby) as connection:
        reached = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn"
        while not await connection.fetchval(reached, written):
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def connection_to(server: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(server.url)
    yield connection
    await connection.close()
