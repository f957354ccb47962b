"""``/metrics``: figures of the server in the Prometheus text format."""

from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response

from unmissed.api.identity import checked
from unmissed.api.problems import documented
from unmissed.core.audience import ADMIN_SCOPE, Identity
from unmissed.core.close_codes import CloseCode
from unmissed.delivery.measures import BUCKETS, Histogram
from unmissed.manager import ConnectionManager

if TYPE_CHECKING:
    from prometheus_client import Metric

_KNOWN_CODES = frozenset(CloseCode)


def add_metrics_route(router: APIRouter, manager: ConnectionManager, *, authenticate: Callable[..., Any]) -> None:
    """Add the route. ``authenticate`` is a dependency that returns an Identity, which needs the scope ``admin``."""

    @router.get("/metrics", tags=["operators"], summary="Metrics for Prometheus", response_class=Response, **_DOCS)
    async def metrics(request: Request, identity: Annotated[Identity, Depends(authenticate)]) -> Response:  # noqa: ARG001  # problem_route passes it
        """Return counters of this process since its start, gauges and histograms."""
        checked(identity, manager).require(ADMIN_SCOPE, what="reading metrics")
        try:
            from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest  # noqa: PLC0415  # an extra
            from prometheus_client.registry import CollectorRegistry  # noqa: PLC0415
        except ImportError:
            raise HTTPException(
                HTTPStatus.NOT_IMPLEMENTED, "metrics need an extra package: pip install 'unmissed[metrics]'"
            ) from None
        registry = CollectorRegistry()
        registry.register(_Collector(manager))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Collector:
    """The figures of one manager. No label has a value that users control."""

    def __init__(self, manager: ConnectionManager) -> None:
        self._manager = manager

    def collect(self) -> Iterator["Metric"]:
        """Yield the figures as they are now."""
        yield from self._counters()
        yield from self._gauges()
        measures = self._manager.running.measures
        yield _histogram("unmissed_flush_seconds", "Time of one step of a flush", measures.flush_seconds)
        yield _histogram(
            "unmissed_publish_to_write_seconds",
            "Time from the append of a message to the end of the flush that wrote it",
            measures.publish_to_write_seconds,
        )

    def _counters(self) -> Iterator["Metric"]:
        from prometheus_client.metrics_core import CounterMetricFamily  # noqa: PLC0415  # an extra

        window, measures = self._manager.window, self._manager.running.measures
        for name, text, value in (
            ("unmissed_messages_published", "Messages that this process has published", measures.published),
            ("unmissed_messages_delivered", "Messages written to connections", measures.delivered),
            ("unmissed_messages_evicted", "Messages evicted from the log of this process", window.evicted_messages),
            ("unmissed_gaps", "Gaps that were declared to connected clients", measures.gaps),
            ("unmissed_stalls", "Connections dropped because their client read nothing", measures.stalls),
        ):
            yield CounterMetricFamily(name, text, value=value)
        recoveries = CounterMetricFamily(
            "unmissed_recoveries", "Answers to clients that sent a position", labels=["transport", "outcome"]
        )
        for (transport, outcome), count in measures.recoveries.items():
            recoveries.add_metric([transport, outcome], count)
        yield recoveries
        for name, text, by_code in (
            ("unmissed_closes", "Ended connections by close code", measures.closes),
            ("unmissed_refusals", "Refused requests and connections by close code", measures.refusals),
        ):
            family = CounterMetricFamily(name, text, labels=["code"])
            for code, count in _by_known_code(by_code.items()).items():
                family.add_metric([code], count)
            yield family

    def _gauges(self) -> Iterator["Metric"]:
        from prometheus_client.metrics_core import GaugeMetricFamily  # noqa: PLC0415  # an extra

        manager, window = self._manager, self._manager.window
        lags = [connection.lag for connection in manager.connections]
        for name, text, value in (
            ("unmissed_connections", "Open connections", len(lags)),
            ("unmissed_connections_behind", "Connections with pending messages", sum(lag > 0 for lag in lags)),
            ("unmissed_lag_messages", "Sequence numbers that the slowest connection is behind", max(lags, default=0)),
            ("unmissed_log_messages", "Messages in the log", len(window)),
            ("unmissed_log_bytes", "Bytes of the messages in the log", window.size),
            ("unmissed_log_reach_seconds", "Age of the oldest message in the log", manager.running.log_reach),
        ):
            yield GaugeMetricFamily(name, text, value=value)


def _by_known_code(closes: Any) -> dict[str, int]:
    """Return the counts by code. Clients choose codes, so unknown ones are counted together."""
    counts: dict[str, int] = {}
    for code, count in closes:
        name = str(int(code)) if code in _KNOWN_CODES else "other"
        counts[name] = counts.get(name, 0) + count
    return counts


def _histogram(name: str, text: str, histogram: Histogram) -> "Metric":
    from prometheus_client.metrics_core import HistogramMetricFamily  # noqa: PLC0415  # an extra

    buckets, count = list[tuple[str, float]](), 0
    for bound, observed in zip([*map(str, BUCKETS), "+Inf"], histogram.counts, strict=True):
        count += observed
        buckets.append((bound, count))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=histogram.total)


_DOCS: dict[str, Any] = {
    "responses": {
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "The figures"},
        **documented(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_IMPLEMENTED),
    },
}
