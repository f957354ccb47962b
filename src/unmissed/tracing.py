"""A run of a manager that records publishes and recoveries as spans of OpenTelemetry, with ``UNMISSED_TRACE``.

Spans never have the data of a message, and no text that may quote it. Without the setting, nothing here runs, and
OpenTelemetry is not imported.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unmissed.core.audience import topic_of
from unmissed.core.encoding import decode_json
from unmissed.core.errors import ConfigurationError
from unmissed.core.messages import Draft, Message
from unmissed.core.window import Outcome, Page
from unmissed.delivery.connection import Connection
from unmissed.delivery.socket import Socket
from unmissed.logs.base import Publication
from unmissed.running import LivePublication, RestQuery, Running
from unmissed.security.access import Subscription

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_Attributes = Mapping[str, str | bool | int]


class Tracer:
    """Begins spans. It uses the provider that the application has set, also if it sets it later."""

    def __init__(self) -> None:
        """Raise ConfigurationError if OpenTelemetry is not installed."""
        try:
            from opentelemetry import trace  # noqa: PLC0415  # an extra, and loaded only when it is used
            from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
                TraceContextTextMapPropagator,
            )
        except ModuleNotFoundError:
            raise ConfigurationError(
                "UNMISSED_TRACE needs another package: pip install 'unmissed[otel]', or leave the setting out"
            ) from None
        self._trace = trace
        self._tracer = trace.get_tracer("unmissed")
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def publish(self) -> Iterator["Span"]:
        """Return a context with the span of a publish, which is the current one in it."""
        attributes = {"messaging.operation.name": "publish", "messaging.operation.type": "send"}
        with self._begun("unmissed publish", self._trace.SpanKind.PRODUCER, attributes) as span:
            yield span

    @contextmanager
    def recovery(self, *, transport: str, since: int) -> Iterator["Span"]:
        """Return a context with the span of a recovery over ``websocket``, ``events`` or ``rest``."""
        attributes: _Attributes = {
            "messaging.operation.name": "recover",
            "messaging.operation.type": "receive",
            "unmissed.transport": transport,
            "unmissed.since": since,
        }
        with self._begun("unmissed recover", self._trace.SpanKind.CONSUMER, attributes) as span:
            yield span

    @property
    def current(self) -> "Span":
        """The span of the context."""
        return self._trace.get_current_span()

    @property
    def traceparent(self) -> str | None:
        """What continues the span of the context (W3C Trace Context), or None if the application records no spans."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier.get("traceparent")

    @contextmanager
    def _begun(self, name: str, kind: Any, attributes: _Attributes) -> Iterator["Span"]:
        with self._tracer.start_as_current_span(
            name,
            kind=kind,
            attributes={"messaging.system": "unmissed", **attributes},
            # Not the exception, whose text may quote what a publisher has sent.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(self._trace.StatusCode.ERROR, type(error).__name__)
                raise


class TracedRun(Running):
    """One run of a manager whose publishes and recoveries are spans, and whose messages continue the trace."""

    def __init__(self, *arguments: Any, tracer: Tracer, **options: Any) -> None:
        self._tracer = tracer
        super().__init__(*arguments, **options)

    async def publish_batch(
        self,
        messages: Iterable[Mapping[str, Any]],
        *,
        idempotency_key: str | None = None,
        publisher: str | None = None,
    ) -> Publication | LivePublication:
        """Publish messages, in one span for all."""
        with self._tracer.publish() as span:
            publication = await super().publish_batch(messages, idempotency_key=idempotency_key, publisher=publisher)
            if isinstance(publication, LivePublication):
                span.set_attributes({"unmissed.ephemeral": True})
                return publication
            if publication.repeated:
                publication = replace(publication, messages=self._retained(publication.messages))
            span.set_attributes(
                {
                    "unmissed.sequence_number": publication.receipt.first,
                    "unmissed.epoch": publication.receipt.epoch,
                    "unmissed.repeated": publication.repeated,
                }
            )
            return publication

    def _retained(self, repeated: tuple[Message, ...]) -> tuple[Message, ...]:
        """Return messages as clients got them, with the trace of their first publish, unless they were evicted."""
        before = self.window.messages_before(repeated[-1].sequence_number + 1, most=len(repeated))
        retained = {message.sequence_number: message for message in before}
        return tuple(retained.get(message.sequence_number, message) for message in repeated)

    async def _drafts(self, messages: Iterable[Mapping[str, Any]], *, traceparent: str | None = None) -> list[Draft]:
        """Return the drafts with a ``traceparent``, except those whose publisher has given one."""
        drafts = await super()._drafts(messages, traceparent=traceparent or self._tracer.traceparent)
        # Also for publishes that are refused after this, or repeated.
        self._tracer.current.set_attributes(_facts_of(drafts))
        return drafts

    def connect(self, socket: Socket, subscription: Subscription, **options: Any) -> Connection:
        """Deliver to a socket, in a span if its client has sent a position."""
        if subscription.since is None:
            return super().connect(socket, subscription, **options)
        transport = options.get("transport", "websocket")
        with self._tracer.recovery(transport=transport, since=subscription.since) as span:
            located = self._fan_out.located(subscription)
            before = self.measures.delivered
            connection = super().connect(socket, subscription, **options)
            span.set_attributes(
                _result_of(None if located is None else located.outcome, self.measures.delivered - before)
            )
            # The client receives the rest when it has read these.
            span.set_attribute("unmissed.lag", connection.lag)
            return connection

    async def recover(self, query: RestQuery) -> Page:
        """Return a page of what a client has missed, in a span if it has sent a position."""
        if query.since is None:
            return await super().recover(query)
        with self._tracer.recovery(transport="rest", since=query.since) as span:
            page = await super().recover(query)
            span.set_attributes(_result_of(page.outcome, len(page.messages)))
            return page


def _facts_of(drafts: Sequence[Draft]) -> _Attributes:
    """Return the number of messages, of their topics and users, and their type if all have the same."""
    keys = frozenset[str]().union(*(draft.audience.keys or () for draft in drafts))
    topics = sum(topic_of(key) is not None for key in keys)
    facts: dict[str, str | bool | int] = {
        "messaging.batch.message_count": len(drafts),
        "unmissed.topics": topics,
        "unmissed.users": len(keys) - topics,
    }
    heads = {draft.head for draft in drafts}
    # ``{"type":"chat"``, without the brace at the end.
    return {**facts, "unmissed.message_type": decode_json(heads.pop() + b"}")["type"]} if len(heads) == 1 else facts


def _result_of(outcome: Outcome | None, messages: int) -> _Attributes:
    return {"unmissed.outcome": str(outcome), "messaging.batch.message_count": messages}
