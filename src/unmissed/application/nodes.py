"""The other nodes of a shared log: telling them what all must know, and asking what only they know."""

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from unmissed.application.notes import Assembly, encoded
from unmissed.core.backoff import Backoff
from unmissed.core.errors import LogUnavailable
from unmissed.logs.base import Channel
from unmissed.logs.tasks import end

logger = logging.getLogger("unmissed")

HELLO_SECONDS = 1.0
"""How often a node says that it is there. One that is silent three times as long is not waited for."""

ANSWER_SECONDS = 1.0
"""How long the answers of other nodes are waited for."""

SILENT_SECONDS = 4.0
"""A node that does not even hear itself for so long is not connected any more."""


class Nodes:
    """The nodes that share a log, seen from one. ``channel`` carries their notes; without one, the node is alone.

    ``handlers`` has a function for each kind of note, which is called with its content and returns what to answer.
    ``introduce`` returns notes, each a kind and its content, that a node must know that was not listening before.
    ``clock`` returns monotonic seconds.
    """

    def __init__(
        self,
        channel: Channel | None,
        *,
        node_id: str,
        handlers: Mapping[str, Callable[[Any], Any]],
        introduce: Callable[[], list[tuple[str, Any]]],
        clock: Callable[[], float],
    ) -> None:
        self.id = node_id
        self._channel = channel
        self._handlers = handlers
        self._introduce = introduce
        self._clock = clock
        self._heard: dict[str, float] = {}
        """When each other node was heard last."""
        self._asked: dict[str, _Question] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._assembly = Assembly()

    def start(self) -> None:
        """Listen to the others, and tell them that this node is there."""
        if self._channel is not None:
            self._tasks = [asyncio.create_task(self._listen(self._channel)), asyncio.create_task(self._greet())]

    async def stop(self, *, seconds: float) -> None:
        """Stop listening, and try to send goodbye for so many seconds. Without it, the others notice a little later."""
        for task in self._tasks:
            await end(task)
        if self._tasks:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(seconds):
                    await self._send("goodbye", None)

    @property
    def others(self) -> frozenset[str]:
        """The ids of the other nodes that were heard lately."""
        now = self._clock()
        return frozenset(node for node, at in self._heard.items() if now - at < 3 * HELLO_SECONDS)

    async def tell(self, kind: str, content: Any) -> None:
        """Let every other node that listens now handle a note. Raises LogUnavailable if none can be reached."""
        if self._channel is not None:
            await self._send(kind, content)

    async def ask(self, kind: str, content: Any) -> list[Any]:
        """Send a question to all other nodes, and return the answers of those that were heard lately.

        Those that do not answer within a second are left out. Raises LogUnavailable if none can be reached.
        """
        if self._channel is None:
            return []
        question = _Question(self.others)
        question_id = secrets.token_urlsafe(9)
        self._asked[question_id] = question
        try:
            await self._send(kind, content, question=question_id)
            async with asyncio.timeout(ANSWER_SECONDS):
                await question.answered.wait()
        except TimeoutError:
            logger.warning("nodes did not answer: %s", ", ".join(sorted(question.missing)))
        finally:
            del self._asked[question_id]
        return question.answers

    async def _listen(self, channel: Channel) -> None:
        backoff = Backoff(first=0.05, most=HELLO_SECONDS)
        while True:
            try:
                async with contextlib.aclosing(channel.receive()) as parts:
                    await self._take_all(parts)
            except (LogUnavailable, TimeoutError):  # The log itself reports it.
                pass
            except Exception:
                logger.exception("listening to other nodes failed")
            await asyncio.sleep(backoff.failed(random.random()))

    async def _take_all(self, parts: AsyncGenerator[bytes]) -> None:
        """Handle notes until this node hears nothing any more, not even itself."""
        while True:
            async with asyncio.timeout(SILENT_SECONDS):
                part = await anext(parts)
            if not part:
                await self._introduce_self(new=True)
                continue
            try:
                if note := self._assembly.take(part):
                    await self._take(note)
            except LogUnavailable:
                raise
            except Exception:
                logger.exception("a note of another node could not be handled")

    async def _greet(self) -> None:
        """Say regularly that this node is there."""
        while True:
            await asyncio.sleep(HELLO_SECONDS)
            self._heard = {node: self._heard[node] for node in self.others}
            with contextlib.suppress(LogUnavailable):
                await self._send("hello", {"new": False})

    async def _introduce_self(self, *, new: bool) -> None:
        """Say that this node is there, and what a node must know. One that is new is answered with the same."""
        await self._send("hello", {"new": new})
        for kind, content in self._introduce():
            await self._send(kind, content)

    async def _take(self, note: dict[str, Any]) -> None:
        node, kind, content = note["node"], note["kind"], note["content"]
        if node == self.id:
            return
        self._heard[node] = self._clock()
        match kind:
            case "hello" if content["new"]:
                await self._introduce_self(new=False)
            case "hello":
                pass
            case "goodbye":
                del self._heard[node]
                for question in self._asked.values():
                    question.settle(node)
            case "answer" if note["question"] in self._asked:
                self._asked[note["question"]].answer(node, content)
            case _ if kind in self._handlers:
                answer = self._handlers[kind](content)
                if "question" in note:
                    await self._send("answer", answer, question=note["question"])

    async def _send(self, kind: str, content: Any, *, question: str | None = None) -> None:
        note = {"node": self.id, "kind": kind, "content": content}
        if question is not None:
            note["question"] = question
        if self._channel is not None:
            for part in encoded(note):
                await self._channel.send(part)


class _Question:
    """A question to some nodes, and their answers so far."""

    def __init__(self, nodes: frozenset[str]) -> None:
        self.missing = set(nodes)
        self.answers: list[Any] = []
        self.answered = asyncio.Event()
        if not nodes:
            self.answered.set()

    def answer(self, node: str, answer: Any) -> None:
        """Record the answer of a node. One that was not known when the question was asked counts, too."""
        self.answers.append(answer)
        self.settle(node)

    def settle(self, node: str) -> None:
        """Do not wait for a node any more."""
        self.missing.discard(node)
        if not self.missing:
            self.answered.set()
