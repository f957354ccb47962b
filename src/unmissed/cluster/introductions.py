"""Introductions: which facts of other nodes a starting node has, and which it still waits for."""

import asyncio
import contextlib
from typing import Any


class Introductions:
    """The nodes that have introduced themselves since this one began to listen, and those with no more facts for it."""

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
        self._asked: dict[int, str] = {}
        """The node that was asked for the facts of each fingerprint."""
        self._ready = False

    def add(self, node: str, content: dict[str, Any], *, differs: bool) -> bool:
        """Record an introduction, and return whether to ask this node for its facts."""
        knows = content["knows"]
        wanted = differs and knows not in self._asked
        if wanted:
            self._asked[knows] = node
        elif not differs or self._asked[knows] != node:
            # A node that was asked and introduces itself again has still to send its facts.
            self._done.add(node)
        self._awaited.update(content["others"], {node})
        # One node that has started is needed: nodes that are all starting may lack the same facts.
        self._ready = self._ready or content["ready"]
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

        Waiting ends when no fact has arrived for ``seconds``, and in any case after ten times ``seconds``.
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
