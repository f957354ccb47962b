"""Answers what clients ask for: what they publish, and their commands."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from unmissed.application.commands import Commands
from unmissed.application.results import Results
from unmissed.application.threads import FairThreads
from unmissed.core.audience import PUBLISH_SCOPE, Identity
from unmissed.core.client_frames import Command, Publish, Request
from unmissed.core.errors import TooManyRequests, UnmissedError
from unmissed.core.rate import TokenBuckets
from unmissed.core.server_frames import ErrorFrame, PublishedFrame
from unmissed.delivery.inbox import Answer
from unmissed.logs.base import Publication
from unmissed.settings import Settings

logger = logging.getLogger("unmissed")

COMMAND_THREADS = 32
_TOO_FAST = "too many requests: send fewer, or raise UNMISSED_CLIENT_RATE on the server"


class ClientRequests:
    """The requests of all clients, from the start of a manager to its stop."""

    def __init__(
        self,
        settings: Settings,
        *,
        publish: Callable[..., Awaitable[object]],
        commands: Commands,
        clock: Callable[[], float],
    ) -> None:
        self.buckets = TokenBuckets(rate=settings.client_rate, burst=settings.client_burst)
        """The limits for the requests of each user, over all connections and HTTP requests."""
        self._clock = clock
        self._retry_seconds = 1 / settings.client_rate
        self._publish = publish
        self._commands = commands
        self._results = Results(max_age=settings.max_age, clock=clock)
        self._threads = FairThreads(COMMAND_THREADS, name="unmissed-command")
        self._tasks = set[asyncio.Task[None]]()

    def count(self, user_id: str) -> None:
        """Count a request that comes without a connection. Raises TooManyRequests over the limit of its user."""
        if not self.buckets.take(user_id, self._clock()):
            raise TooManyRequests(_TOO_FAST, retry_after=self._retry_seconds)

    async def run(self, identity: Identity, command: Command) -> bytes:
        """Run a command, or repeat the answer of an earlier one. See ``Commands.run`` for what is raised."""
        return await self._commands.run(identity, command, results=self._results, threads=self._threads)

    def start(self, job: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in a task that ends with the manager."""
        task = asyncio.create_task(job)
        # The event loop itself has only a weak reference to a task, which may be collected while it runs.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        """Cancel what is running."""
        self._results.cancel()
        self._threads.close()
        for task in self._tasks:
            task.cancel()

    async def answer(self, identity: Identity, request: Request) -> Answer:
        """Do what a client asks for. An exception is answered with an ``error`` frame."""
        try:
            match request:
                case Publish():
                    return await self._answer_publish(identity, request)
                case Command():
                    return Answer(await self.run(identity, request))
        except UnmissedError as error:
            return Answer(ErrorFrame.of(error, request_id=request.id).encode())
        except Exception:
            logger.exception("a request failed: user_id=%r", identity.user_id)
            return Answer(ErrorFrame.internal(request_id=request.id).encode())

    async def _answer_publish(self, identity: Identity, request: Publish) -> Answer:
        identity.require(PUBLISH_SCOPE, what="publishing")
        # The id of an ephemeral message only names the answer: nothing remembers that it was published.
        key = None if request.is_ephemeral else request.id
        publication = await self._publish(request.messages(), idempotency_key=key, publisher=identity.user_id)
        if isinstance(publication, Publication):
            return self._published(request, publication)
        return Answer(PublishedFrame(id=request.id).encode())

    @staticmethod
    def _published(request: Publish, publication: Publication) -> Answer:
        number = publication.receipt.first
        return Answer(PublishedFrame(id=request.id, sequence_number=number).encode(), after=number)
