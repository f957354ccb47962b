"""The fault proxy: each fault does to a connection what its name says, and to no byte that arrives."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from unmissed.verify.proxy import ConnectionFault, Fault, FaultProxy, drawn

CONTENT = bytes(range(256)) * 40


@asynccontextmanager
async def proxied(plan: ConnectionFault | None, *, notes: list[str] | None = None) -> AsyncIterator[FaultProxy]:
    """Run a proxy before a server that sends its content, and then back what it receives."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(CONTENT)
            while data := await reader.read(1_000):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    upstream = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = upstream.sockets[0].getsockname()[1]
    note = (lambda _: None) if notes is None else notes.append
    async with upstream, FaultProxy("127.0.0.1", port, draw=lambda: plan, note=note).serving() as proxy:
        yield proxy


@asynccontextmanager
async def connection(proxy: FaultProxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.close()


def plan(fault: Fault, *, after: int = 1_000, seconds: float = 0.01, upwards: bool = False) -> ConnectionFault:
    return ConnectionFault(fault, upwards, after, seconds)


@pytest.mark.parametrize("suffered", [None, plan(Fault.LATENCY), plan(Fault.SLICES), plan(Fault.STALL)], ids=str)
async def test_a_fault_that_ends_no_connection_changes_no_byte(suffered: ConnectionFault | None) -> None:
    async with proxied(suffered) as proxy, connection(proxy) as (reader, writer):
        writer.write(b"ping")

        assert CONTENT + b"ping" == await reader.readexactly(len(CONTENT) + 4)


async def test_a_cut_ends_the_connection_after_a_number_of_bytes() -> None:
    notes: list[str] = []

    async with proxied(plan(Fault.CUT), notes=notes) as proxy, connection(proxy) as (reader, _):
        assert CONTENT[:1_000] == await reader.read(-1)
    assert ["cut"] == notes


async def test_a_reset_ends_the_connection_without_an_end_of_the_stream() -> None:
    async with proxied(plan(Fault.RESET, after=1)) as proxy, connection(proxy) as (reader, _):
        with pytest.raises(ConnectionResetError):
            await reader.read(-1)


async def test_a_cut_upwards_lets_the_answer_through() -> None:
    async with proxied(plan(Fault.CUT, after=2, upwards=True)) as proxy, connection(proxy) as (reader, writer):
        await reader.readexactly(len(CONTENT))
        writer.write(b"ping")

        assert b"" == (await reader.read(-1)).strip(b"pi")


async def test_a_calm_proxy_has_reset_its_connections_and_causes_no_fault() -> None:
    async with proxied(plan(Fault.CUT, after=len(CONTENT) + 1)) as proxy:
        async with connection(proxy) as (reader, _):
            await reader.readexactly(len(CONTENT))
            proxy.calm()
            with pytest.raises(ConnectionResetError):
                await reader.read(1)

        async with connection(proxy) as (reader, writer):
            writer.write(b"ping")
            assert CONTENT + b"ping" == await reader.readexactly(len(CONTENT) + 4)


async def test_a_partition_holds_everything_back_and_loses_nothing() -> None:
    async with proxied(None) as proxy:
        partition = asyncio.create_task(proxy.partition(0.05))
        await asyncio.sleep(0)
        async with connection(proxy) as (reader, _):
            assert CONTENT == await reader.readexactly(len(CONTENT))
            assert partition.done()


async def test_without_a_server_the_connection_is_reset() -> None:
    async with FaultProxy("127.0.0.1", 1, draw=lambda: None).serving() as proxy, connection(proxy) as (reader, _):
        with pytest.raises(ConnectionResetError):
            await reader.read(1)


def test_the_same_seed_draws_the_same_fates_and_every_fault() -> None:
    first, second = ([drawn(random.Random(seed)) for seed in range(200)] for _ in range(2))

    assert first == second
    assert {None, *Fault} == {each and each.fault for each in first}
