"""The fault proxy: each fault does to a connection what its name says, and to no byte that arrives."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from unmissed.lab.faults import ConnectionFault, NetworkFault
from unmissed.lab.proxy import FaultProxy, WebSocketSupport

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


def plan(
    fault: NetworkFault,
    *,
    after: int = 1_000,
    seconds: float = 0.01,
    upwards: bool = False,
    cut_after: int | None = None,
) -> ConnectionFault:
    return ConnectionFault(fault, upwards, after, seconds, slice_bytes=3, cut_after=cut_after)


@pytest.mark.parametrize(
    "suffered", [None, plan(NetworkFault.LATENCY), plan(NetworkFault.SLICES), plan(NetworkFault.STALL)], ids=str
)
async def test_a_fault_that_ends_no_connection_changes_no_byte(suffered: ConnectionFault | None) -> None:
    async with proxied(suffered) as proxy, connection(proxy) as (reader, writer):
        writer.write(b"ping")

        assert CONTENT + b"ping" == await reader.readexactly(len(CONTENT) + 4)


async def test_a_cut_ends_the_connection_after_a_number_of_bytes() -> None:
    notes: list[str] = []

    async with proxied(plan(NetworkFault.CUT), notes=notes) as proxy, connection(proxy) as (reader, _):
        assert CONTENT[:1_000] == await reader.read(-1)
    assert ["cut"] == notes


async def test_a_reset_ends_the_connection_without_an_end_of_the_stream() -> None:
    async with proxied(plan(NetworkFault.RESET, after=1)) as proxy, connection(proxy) as (reader, _):
        with pytest.raises(ConnectionResetError):
            await reader.read(-1)


async def test_a_cut_upwards_lets_the_answer_through() -> None:
    async with proxied(plan(NetworkFault.CUT, after=2, upwards=True)) as proxy, connection(proxy) as (reader, writer):
        await reader.readexactly(len(CONTENT))
        writer.write(b"ping")

        assert b"" == (await reader.read(-1)).strip(b"pi")


async def test_a_calm_proxy_has_reset_its_connections_and_causes_no_fault() -> None:
    async with proxied(plan(NetworkFault.CUT, after=len(CONTENT) + 1)) as proxy:
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
    async with FaultProxy("127.0.0.1", 1).serving() as proxy, connection(proxy) as (reader, _):
        with pytest.raises(ConnectionResetError):
            await reader.read(1)


@pytest.mark.parametrize("fault", [NetworkFault.LATENCY, NetworkFault.SLICES, NetworkFault.STALL])
async def test_a_connection_may_suffer_a_fault_and_then_be_cut(fault: NetworkFault) -> None:
    notes: list[str] = []

    async with proxied(plan(fault, cut_after=3_000), notes=notes) as proxy, connection(proxy) as (reader, _):
        assert CONTENT[:3_000] == await reader.read(-1)
    assert [fault] == notes
    assert 1 == proxy.accepted


async def test_all_connections_can_be_cut() -> None:
    async with proxied(None) as proxy, connection(proxy) as (reader, _):
        await reader.readexactly(len(CONTENT))

        proxy.cut()

        assert b"" == await reader.read()


async def test_silence_concerns_the_open_connections_and_one_direction() -> None:
    async with proxied(None) as proxy, connection(proxy) as (silenced, writer):
        await silenced.readexactly(len(CONTENT))
        proxy.silence()
        writer.write(b"lost")

        async with connection(proxy) as (reader, other):
            other.write(b"ping")
            assert CONTENT + b"ping" == await reader.readexactly(len(CONTENT) + 4)
        proxy.cut()
        assert b"" == await silenced.read()


async def test_a_proxy_that_refuses_closes_connections_at_once() -> None:
    async with proxied(None) as proxy:
        proxy.refuses = True
        async with connection(proxy) as (reader, _):
            assert b"" == await reader.read()


UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Protocol: unmissed.bearer, token\r\nX-Last: 1\r\n\r\n"
)
REQUEST = b"GET /websocket/messages HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.mark.parametrize("support", [WebSocketSupport.NONE, WebSocketSupport.HANGING])
async def test_a_proxy_without_websockets_passes_other_requests(support: WebSocketSupport) -> None:
    async with proxied(None) as proxy:
        proxy.websockets = support
        async with connection(proxy) as (reader, writer):
            writer.write(REQUEST)
            assert CONTENT + REQUEST == await reader.readexactly(len(CONTENT) + len(REQUEST))


async def test_a_proxy_that_knows_no_websockets_ends_a_connection_for_one() -> None:
    async with proxied(None) as proxy:
        proxy.websockets = WebSocketSupport.NONE
        async with connection(proxy) as (reader, writer):
            writer.write(UPGRADE)
            assert b"" == await reader.read()


async def test_a_proxy_that_hangs_on_websockets_answers_nothing_until_the_client_leaves() -> None:
    async with proxied(None) as proxy:
        proxy.websockets = WebSocketSupport.HANGING
        async with connection(proxy) as (reader, writer):
            writer.write(UPGRADE)
            async with connection(proxy) as (other, request):
                request.write(REQUEST)
                await other.readexactly(len(CONTENT) + len(REQUEST))
            assert not reader.at_eof()

            writer.write_eof()
            assert b"" == await reader.read()


async def test_a_proxy_may_remove_the_subprotocols_alone() -> None:
    async with proxied(None) as proxy:
        proxy.websockets = WebSocketSupport.WITHOUT_SUBPROTOCOLS
        async with connection(proxy) as (reader, writer):
            writer.write(UPGRADE)
            rest = UPGRADE.replace(b"Sec-WebSocket-Protocol: unmissed.bearer, token\r\n", b"")
            assert CONTENT + rest == await reader.readexactly(len(CONTENT) + len(rest))
