"""The engines that a verification starts, kills and starts again."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from support import until
from unmissed.core.errors import ConfigurationError
from unmissed.verify.engines import Engine, Nats, Redis
from unmissed.verify.processes import answers

redis_only = pytest.mark.skipif(not shutil.which("redis-server"), reason="needs redis-server")
nats_only = pytest.mark.skipif(not shutil.which("nats-server"), reason="needs nats-server")


async def started(engine: Engine) -> None:
    await asyncio.gather(*(process.start() for process in engine.processes))


def end(engine: Engine) -> None:
    for process in engine.processes:
        process.end()


@redis_only
@pytest.mark.parametrize(("persistent", "kept"), [(True, b"$1"), (False, b"$-1")])
async def test_redis_keeps_what_it_acknowledged_only_if_it_is_persistent(
    persistent: bool,  # noqa: FBT001  # a parameter of the test
    kept: bytes,
    tmp_path: Path,
) -> None:
    engine = Redis(tmp_path, persistent=persistent)
    port = int(engine.url.removeprefix("redis://127.0.0.1:").removesuffix("/0"))
    try:
        await started(engine)
        assert await answers(port, b"SET key 1\r\n", expected=b"+OK")
        [process] = engine.processes

        await process.kill()
        assert not await answers(port, b"PING\r\n", expected=b"+PONG")
        await process.start()

        assert await answers(port, b"GET key\r\n", expected=kept)
        assert await engine.leader() is None
    finally:
        end(engine)


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
@nats_only
async def test_the_leader_of_a_stream_is_found_and_replaced_when_it_is_killed(tmp_path: Path) -> None:
    engine = Nats(tmp_path, size=3)
    try:
        async with asyncio.timeout(50):
            await started(engine)
            answer = await create_stream(engine.url, replicas=3)
            assert "error" not in answer, answer
            leader = await leader_of(engine, other_than=None)
            await engine.processes[leader].kill()

            assert leader != await leader_of(engine, other_than=leader)
            await engine.processes[leader].start()
    finally:
        end(engine)


async def leader_of(engine: Nats, *, other_than: int | None) -> int:
    """Wait for an election."""
    found = list[int | None]()

    async def elected() -> bool:
        found.append(await engine.leader())
        return found[-1] not in (None, other_than)

    await until(elected)
    assert found[-1] is not None
    return found[-1]


@nats_only
async def test_one_nats_server_has_no_leader_of_a_cluster(tmp_path: Path) -> None:
    engine = Nats(tmp_path, size=1)
    try:
        await started(engine)
        assert "error" not in await create_stream(engine.url, replicas=1)

        assert "replicas" not in engine.url
        assert 1 == len(engine.processes)
    finally:
        end(engine)


def test_a_missing_program_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ConfigurationError, match="there is no redis-server on the PATH: install redis-server"):
        Redis(tmp_path, persistent=True)
    with pytest.raises(ConfigurationError, match="there is no nats-server on the PATH: install nats-server"):
        Nats(tmp_path, size=1)
