"""Introductions: what a node that begins to listen learns about the other nodes, and what it waits for."""

import asyncio
import contextlib
from typing import Any


class Introductions:
    """The nodes that have introduced themselves since this one began to listen, and those whose facts it has."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        """Set when the facts of all nodes have arrived, or are no longer awaited."""
        self.facts = 0
        """Counts the notes that other nodes have sent without a question."""
        self.begin()

    def begin(self) -> None:
        """Forget who has introduced itself: notes may have been missed."""
        self._awaited: set[str] = set()
        self._done: set[str] = set()
        self._asked: set[int] = set()
        """The fingerprints of the facts that were asked for."""
        self._ready = False

    def add(self, node: str, content: dict[str, Any], *, knows_else: bool) -> bool:
        """Record an introduction, and return whether to ask this node for its facts."""
        wanted = knows_else and content["knows"] not in self._asked
        if wanted:
            self._asked.add(content["knows"])
        else:
            self._done.add(node)
        self._awaited.update(content["others"], {node})
        self._ready = self._ready or content["ready"]  # A node that is starting, too, may lack facts.
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
        """Wait for the facts of all nodes, and return whether they are complete.

        Waiting ends when no fact arrives for ``seconds``, and after ten times as long in any case.
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
