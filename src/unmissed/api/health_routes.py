"""Health probes: whether the process is alive, and whether it accepts traffic."""

from fastapi import APIRouter, Response

from unmissed.api.problems import ProblemResponse
from unmissed.manager import ConnectionManager
from unmissed.running import NOT_ACCEPTING


def add_health_routes(router: APIRouter, manager: ConnectionManager) -> None:
    """Add the routes for the probes of an orchestrator."""

    @router.get("/livez", tags=["health"], summary="Is the process alive?")
    async def livez() -> dict[str, str]:
        """Answer 200 as long as the event loop runs."""
        return {"status": "alive"}

    @router.get("/readyz", tags=["health"], summary="Does the server accept traffic?", response_model=dict[str, str])
    async def readyz() -> Response | dict[str, str]:
        """Answer 200 while connections and messages are accepted.

        Answer 503 before the start, while draining, and while the log is unavailable. Connected clients stay.
        """
        problem = manager.running.problem if manager.ready else NOT_ACCEPTING
        return {"status": "ready"} if problem is None else ProblemResponse(503, problem)
