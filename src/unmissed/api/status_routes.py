"""The state of this node: probes for an orchestrator, and figures of its log and its deliveries for operators."""

from collections.abc import Callable
from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from unmissed.api import models
from unmissed.api.identity import Bearer, checked
from unmissed.api.operator_models import LogBody, RuleBody, StatusBody
from unmissed.api.problems import ProblemResponse, add_options_route, documented
from unmissed.core.audience import ADMIN_SCOPE, Identity
from unmissed.manager import ConnectionManager
from unmissed.running import NOT_ACCEPTING

PATH = "/websocket/status"


def add_health_routes(router: APIRouter, manager: ConnectionManager, *, bearer: Bearer | None) -> None:
    """Add ``/livez``, ``/readyz`` and ``/readyz/clients``, for the probes of an orchestrator."""

    def closed() -> str | None:
        """Return why no client can connect, if so."""
        if not manager.ready:
            return NOT_ACCEPTING
        return None if bearer is None else bearer.problem

    @router.get("/livez", tags=["health"], summary="Is the process alive?")
    async def livez() -> dict[str, str]:
        """Answer 200 while the event loop runs."""
        return {"status": "alive"}

    @router.get("/readyz", tags=["health"], summary="Does the server accept traffic?", response_model=dict[str, str])
    async def readyz() -> Response | dict[str, str]:
        """Answer 200 while connections and messages are accepted.

        Answer 503 before the start, while draining, while the log is unavailable, and until the keys of the identity
        provider are loaded. Connected clients stay.
        """
        problem = closed() or manager.running.problem
        return {"status": "ready"} if problem is None else ProblemResponse(503, problem)

    @router.get(
        "/readyz/clients",
        tags=["health"],
        summary="Can clients connect and recover?",
        response_model=dict[str, str],
    )
    async def ready_for_clients() -> Response | dict[str, str]:
        """Answer 200 while connections are accepted, with the ``problem`` if the log is unavailable.

        Answer 503 before the start, while draining, and until the keys of the identity provider are loaded. All nodes
        of a log lose it at once: if they left the load balancer for that, clients could no longer recover what every
        node still retains.
        """
        if (refusal := closed()) is not None:
            return ProblemResponse(503, refusal)
        problem = manager.running.problem
        return {"status": "ready"} if problem is None else {"status": "ready", "problem": problem}


def add_status_route(router: APIRouter, manager: ConnectionManager, *, authenticate: Callable[..., Any]) -> None:
    """Add the route. ``authenticate`` is a dependency that returns an Identity, which needs the scope ``admin``."""

    @router.get(PATH, tags=["operators"], summary="How full is the log?", response_class=Response, **_DOCS)
    async def status(request: Request, identity: Annotated[Identity, Depends(authenticate)]) -> Response:  # noqa: ARG001  # problem_route passes it
        """Return how full the log is, how far it reaches back, and counters since the start of this node."""
        checked(identity, manager).require(ADMIN_SCOPE, what="reading the status")
        return models.answer(_body(manager))

    add_options_route(router, PATH, methods="GET, OPTIONS")


def _body(manager: ConnectionManager) -> StatusBody:
    running = manager.running
    window, measures, shelves = running.window, running.measures, running.window.shelves()
    return StatusBody(
        node_id=running.node_id,
        problem=running.detailed_problem,
        epoch=window.epoch,
        oldest=window.oldest,
        latest=window.latest,
        log=LogBody(
            messages=len(window),
            values=sum(shelf.values for shelf in shelves),
            bytes=window.size,
            reach_seconds=running.log_reach,
            max_messages=window.retention.max_messages,
            max_bytes=window.retention.max_bytes,
            max_age=window.retention.max_age,
            rules=[RuleBody(**asdict(shelf)) for shelf in shelves],
        ),
        connections=len(manager.connections),
        published=measures.published,
        delivered=measures.delivered,
        ephemeral_delivered=measures.ephemeral_delivered,
        ephemeral_dropped=measures.ephemeral_dropped,
        evicted=window.evicted_messages,
        replaced=window.replaced_messages,
        gaps=measures.gaps,
        stalls=measures.stalls,
    )


_DOCS: dict[str, Any] = {
    "responses": {
        200: {"model": StatusBody},
        **documented(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.SERVICE_UNAVAILABLE),
    },
}
