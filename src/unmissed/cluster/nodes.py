"""The other nodes of a shared log: asking them, answering them, and learning their facts at the start."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import isawaitable
from itertools import count
from typing import Any

from unmissed.cluster.introductions import Introductions
from unmissed.cluster.notes import Assembly, Replays, authentic, encoded
from unmissed.core.errors import LogUnavailable
from unmissed.logs.base import Channel
from unmissed.retrying import Availability
from unmissed.tasks import end

logger = logging.getLogger("unmissed")


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a node contributes to its cluster."""

    handlers: Mapping[str, Callable[[Any], Any]]
    """A function for each kind of note, async or not. It takes the content of a note, and returns the answer."""
    facts: Callable[[], list[tuple[str, Any]]]
    """Returns the notes that a newly started node needs, each a kind and its content."""
    fingerprint: Callable[[], int]
    """Returns a number that is equal on nodes with the same facts."""
    passing: frozenset[str] = frozenset()
    """Kinds of notes without an answer that are no facts: a node that starts does not wait for them."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The time limits of the notes between nodes."""

    start_seconds: float = 1.0
    """How long a starting node waits for the facts of the other nodes."""
    answer_seconds: float = 1.0
    """How long a node waits for the answers of the other nodes."""
    hello_seconds: float = 1.0
    """Seconds between hello notes. A node that is silent for three intervals is considered gone."""
    echo_seconds: float = 4.0
    """Seconds without receiving its own notes after which a node reopens its channel."""


_TIMING = Timing()


class Nodes:
    """The other nodes that share a log. ``channel`` carries the notes; without one, this node is alone.

    Notes are authenticated with the first of ``keys``, and accepted with each of them: secrets are rotated while nodes
    run. Each note is handled once: a recorded note that is sent again is ignored, unless its node had ended before this
    one started. ``clock`` returns monotonic seconds.

    A node that begins to listen sends hello. The other nodes introduce themselves with the fingerprint of their facts,
    and it asks one node for each fingerprint that is new to it, so that facts are sent once and not by every node.
    """

    def __init__(
        self,
        channel: Channel | None,
        *,
        node_id: str,
        keys: Sequence[bytes],
        knowledge: Knowledge,
        clock: Callable[[], float],
        timing: Timing = _TIMING,
    ) -> None:
        self.id = node_id
        self._channel = channel
        self._keys = keys
        self._knowledge = knowledge
        self._clock = clock
        self._timing = timing
        self._heard: dict[str, float] = {}
        """When each other node was last heard. Nodes that are starting are left out: they have no clients."""
        self._listeners: dict[str, Callable[[Any], None]] = {}
        self._asked: dict[str, _Question] = {}
        self._introductions = Introductions()
        self._facts_sent = False
        """Whether this node has sent its facts since it began to listen."""
        self._tasks: list[asyncio.Task[None]] = []
        self._assembly = Assembly()
        self._numbers = count(1)
        self._replays = Replays()
        self._hearing = Availability("used to hear other nodes")
        self._sending = Availability("used to reach other nodes")

    async def start(self) -> None:
        """Listen, and wait until this node has the facts of all other nodes, or none arrives for a second.

        Before that, it would accept tokens that the other nodes refuse.
        """
        if self._channel is None:
            return
        # Listen first: hello is sent as soon as the channel is open, when no introduction can be missed.
        self._tasks = [asyncio.create_task(self._listen(self._channel))]
        complete = await self._introductions.wait(seconds=self._timing.start_seconds)
        self._tasks.append(asyncio.create_task(self._greet(complete=complete)))

    async def stop(self, *, seconds: float) -> None:
        """Stop listening, and try for at most ``seconds`` to send goodbye, so that no other node waits for this one."""
        for task in self._tasks:
            await end(task)
        if self._tasks:
            # Last: a hello after it would let the other nodes wait for this one again.
            with contextlib.suppress(Exception):
                async with asyncio.timeout(seconds):
                    await self._send("goodbye", None)

    @property
    def others(self) -> frozenset[str]:
        """The ids of the other nodes that were heard within three hello intervals."""
        now = self._clock()
        return frozenset(node for node, at in self._heard.items() if now - at < 3 * self._timing.hello_seconds)

    @property
    def any_overdue(self) -> bool:
        """Whether another node should have been heard by now: it may be gone, and its clients with it or elsewhere."""
        now, latest = self._clock(), 1.2 * self._timing.hello_seconds
        return any(now - self._heard[node] > latest for node in self.others)

    @property
    def is_alone(self) -> bool:
        """Whether the log has no other nodes."""
        return self._channel is None

    @property
    def problem(self) -> str | None:
        """Why this node cannot hear or reach the other nodes at the moment, or None."""
        reason = self._hearing.reason or self._sending.reason
        return reason and f"the other nodes cannot be reached: {reason}"

    async def ask(self, kind: str, content: Any) -> dict[str, Any]:
        """Send a note to all other nodes, and return their answers by node.

        Nodes that do not answer within a second are left out. Raises LogUnavailable if the note does not come back to
        this node either: then it may have reached no node.
        """
        if self._channel is None:
            return {}
        # This node is one of those that are awaited: only its own note shows that the channel works.
        question = _Question([self.id, *self.others])
        question_id = secrets.token_urlsafe(9)
        # Before the note is sent: answers may arrive while it is.
        self._asked[question_id] = question
        try:
            async with asyncio.timeout(self._timing.answer_seconds):
                await self._send(kind, content, question=question_id)
                await question.answered.wait()
        except TimeoutError:
            if self.id in question.missing:
                raise LogUnavailable(self.problem or "the other nodes cannot be reached: no note comes back") from None
            logger.warning("nodes did not answer: %s", ", ".join(sorted(question.missing)))
        finally:
            del self._asked[question_id]
        return question.answers

    def listen(self, kind: str, listener: Callable[[Any], None]) -> None:
        """Call a function with the content of each note of a kind that needs no answer, and is no fact."""
        self._listeners[kind] = listener

    async def announce(self, kind: str, content: Any) -> None:
        """Send a note to all other nodes, and wait for no answer. Raises LogUnavailable."""
        await self._send(kind, content)

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
                seconds = self._hearing.failed(
                    f"this node has not heard itself for {self._timing.echo_seconds:g} seconds"
                )
            except Exception as error:
                if self._hearing.reason is None:
                    logger.exception("listening to other nodes failed")
                seconds = self._hearing.failed(f"an unexpected error: {error!r}")
            await asyncio.sleep(seconds)

    async def _authentic(self, parts: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        """Yield the parts of notes from nodes with one of the keys, and the empty part that opens the channel."""
        reported = False
        async for sealed in parts:
            part = sealed and authentic(sealed, keys=self._keys)
            if part is not None:
                yield part
            elif not reported:
                reported = True
                logger.warning(
                    "ignoring notes that no node of this log has sent: another application uses the channel, or the "
                    "nodes have different secrets"
                )

    async def _take_all(self, parts: AsyncGenerator[bytes]) -> None:
        """Handle notes. Raises TimeoutError when none has arrived for ``echo_seconds``, not even one of this node."""
        while True:
            async with asyncio.timeout(self._timing.echo_seconds):
                part = await anext(parts)
            # Other tasks run in between: hundreds of notes may have arrived together.
            await asyncio.sleep(0)
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
        """Send hello regularly. If the start was not ``complete``, ask for introductions once more.

        The node that was asked for its facts may have ended while it sent them, and another one may have the same.
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
            await asyncio.sleep(self._timing.hello_seconds)

    async def _say_hello(self) -> None:
        """Ask the other nodes to introduce themselves."""
        # Before the note: introductions may arrive while it is being sent.
        self._introductions.begin()
        self._facts_sent = False
        await self._send("hello", {"new": True})

    async def _introduce_to(self, node: str) -> None:
        """Send a node the fingerprint of these facts, and the ids of the nodes that will introduce themselves, too."""
        others = sorted(self.others - {node})
        introduction = {"to": node, "knows": self._knowledge.fingerprint(), "ready": self._introductions.over.is_set()}
        await self._send("introduction", {**introduction, "others": others})

    async def _take_introduction(self, node: str, content: dict[str, Any]) -> None:
        """Exchange facts with a node, unless both have the same, or another node with the same facts was asked."""
        if content["ready"]:
            self._heard[node] = self._clock()
        differs = content["knows"] != self._knowledge.fingerprint()
        if self._introductions.add(node, content, differs=differs):
            await self._send("wanted", {"from": node})
        if differs and not self._facts_sent:
            self._facts_sent = True
            await self._send_facts()

    async def _send_facts(self) -> None:
        for kind, content in self._knowledge.facts():
            await self._send(kind, content)
            await asyncio.sleep(0)  # Some channels send without waiting, and there may be hundreds of facts.

    async def _take(self, note: dict[str, Any]) -> None:
        if note["node"] == self.id:
            # A note of this node, which has come back: it only shows that the channel works.
            self._settle(note.get("question"), self.id)
        elif self._replays.is_new(note["node"], note["number"]):
            await self._handle(note, note["node"], note["kind"], note["content"])

    async def _handle(self, note: dict[str, Any], node: str, kind: str, content: Any) -> None:
        match kind:
            case "goodbye":
                self._heard.pop(node, None)
                # It answers no more questions: without this, each would wait for its whole second.
                for question_id in self._asked:
                    self._settle(question_id, node)
            case "answer" if note["question"] in self._asked:
                self._asked[note["question"]].answers[node] = content
                self._settle(note["question"], node)
            case _ if kind in self._listeners:
                self._listeners[kind](content)
            case _ if kind in self._knowledge.handlers:
                answer = self._knowledge.handlers[kind](content)
                if isawaitable(answer):
                    answer = await answer
                if "question" in note:
                    await self._send("answer", answer, question=note["question"])
                elif kind not in self._knowledge.passing:
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
                # Last: the other node then considers the facts complete.
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
            for part in encoded(note, key=self._keys[0]):
                await self._channel.send(part)


class _Question:
    """A question to some nodes, and the answers so far. A node that was unknown may answer, too."""

    def __init__(self, nodes: Iterable[str]) -> None:
        self.missing = set(nodes)
        self.answers: dict[str, Any] = {}
        self.answered = asyncio.Event()

    def settle(self, node: str) -> None:
        """Stop waiting for a node."""
        self.missing.discard(node)
        if not self.missing:
            self.answered.set()
