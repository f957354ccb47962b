"""The other nodes of a shared log: sending them what all must know, and asking what only they know."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from itertools import count
from typing import Any

from unmissed.cluster.notes import Assembly, Replays, authentic, encoded
from unmissed.core.errors import LogUnavailable
from unmissed.logs.availability import Availability
from unmissed.logs.base import Channel
from unmissed.tasks import end

logger = logging.getLogger("unmissed")

HELLO_SECONDS = 1.0
"""Seconds between two hello notes. A node that is silent for three intervals is considered gone."""

START_SECONDS = 1.0
"""How long a starting node waits for what the others know."""

ANSWER_SECONDS = 1.0
"""How long the answers of other nodes are awaited."""

SILENT_SECONDS = 4.0
"""A node that does not even hear itself for this time has lost its connection."""


class Nodes:
    """The nodes that share a log, seen from one. ``channel`` carries their notes; without one, the node is alone.

    Notes are authenticated with ``key``, and each is handled once: a recorded one that is sent again is ignored, unless
    its node had ended before this one started. ``handlers`` has a function for each kind of note, which is called with
    its content and returns the answer. ``facts`` returns notes, each a kind and its content, that every node must know,
    and ``knows`` a number that is equal on nodes with the same facts. ``clock`` returns monotonic seconds.

    A node that begins to listen says hello. The others introduce themselves, and it asks one of those that know
    something else for all its facts, so that they are sent once and not by every node.
    """

    def __init__(
        self,
        channel: Channel | None,
        *,
        node_id: str,
        key: bytes,
        handlers: Mapping[str, Callable[[Any], Any]],
        facts: Callable[[], list[tuple[str, Any]]],
        knows: Callable[[], int],
        clock: Callable[[], float],
        start_seconds: float = START_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
        hello_seconds: float = HELLO_SECONDS,
    ) -> None:
        self.id = node_id
        self._channel = channel
        self._key = key
        self._handlers = handlers
        self._facts = facts
        self._knows = knows
        self._clock = clock
        self._start_seconds = start_seconds
        self._answer_seconds = answer_seconds
        self._hello_seconds = hello_seconds
        self._heard: dict[str, float] = {}
        """When each other node was heard last. Nodes that are starting are left out: they have no clients."""
        self._asked: dict[str, _Question] = {}
        self._introductions = _Introductions()
        self._facts_sent = False
        """Whether this node has sent its facts since it began to listen."""
        self._tasks: list[asyncio.Task[None]] = []
        self._assembly = Assembly()
        self._numbers = count(1)
        self._replays = Replays()
        self._hearing = Availability("used to hear other nodes")
        self._sending = Availability("used to reach other nodes")

    async def start(self) -> None:
        """Listen, and wait until every other node has sent what a node must know, or nothing arrives for a second.

        Until then, this node would accept tokens that the others refuse.
        """
        if self._channel is None:
            return
        self._tasks = [asyncio.create_task(self._listen(self._channel))]
        complete = await self._introductions.wait(seconds=self._start_seconds)
        self._tasks.append(asyncio.create_task(self._greet(complete=complete)))

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
        return frozenset(node for node, at in self._heard.items() if now - at < 3 * self._hello_seconds)

    @property
    def problem(self) -> str | None:
        """Why this node neither hears nor reaches the others at the moment, or None."""
        reason = self._hearing.reason or self._sending.reason
        return reason and f"the other nodes cannot be reached: {reason}"

    async def ask(self, kind: str, content: Any) -> dict[str, Any]:
        """Let all other nodes handle a note, and return the answers by node of those that were heard lately.

        Those that do not answer within a second are left out. Raises LogUnavailable if the note did not come back to
        this node, too, which means that nobody may have received it.
        """
        if self._channel is None:
            return {}
        question = _Question([self.id, *self.others])
        question_id = secrets.token_urlsafe(9)
        self._asked[question_id] = question
        try:
            async with asyncio.timeout(self._answer_seconds):
                await self._send(kind, content, question=question_id)
                await question.answered.wait()
        except TimeoutError:
            if self.id in question.missing:
                raise LogUnavailable(self.problem or "the other nodes cannot be reached: no note comes back") from None
            logger.warning("nodes did not answer: %s", ", ".join(sorted(question.missing)))
        finally:
            del self._asked[question_id]
        return question.answers

    async def _listen(self, channel: Channel) -> None:
        while True:
            try:
                async with (
                    contextlib.aclosing(channel.receive()) as sealed,
                    contextlib.aclosing(self._authentic(sealed)) as parts,
                ):
                    await self._take_all(parts)
            except LogUnavailable as error:
                seconds = self._hearing.failed(error.reason)
            except TimeoutError:
                seconds = self._hearing.failed(f"this node has not heard itself for {SILENT_SECONDS:g} seconds")
            except Exception as error:
                if self._hearing.reason is None:
                    logger.exception("listening to other nodes failed")
                seconds = self._hearing.failed(f"an unexpected error: {error!r}")
            await asyncio.sleep(seconds)

    async def _authentic(self, parts: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        """Yield the parts of notes that a node with the same key has sent, and the empty one of the channel."""
        reported = False
        async for sealed in parts:
            part = sealed and authentic(sealed, key=self._key)
            if part is not None:
                yield part
            elif not reported:
                reported = True
                logger.warning(
                    "ignoring notes that no node of this log has sent: another application uses the channel, or the "
                    "nodes have different secrets"
                )

    async def _take_all(self, parts: AsyncGenerator[bytes]) -> None:
        """Handle notes until this node hears nothing any more, not even itself."""
        while True:
            async with asyncio.timeout(SILENT_SECONDS):
                part = await anext(parts)
            await asyncio.sleep(0)  # Hundreds of notes may have arrived.
            if not part:
                await self._say_hello()
                continue
            self._hearing.succeeded()
            try:
                if note := self._assembly.take(part):
                    await self._take(note)
            except LogUnavailable:
                raise
            except Exception:
                logger.exception("a note of another node could not be handled")

    async def _greet(self, *, complete: bool) -> None:
        """Send hello regularly. If the start was not ``complete``, let the others introduce themselves again.

        A node may have ended while it sent its facts, and others may have the same.
        """
        while True:
            self._heard = {node: self._heard[node] for node in self.others}
            try:
                await self._send("hello", {"new": False})
                if not complete:
                    await self._say_hello()
                    complete = True
                self._sending.succeeded()
            except LogUnavailable as error:
                self._sending.failed(error.reason)
            except Exception as error:
                if self._sending.reason is None:
                    logger.exception("sending to other nodes failed")
                self._sending.failed(f"an unexpected error: {error!r}")
            await asyncio.sleep(self._hello_seconds)

    async def _say_hello(self) -> None:
        """Let the other nodes introduce themselves."""
        self._introductions.begin()
        self._facts_sent = False
        await self._send("hello", {"new": True})

    async def _introduce_to(self, node: str) -> None:
        """Say that this node is here, what it knows, and which others will say so, too."""
        others = sorted(self.others - {node})
        introduction = {"to": node, "knows": self._knows(), "ready": self._introductions.over.is_set()}
        await self._send("introduction", {**introduction, "others": others})

    async def _take_introduction(self, node: str, content: dict[str, Any]) -> None:
        """Exchange facts with a node, unless both know the same, or another one has said that it knows the same."""
        if content["ready"]:
            self._heard[node] = self._clock()
        knows_else = content["knows"] != self._knows()
        if self._introductions.add(node, content, knows_else=knows_else):
            await self._send("wanted", {"from": node})
        if knows_else and not self._facts_sent:
            self._facts_sent = True
            await self._send_facts()

    async def _send_facts(self) -> None:
        for kind, content in self._facts():
            await self._send(kind, content)
            await asyncio.sleep(0)  # Some channels send without waiting, and there may be hundreds of notes.

    async def _take(self, note: dict[str, Any]) -> None:
        if note["node"] == self.id:
            self._settle(note.get("question"), self.id)
        elif self._replays.is_new(note["node"], note["number"]):
            await self._handle(note, note["node"], note["kind"], note["content"])

    async def _handle(self, note: dict[str, Any], node: str, kind: str, content: Any) -> None:
        match kind:
            case "goodbye":
                self._heard.pop(node, None)
                for question_id in self._asked:
                    self._settle(question_id, node)
            case "answer" if note["question"] in self._asked:
                self._asked[note["question"]].answers[node] = content
                self._settle(note["question"], node)
            case _ if kind in self._handlers:
                answer = self._handlers[kind](content)
                if "question" in note:
                    await self._send("answer", answer, question=note["question"])
                else:
                    self._introductions.facts += 1
            case _:
                await self._meet(node, kind, content)

    async def _meet(self, node: str, kind: str, content: Any) -> None:
        match kind:
            case "hello" if content["new"]:
                await self._introduce_to(node)
            case "hello":
                self._heard[node] = self._clock()
            case "introduction" if content["to"] == self.id:
                await self._take_introduction(node, content)
            case "wanted" if content["from"] == self.id:
                await self._send_facts()
                await self._send("complete", {"to": node})
            case "complete" if content["to"] == self.id:
                self._introductions.completed(node)

    def _settle(self, question_id: str | None, node: str) -> None:
        """Stop waiting for a node to receive a question, or to answer it."""
        if question_id in self._asked:
            self._asked[question_id].settle(node)

    async def _send(self, kind: str, content: Any, *, question: str | None = None) -> None:
        note = {"node": self.id, "number": next(self._numbers), "kind": kind, "content": content}
        if question is not None:
            note["question"] = question
        if self._channel is not None:
            for part in encoded(note, key=self._key):
                await self._channel.send(part)


class _Question:
    """A question to some nodes, and their answers so far. One that was not known before may answer, too."""

    def __init__(self, nodes: Iterable[str]) -> None:
        self.missing = set(nodes)
        self.answers: dict[str, Any] = {}
        self.answered = asyncio.Event()

    def settle(self, node: str) -> None:
        """Do not wait for a node any more."""
        self.missing.discard(node)
        if not self.missing:
            self.answered.set()


class _Introductions:
    """Which nodes have introduced themselves to one that begins to listen, and which have sent their facts."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        """Set as soon as nothing is awaited any more."""
        self.facts = 0
        """Counts the notes that other nodes have sent without a question."""
        self.begin()

    def begin(self) -> None:
        """Forget who has introduced itself: notes may have been missed."""
        self._awaited: set[str] = set()
        self._done: set[str] = set()
        self._asked: set[int] = set()
        """What the nodes know that were asked for their facts."""
        self._ready = False

    def add(self, node: str, content: dict[str, Any], *, knows_else: bool) -> bool:
        """Record an introduction, and return whether to ask this node for its facts."""
        wanted = knows_else and content["knows"] not in self._asked
        if wanted:
            self._asked.add(content["knows"])
        else:
            self._done.add(node)
        self._awaited.update(content["others"], {node})
        self._ready = self._ready or content["ready"]  # Others, which are starting, too, may know less.
        self._check()
        return wanted

    def completed(self, node: str) -> None:
        """Record that a node has sent all its facts."""
        self._done.add(node)
        self._check()

    def _check(self) -> None:
        if self._ready and self._awaited <= self._done:
            self.over.set()

    async def wait(self, *, seconds: float) -> bool:
        """Wait until all have done so, or nothing has arrived for so many seconds, but at most ten times as long.

        Return whether all have done so.
        """
        for _ in range(10):
            facts = self.facts
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    return await self.over.wait()
            if self.facts == facts:
                break
        self.over.set()
        return False
