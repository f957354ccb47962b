"""The engines that a verification and the tests start, kill and start again."""

import asyncio
import contextlib
import json
import signal
from pathlib import Path

import asyncpg
import pytest

from engines import NatsServer, PgBouncer, PostgresServer, RedisServer, nats_cluster
from unmissed.core.errors import ConfigurationError
from unmissed.lab import engine_servers, postgres_servers
from unmissed.lab.engine_servers import NatsCluster
from unmissed.lab.process import answers
from unmissed.logs.postgres.database_address import DatabaseAddress


@pytest.mark.parametrize(("persistent", "kept"), [(True, b"$1"), (False, b"$-1")])
def test_redis_keeps_what_it_acknowledged_only_if_it_is_persistent(
    persistent: bool,  # noqa: FBT001  # a parameter of the test
    kept: bytes,
    tmp_path: Path,
) -> None:
    with RedisServer(tmp_path, persistent=persistent) as redis:
        assert answers(redis.port, b"SET key 1\r\n", expected=b"+OK")

        redis.kill()
        assert not answers(redis.port, b"PING\r\n", expected=b"+PONG")
        redis.start()

        assert answers(redis.port, b"GET key\r\n", expected=kept)
        assert redis.leader() is None


async def create_stream(url: str, *, replicas: int) -> dict[str, object]:
    """Create a stream with the protocol of NATS, and return the answer."""
    address, port = url.removeprefix("nats://").split("?")[0].split(",")[0].split(":")
    reader, writer = await asyncio.open_connection(address, int(port))
    body = json.dumps({"name": "messages", "subjects": ["messages"], "num_replicas": replicas}).encode()
    subject = b"$JS.API.STREAM.CREATE.messages"
    writer.write(
        b'CONNECT {"verbose":false}\r\nSUB answer 1\r\nPUB %b answer %d\r\n%b\r\n' % (subject, len(body), body)
    )
    while not (await reader.readline()).startswith(b"MSG answer"):
        pass
    answer: dict[str, object] = json.loads(await reader.readline())
    writer.close()
    return answer


@pytest.mark.long
async def test_the_leader_of_a_stream_is_found_and_replaced_when_it_is_killed(tmp_path: Path) -> None:
    async with asyncio.timeout(100), nats_cluster(tmp_path) as cluster:
        answer = await create_stream(cluster.url, replicas=3)
        assert "error" not in answer, answer
        leader = await leader_of(cluster, other_than=None)
        cluster.servers[leader].kill()

        assert leader != await leader_of(cluster, other_than=leader)
        await cluster.servers[leader].launch()


async def leader_of(cluster: NatsCluster, *, other_than: int | None) -> int:
    """Wait for an election."""
    while (leader := await asyncio.to_thread(cluster.leader)) in (None, other_than):
        await asyncio.sleep(0.05)
    assert leader is not None
    return leader


async def test_one_nats_server_has_no_leader_of_a_cluster(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as nats:
        assert "error" not in await create_stream(nats.url, replicas=1)

        assert nats.leader() is None
        assert "replicas" not in nats.url
        assert [nats] == [*nats.servers]


async def test_postgres_keeps_what_it_committed(tmp_path: Path) -> None:
    with PostgresServer(tmp_path) as postgres:
        connection = await asyncpg.connect(postgres.url)
        await connection.execute("CREATE TABLE kept (value integer); INSERT INTO kept VALUES (7)")
        open_connection = await asyncpg.connect(postgres.url)

        postgres.kill()
        with pytest.raises((OSError, asyncpg.PostgresError)):
            await asyncpg.connect(postgres.url)
        assert not processes_of(postgres)
        postgres.start()

        again = await asyncpg.connect(postgres.url)
        assert 7 == await again.fetchval("SELECT value FROM kept")
        for each in (connection, open_connection, again):
            each.terminate()


def processes_of(postgres: PostgresServer) -> list[int]:
    """Return the processes in the folder of a server."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").resolve() == postgres.data:
                found.append(int(process.name))
    return found


async def test_postgres_does_not_answer_while_it_is_suspended(tmp_path: Path) -> None:
    with PostgresServer(tmp_path) as postgres:
        connection = await asyncpg.connect(postgres.url)
        postgres.signal(signal.SIGSTOP)
        answer = asyncio.create_task(connection.fetchval("SELECT 7"))
        done, _ = await asyncio.wait([answer], timeout=0.2)
        assert not done

        postgres.signal(signal.SIGCONT)

        assert 7 == await answer
        connection.terminate()


async def test_pgbouncer_shares_few_connections(tmp_path: Path) -> None:
    with PostgresServer(tmp_path) as postgres, PgBouncer(tmp_path, postgres, pool_size=2) as bouncer:
        address = DatabaseAddress.of(bouncer.url)
        connections = [await asyncpg.connect(address.dsn, statement_cache_size=0) for _ in range(10)]

        backends = [await each.fetchval("SELECT pg_backend_pid()") for each in connections]

        assert len({*backends}) <= 2
        assert not address.notify
        assert [postgres, bouncer] == [*bouncer.servers]
        for each in connections:
            each.terminate()


def test_a_missing_program_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ConfigurationError, match="there is no redis-server on the PATH: install redis-server"):
        engine_servers.RedisServer(tmp_path)
    with pytest.raises(ConfigurationError, match="there is no nats-server on the PATH: install nats-server"):
        engine_servers.NatsServer(tmp_path)
    with pytest.raises(ConfigurationError, match="there is no pgbouncer on the PATH: install pgbouncer"):
        postgres_servers.PgBouncer.path()


def test_a_missing_database_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(Path, "glob", lambda *_: iter(()))

    with pytest.raises(ConfigurationError, match="on the PATH or in /usr/lib/postgresql: install postgresql"):
        postgres_servers.PostgresServer(tmp_path)
