"""``/metrics``: figures of one node or of all nodes in the Prometheus text format."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response

from unmissed.api.identity import checked
from unmissed.api.problems import documented
from unmissed.api.request_parts import choice_parameter, described
from unmissed.core.audience import METRICS_SCOPE, Identity
from unmissed.core.errors import LogUnavailable
from unmissed.delivery.measures import BUCKETS, NodeMeasures
from unmissed.manager import ConnectionManager

if TYPE_CHECKING:
    from prometheus_client import Metric

NODES = ("own", "all")
_COUNTERS = {
    "published": ("unmissed_messages_published", "Messages that this process has published"),
    "delivered": ("unmissed_messages_delivered", "Messages written to connections"),
    "ephemeral_published": ("unmissed_ephemeral_published", "Ephemeral messages that this process has published"),
    "ephemeral_delivered": ("unmissed_ephemeral_delivered", "Ephemeral messages written to connections"),
    "ephemeral_dropped": (
        "unmissed_ephemeral_dropped",
        "Ephemeral messages that this process has dropped: too many waited, or the messages before them did not come",
    ),
    "evicted": ("unmissed_messages_evicted", "Messages evicted from the log of this process"),
    "gaps": ("unmissed_gaps", "Gaps that were declared to connected clients"),
    "stalls": ("unmissed_stalls", "Connections dropped because their client read nothing"),
}
_GAUGES = {
    "connections": "Open connections",
    "connections_behind": "Connections with pending messages",
    "lag_messages": "Sequence numbers that the slowest connection is behind",
    "log_messages": "Messages in the log",
    "log_bytes": "Bytes of the messages in the log",
    "log_reach_seconds": "Age of the oldest message in the log",
}
_HISTOGRAMS = {
    "flush_seconds": "Time of one step of a flush",
    "publish_to_write_seconds": "Time from the append of a message to the end of the flush that wrote it",
}
_NODE = "node"
"""The label with the id of a node. It changes when the node restarts."""


def add_metrics_route(router: APIRouter, manager: ConnectionManager, *, authenticate: Callable[..., Any]) -> None:
    """Add the route. ``authenticate`` is a dependency that returns an Identity, which needs ``metrics:read``."""

    @router.get("/metrics", tags=["operators"], summary="Metrics for Prometheus", response_class=Response, **_DOCS)
    async def metrics(request: Request, identity: Annotated[Identity, Depends(authenticate)]) -> Response:
        """Return counters since the start of a process, gauges and histograms.

        They are those of this process, or of all that share the log. The id of a process is the label `node`.
        """
        checked(identity, manager).require(METRICS_SCOPE, what="reading metrics")
        try:
            from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest  # noqa: PLC0415  # an extra
            from prometheus_client.registry import CollectorRegistry  # noqa: PLC0415
        except ImportError:
            raise HTTPException(
                HTTPStatus.NOT_IMPLEMENTED, "metrics need an extra package: pip install 'unmissed[metrics]'"
            ) from None
        registry = CollectorRegistry()
        registry.register(_Collector(await _measures(request, manager)))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


async def _measures(request: Request, manager: ConnectionManager) -> Mapping[str, NodeMeasures]:
    """Return the measures of the nodes that are asked for, by node."""
    overview = manager.running.cluster.overview
    if choice_parameter(request, "nodes", NODES) == "all":
        # While the engine is away, the metrics of this node are needed most.
        with suppress(LogUnavailable):
            return await overview.measures()
    return overview.measures_here()


class _Collector:
    """The figures of some nodes. No label has a value that users control."""

    def __init__(self, nodes: Mapping[str, NodeMeasures]) -> None:
        self._nodes = nodes

    def collect(self) -> Iterator["Metric"]:
        """Yield the figures."""
        yield from self._counters()
        yield from self._by_code()
        yield from self._gauges()
        yield from self._histograms()

    def _counters(self) -> Iterator["Metric"]:
        from prometheus_client.metrics_core import CounterMetricFamily  # noqa: PLC0415  # an extra

        for key, (name, text) in _COUNTERS.items():
            family = CounterMetricFamily(name, text, labels=[_NODE])
            for node, measures in self._nodes.items():
                family.add_metric([node], measures.counters[key])
            yield family
        recoveries = CounterMetricFamily(
            "unmissed_recoveries",
            "Answers to clients that sent a position",
            labels=[_NODE, "transport", "outcome"],
        )
        for node, measures in self._nodes.items():
            for transport, outcome, count in measures.recoveries:
                recoveries.add_metric([node, transport, outcome], count)
        yield recoveries

    def _by_code(self) -> Iterator["Metric"]:
        from prometheus_client.metrics_core import CounterMetricFamily  # noqa: PLC0415  # an extra

        closes = CounterMetricFamily("unmissed_closes", "Ended connections by close code", labels=[_NODE, "code"])
        refusals = CounterMetricFamily(
            "unmissed_refusals", "Refused requests and connections by close code", labels=[_NODE, "code"]
        )
        for node, measures in self._nodes.items():
            for family, counts in ((closes, measures.closes), (refusals, measures.refusals)):
                for code, count in counts.items():
                    family.add_metric([node, code], count)
        yield closes
        yield refusals

    def _gauges(self) -> Iterator["Metric"]:
        from prometheus_client.metrics_core import GaugeMetricFamily  # noqa: PLC0415  # an extra

        for key, text in _GAUGES.items():
            family = GaugeMetricFamily(f"unmissed_{key}", text, labels=[_NODE])
            for node, measures in self._nodes.items():
                family.add_metric([node], measures.gauges[key])
            yield family

    def _histograms(self) -> Iterator["Metric"]:
        from prometheus_client.metrics_core import HistogramMetricFamily  # noqa: PLC0415  # an extra

        for key, text in _HISTOGRAMS.items():
            family = HistogramMetricFamily(f"unmissed_{key}", text, labels=[_NODE])
            for node, measures in self._nodes.items():
                counts, total = measures.histograms[key]
                family.add_metric([node], _buckets(counts), total)
            yield family


def _buckets(counts: list[int]) -> list[tuple[str, float]]:
    """Return the buckets of a histogram as Prometheus has them: each with all that is below its bound."""
    bounds = [*map(str, BUCKETS), "+Inf"]
    return [(bound, float(count)) for bound, count in zip(bounds, accumulate(counts), strict=True)]


_DOCS: dict[str, Any] = {
    "responses": {
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "The figures"},
        **documented(
            HTTPStatus.UNAUTHORIZED,
            HTTPStatus.FORBIDDEN,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.NOT_IMPLEMENTED,
        ),
    },
    "openapi_extra": {
        "parameters": [
            described(
                "nodes",
                "own: the process that answers; all: every process that shares its log and answers within a second.",
                {"type": "string", "enum": [*NODES], "default": "own"},
            )
        ]
    },
}
