"""Spans of OpenTelemetry for publishes and recoveries."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from support import ALICE, ManualLog, connect, managed, nth
from unit.api.conftest import headers
from unmissed import (
    ConfigurationError,
    ConnectionManager,
    IdempotencyConflict,
    InvalidMessage,
    LogUnavailable,
    Settings,
    create_app,
)
from unmissed.core.errors import TooManyConnections
from unmissed.testing import SECRET, ManualClock

OWN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET_TEXT = "a text that no span may have"


@pytest.fixture(scope="module")
def exporter() -> Iterator[InMemorySpanExporter]:
    """Return what collects the spans.

    OpenTelemetry sets a provider for good. With one, FastAPI records every request, also those of other tests.
    """
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "_TRACER_PROVIDER", provider)
        yield exporter
    provider.shutdown()


@pytest.fixture(autouse=True)
def spans(exporter: InMemorySpanExporter) -> InMemorySpanExporter:
    exporter.clear()
    return exporter


@pytest.fixture
async def traced(clock: ManualClock) -> AsyncIterator[ConnectionManager]:
    async with managed(clock, trace=True) as manager:
        yield manager


def the_span(spans: InMemorySpanExporter) -> ReadableSpan:
    [span] = spans.get_finished_spans()
    return span


def own(spans: InMemorySpanExporter) -> list[ReadableSpan]:
    """Return the spans of this package: FastAPI records requests."""
    return [span for span in spans.get_finished_spans() if span.name.startswith("unmissed ")]


def facts(span: ReadableSpan) -> dict[str, Any]:
    return {name.removeprefix("unmissed."): value for name, value in (span.attributes or {}).items()}


def continuation_of(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


async def test_a_publish_is_a_span_that_its_message_continues(
    traced: ConnectionManager, spans: InMemorySpanExporter
) -> None:
    socket, _ = connect(traced)

    message = await traced.publish(
        {"type": "shipped", "data": SECRET_TEXT}, topics=["orders.42", "orders"], users=["alice"]
    )

    span = the_span(spans)
    assert ("unmissed publish", SpanKind.PRODUCER, StatusCode.UNSET) == (span.name, span.kind, span.status.status_code)
    assert {
        "messaging.system": "unmissed",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.batch.message_count": 1,
        "message_type": "shipped",
        "topics": 2,
        "users": 1,
        "sequence_number": nth(1),
        "epoch": traced.window.epoch,
        "repeated": False,
    } == facts(span)
    assert continuation_of(span) == message.as_dict()["traceparent"] == socket.frames[-1]["traceparent"]
    assert SECRET_TEXT not in span.to_json()


async def test_the_traceparent_of_the_publisher_is_kept(traced: ConnectionManager, spans: InMemorySpanExporter) -> None:
    publication = await traced.publish_batch([{"type": "a", "traceparent": OWN}, {"type": "b"}])

    assert [OWN, continuation_of(the_span(spans))] == [each.as_dict()["traceparent"] for each in publication.messages]
    assert [1, 1] == [each.payload.count(b'"traceparent"') for each in publication.messages]


async def test_a_batch_is_one_span(traced: ConnectionManager, spans: InMemorySpanExporter) -> None:
    await traced.publish_batch([{"type": "a", "topics": ["x"]}, {"type": "b", "topics": ["x", "y"]}])

    found = facts(the_span(spans))
    assert (2, 2, nth(1)) == (found["messaging.batch.message_count"], found["topics"], found["sequence_number"])
    assert "message_type" not in found


async def test_a_repeated_publish_is_known_although_its_span_is_another(
    traced: ConnectionManager, spans: InMemorySpanExporter
) -> None:
    for _ in range(2):
        await traced.publish_batch([{"type": "a"}], idempotency_key="key")
    with pytest.raises(IdempotencyConflict):
        await traced.publish_batch([{"type": "b"}], idempotency_key="key")

    first, again, conflict = map(facts, spans.get_finished_spans())
    assert [(False, nth(1)), (True, nth(1))] == [(each["repeated"], each["sequence_number"]) for each in (first, again)]
    assert ("IdempotencyConflict", "b") == (conflict["error.type"], conflict["message_type"])
    assert 1 == len(traced.window)


async def test_a_repeated_publish_returns_the_messages_that_clients_got(traced: ConnectionManager) -> None:
    batch = [{"type": "a"}, {"type": "b"}]
    published = await traced.publish_batch(batch, idempotency_key="key")
    await traced.publish({"type": "c"})

    repeated = await traced.publish_batch(batch, idempotency_key="key")

    assert published.messages == repeated.messages
    assert (False, True) == (published.repeated, repeated.repeated)


async def test_an_error_is_recorded_without_what_it_quotes(
    traced: ConnectionManager, spans: InMemorySpanExporter
) -> None:
    with pytest.raises(InvalidMessage):
        await traced.publish({"type": "a", "users": SECRET_TEXT})
    with pytest.raises(InvalidMessage):
        await traced.publish({"type": SECRET_TEXT, "sequence_number": 1})

    for span in spans.get_finished_spans():
        assert (StatusCode.ERROR, "InvalidMessage") == (span.status.status_code, facts(span)["error.type"])
        assert SECRET_TEXT not in span.to_json()
        assert () == span.events, "the text of an exception may quote the message"


async def test_spans_belong_to_the_trace_of_the_application(
    traced: ConnectionManager, spans: InMemorySpanExporter
) -> None:
    """Also where a thread publishes."""
    tracer = trace.get_tracer("application")
    with tracer.start_as_current_span("order"):
        await traced.emit("a")
        await asyncio.to_thread(traced.publish_threadsafe, {"type": "b"})

    *publishes, order = spans.get_finished_spans()
    assert [order.context] * 2 == [span.parent for span in publishes]


async def test_a_reconnect_is_a_span_with_its_outcome(traced: ConnectionManager, spans: InMemorySpanExporter) -> None:
    for _ in range(3):
        await traced.emit("a", SECRET_TEXT)
    await traced.emit("b", users=["bob"])
    spans.clear()

    connect(traced, ALICE, since=nth(1), transport="events")
    connect(traced, ALICE, since=nth(9))
    connect(traced, ALICE)

    complete, reset = spans.get_finished_spans()
    assert ("unmissed recover", SpanKind.CONSUMER) == (complete.name, complete.kind)
    assert {
        "messaging.system": "unmissed",
        "messaging.operation.name": "recover",
        "messaging.operation.type": "receive",
        "messaging.batch.message_count": 2,
        "transport": "events",
        "since": nth(1),
        "outcome": "complete",
        "lag": 0,
    } == facts(complete)
    assert ("reset", 3, "websocket") == tuple(
        facts(reset)[name] for name in ("outcome", "messaging.batch.message_count", "transport")
    )


async def test_a_refused_reconnect_is_an_error(clock: ManualClock, spans: InMemorySpanExporter) -> None:
    async with managed(clock, trace=True, max_connections=1) as manager:
        connect(manager)
        with pytest.raises(TooManyConnections):
            connect(manager, since=0)

    assert "TooManyConnections" == facts(the_span(spans))["error.type"]


@asynccontextmanager
async def client_of(manager: ConnectionManager, app: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with manager, httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers()) as client:
        yield client


async def test_a_recovery_over_rest_is_a_span_if_it_has_a_position(spans: InMemorySpanExporter) -> None:
    app = create_app(Settings.load(jwt_secret=SECRET, trace=True, max_messages=2))
    async with client_of(app.state.manager, app) as client:
        posted = await client.post("/websocket/messages", json=[{"type": "a"}] * 2, headers={"traceparent": OWN})
        await client.post("/websocket/messages", json={"type": "a"})
        page = (await client.get("/websocket/messages", params={"since": nth(0), "limit": 1})).json()
        await client.get("/websocket/messages")

    publish, _, recovery = own(spans)
    assert OWN.split("-")[1] == continuation_of(publish).split("-")[1], "the trace of the request goes on"
    assert nth(1) == posted.json()[0]["sequence_number"] == facts(publish)["sequence_number"]
    assert continuation_of(publish) == page["messages"][0]["traceparent"]
    assert ("rest", "gap", 1, nth(0)) == tuple(
        facts(recovery)[name] for name in ("transport", "outcome", "messaging.batch.message_count", "since")
    )


async def test_a_publish_that_waits_in_vain_is_an_error(clock: ManualClock, spans: InMemorySpanExporter) -> None:
    log = ManualLog(clock)
    async with managed(clock, log=log, trace=True, publish_seconds=0.01) as manager:
        log.lose("the store is away")
        with pytest.raises(LogUnavailable):
            await manager.emit("a")

    assert "LogUnavailable" == facts(the_span(spans))["error.type"]


async def test_without_the_setting_nothing_is_traced_or_imported(
    clock: ManualClock, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    async with managed(clock) as manager:
        message = await manager.emit("a")
        connect(manager, since=nth(0))

    assert {"type", "sequence_number", "timestamp"} == {*json.loads(message.payload)}
    assert () == spans.get_finished_spans()


async def test_without_the_package_the_setting_names_the_extra(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)

    with pytest.raises(ConfigurationError, match=r"^UNMISSED_TRACE needs another .*: pip install 'unmissed\[otel\]'"):
        managed(clock, trace=True)


async def test_without_a_provider_messages_have_no_traceparent(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", trace.NoOpTracerProvider())
    async with managed(clock, trace=True) as manager:
        message = await manager.emit("a")

    assert "traceparent" not in message.as_dict()
