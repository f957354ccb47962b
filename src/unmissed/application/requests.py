"""Answers what clients ask for: what they publish, and their commands."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from unmissed.application.commands import Commands
from unmissed.application.results import Results
from unmissed.core import wire
from unmissed.core.audience import PUBLISH_SCOPE, Identity
from unmissed.core.client_frames import Command, Publish, Request
from unmissed.core.errors import TooManyRequests, UnmissedError, public_text
from unmissed.core.rate import TokenBucket
from unmissed.core.receipts import key_of_user
from unmissed.delivery.inbox import Answer
from unmissed.logs.base import Publication
from unmissed.settings import Settings

logger = logging.getLogger("unmissed")

MAX_REMEMBERED = 10_000
"""Users whose bucket is remembered."""


class ClientRequests:
    """The requests of all clients, from the start of a manager to its stop."""

    def __init__(
        self,
        settings: Settings,
        *,
        publish: Callable[..., Awaitable[Publication]],
        admit: Callable[[Identity], float],
        commands: Commands,
        clock: Callable[[], float],
    ) -> None:
        self.clock = clock
        self.admit = admit
        self._rate, self._burst = settings.client_rate, settings.client_burst
        self._publish = publish
        self._commands = commands
        self._remembered: dict[str, TokenBucket] = {}
        """Buckets that may not be full, by user, the one that was used last at the end."""
        self._results = Results(max_age=settings.max_age, clock=clock)
        self._tasks = set[asyncio.Task[None]]()

    def bucket(self, user_id: str) -> TokenBucket:
        """Return the limit for the requests of a new client: a full bucket, unless one of its user is remembered.

        A client that is closed because of too many messages gains nothing by reconnecting.
        """
        full_after = self._burst / self._rate
        while self._remembered:
            oldest = next(iter(self._remembered))
            if len(self._remembered) <= MAX_REMEMBERED and self._remembered[oldest].idle_for(self.clock()) < full_after:
                break
            del self._remembered[oldest]
        return self._remembered.get(user_id) or TokenBucket(rate=self._rate, burst=self._burst, now=self.clock())

    def remember(self, user_id: str, bucket: TokenBucket) -> None:
        """Remember a bucket until it is full again."""
        self._remembered.pop(user_id, None)
        self._remembered[user_id] = bucket

    async def answer_without_connection(self, identity: Identity, request: Request) -> bytes:
        """Answer a request that comes without a connection. Raises TooManyRequests over the limit of its user."""
        bucket = self.bucket(identity.user_id)
        self.remember(identity.user_id, bucket)
        if not bucket.take(self.clock()):
            raise TooManyRequests
        return (await self.answer(identity, request)).payload

    def start(self, job: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in a task that ends with the manager."""
        task = asyncio.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        """Cancel what is running."""
        self._results.cancel()
        for task in self._tasks:
            task.cancel()

    async def answer(self, identity: Identity, request: Request) -> Answer:
        """Do what a client asks for. An exception is answered with an ``error`` frame."""
        try:
            match request:
                case Publish():
                    return await self._answer_publish(identity, request)
                case Command():
                    return Answer(await self._commands.run(identity, request, results=self._results))
        except UnmissedError as error:
            return Answer(wire.error(code=wire.code_of(error), detail=public_text(error), request_id=request.id))
        except Exception:
            logger.exception("a request failed: user_id=%r", identity.user_id)
            return Answer(wire.internal_error(request.id))

    async def _answer_publish(self, identity: Identity, request: Publish) -> Answer:
        identity.require(PUBLISH_SCOPE, what="publishing")
        key = key_of_user(identity.user_id, request.id)
        publication = await self._publish([request.message], idempotency_key=key)
        number = publication.receipt.first
        return Answer(wire.published(request.id, sequence_number=number), after=number)
