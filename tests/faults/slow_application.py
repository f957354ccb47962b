"""An application whose command never ends, to be served by a process of its own."""

import asyncio
from typing import Any

from fastapi import FastAPI

from unmissed import ConnectionManager, create_router

manager = ConnectionManager()


@manager.command("slow")
async def slow(data: Any) -> None:  # noqa: ARG001  # the client sends it
    """Wait, as for a database that does not answer."""
    await asyncio.Event().wait()


app = FastAPI(lifespan=manager.lifespan)
app.include_router(create_router(manager))
