"""Whether the process lives, and whether it wants traffic."""

from fastapi import APIRouter, Response

from unmissed.api.problems import ProblemResponse
from unmissed.delivery.manager import ConnectionManager


def add_health_routes(router: APIRouter, manager: ConnectionManager) -> None:
    """Add the routes for an orchestrator's probes."""

    @router.get("/livez", tags=["health"], summary="Is the process alive?")
    async def livez() -> dict[str, str]:
        """Answer 200 as long as the event loop turns."""
        return {"status": "alive"}

    @router.get("/readyz", tags=["health"], summary="Does it want traffic?", response_model=dict[str, str])
    async def readyz() -> Response | dict[str, str]:
        """Answer 200 while connections and messages are taken, 503 before the start and while draining."""
        if manager.ready:
            return {"status": "ready"}
        return ProblemResponse(503, "not taking connections: starting, or going down")
