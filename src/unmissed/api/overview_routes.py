"""``/websocket/topics``, ``/websocket/nodes`` and ``/websocket/history``: what operators see of all nodes."""

from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from unmissed.api import models
from unmissed.api.identity import checked
from unmissed.api.operator_models import (
    HistoryBody,
    MinuteBody,
    NodeBody,
    NodesBody,
    PastBody,
    TopicBody,
    TopicsBody,
)
from unmissed.api.problems import add_options_route, documented
from unmissed.api.request_parts import choice_parameter, described, limit_parameter, parameter
from unmissed.cluster.overview import Past, PastEvent, PastMinute
from unmissed.core.audience import ADMIN_SCOPE, Identity
from unmissed.core.messages import rfc3339
from unmissed.delivery.history import HistoryKind
from unmissed.manager import ConnectionManager

TOPICS_PATH = "/websocket/topics"
NODES_PATH = "/websocket/nodes"
HISTORY_PATH = "/websocket/history"
DEFAULT_LIMIT, MAX_LIMIT = 100, 1_000


def add_overview_routes(router: APIRouter, manager: ConnectionManager, *, authenticate: Callable[..., Any]) -> None:
    """Add the routes. ``authenticate`` is a dependency that returns an Identity, which needs the scope ``admin``."""

    @router.get(TOPICS_PATH, tags=["operators"], summary="List topics", response_class=Response, **_TOPICS_DOCS)
    async def topics(request: Request, identity: Annotated[Identity, Depends(authenticate)]) -> Response:
        """Return the topics that connections to all nodes follow, those with the most connections first.

        If clients of one node follow more than 10,000 topics, numbers over several nodes are approximate.
        """
        checked(identity, manager).require(ADMIN_SCOPE, what="listing topics")
        limit, search = _limit(request), parameter(request, "search") or ""
        found = await manager.running.cluster.overview.topics(search=search, limit=limit)
        listed = [TopicBody(topic=topic, connections=number) for topic, number in found.connections.items()]
        return models.answer(TopicsBody(topics=listed, total=found.total, matching=found.matching))

    @router.get(NODES_PATH, tags=["operators"], summary="List nodes", response_class=Response, **_NODES_DOCS)
    async def nodes(request: Request, identity: Annotated[Identity, Depends(authenticate)]) -> Response:  # noqa: ARG001  # problem_route passes it
        """Return the nodes that share the log. A node that was silent for three seconds is not listed."""
        checked(identity, manager).require(ADMIN_SCOPE, what="listing nodes")
        cluster = manager.running.cluster
        found = await cluster.overview.nodes(cluster.nodes.others)
        own = manager.running.node_id
        return models.answer(NodesBody(nodes=[_node(each, found[each], own=each == own) for each in sorted(found)]))

    @router.get(HISTORY_PATH, tags=["operators"], summary="The last hour", response_class=Response, **_HISTORY_DOCS)
    async def history(request: Request, identity: Annotated[Identity, Depends(authenticate)]) -> Response:
        """Return the gaps, resets, stalls, closes and refusals of the last hour on all nodes, the newest first.

        All are counted. Of each kind and code, the newest 100 are listed; refusals of one client for one reason are one
        entry.
        """
        checked(identity, manager).require(ADMIN_SCOPE, what="reading the history")
        limit, kind = _limit(request), choice_parameter(request, "kind", [*HistoryKind])
        return models.answer(_past(await manager.running.cluster.overview.past(limit=limit, kind=kind)))

    for path in (TOPICS_PATH, NODES_PATH, HISTORY_PATH):
        add_options_route(router, path, methods="GET, OPTIONS")


def _limit(request: Request) -> int:
    return limit_parameter(request, most=MAX_LIMIT) or DEFAULT_LIMIT


def _node(node_id: str, facts: dict[str, Any] | None, *, own: bool) -> NodeBody:
    known = (
        dict.fromkeys(NodeBody.model_fields) if facts is None else {**facts, "started_at": rfc3339(facts["started_at"])}
    )
    return NodeBody(**{**known, "node_id": node_id, "own": own})


def _past(past: Past) -> PastBody:
    return PastBody(
        entries=[_entry(event) for event in past.events],
        minutes=_minutes(past.minutes),
        closes=_by_code(past.minutes, HistoryKind.CLOSE),
        refusals=_by_code(past.minutes, HistoryKind.REFUSED),
        since=rfc3339(past.since),
    )


def _entry(event: PastEvent) -> HistoryBody:
    entry = event.entry
    return HistoryBody(
        time=rfc3339(event.time),
        kind=entry.kind,
        node_id=event.node_id,
        connection_id=entry.connection_id,
        user_id=entry.user_id,
        client=entry.client,
        code=entry.code,
        status=entry.status,
        reason=entry.reason,
        request=entry.request,
        first=entry.first,
        last=entry.last,
        count=entry.times,
    )


def _minutes(counts: list[PastMinute]) -> list[MinuteBody]:
    minutes: dict[int, Counter[str]] = {}
    for each in counts:
        minutes.setdefault(each.time, Counter())[each.kind] += each.count
    return [MinuteBody(time=rfc3339(time), **minutes[time]) for time in sorted(minutes)]


def _by_code(counts: list[PastMinute], kind: HistoryKind) -> dict[str, int]:
    codes = Counter[str]()
    for each in counts:
        if each.kind == kind:
            codes["other" if each.code is None else str(each.code)] += each.count
    return dict(sorted(codes.items()))


_REFUSALS = documented(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.SERVICE_UNAVAILABLE)
_UNPROCESSABLE = documented(HTTPStatus.UNPROCESSABLE_ENTITY)
_LIMIT = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}
_TOPICS_DOCS: dict[str, Any] = {
    "responses": {200: {"model": TopicsBody}, **_REFUSALS, **_UNPROCESSABLE},
    "openapi_extra": {
        "parameters": [
            described(
                "search",
                "Only topics that contain this text. Upper and lower case make no difference.",
                {"type": "string"},
            ),
            described("limit", "Maximum number of topics.", _LIMIT),
        ]
    },
}
_NODES_DOCS: dict[str, Any] = {"responses": {200: {"model": NodesBody}, **_REFUSALS}}
_HISTORY_DOCS: dict[str, Any] = {
    "responses": {200: {"model": PastBody}, **_REFUSALS, **_UNPROCESSABLE},
    "openapi_extra": {
        "parameters": [
            described("kind", "Only entries of this kind.", {"type": "string", "enum": [*HistoryKind]}),
            described("limit", "Maximum number of entries.", _LIMIT),
        ]
    },
}
