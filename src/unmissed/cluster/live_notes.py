"""Ephemeral messages over nodes: notes, which the other nodes deliver after what came before them."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from unmissed.cluster.nodes import Nodes
from unmissed.core.audience import EVERYONE, Audience
from unmissed.core.ephemeral import Ephemeral
from unmissed.core.errors import LogUnavailable

logger = logging.getLogger("unmissed")

KIND = "ephemeral"

HOLD_SECONDS = 1.0
"""How long a node holds an ephemeral message of another node until it has the messages before it."""

_NOTE_BYTES = 262_144
"""Bytes of messages in one note. A single message may be larger."""


class LiveNotes:
    """Sends ephemeral messages to the other nodes, and passes theirs to ``deliver``. ``clock``: monotonic seconds."""

    def __init__(
        self, deliver: Callable[[Sequence[Ephemeral]], None], *, nodes: Callable[[], Nodes], clock: Callable[[], float]
    ) -> None:
        self._deliver = deliver
        self._nodes = nodes
        self._clock = clock

    async def send(self, messages: Iterable[Ephemeral]) -> bool:
        """Send messages to the other nodes, if there are any, and return whether the notes have left."""
        nodes = self._nodes()
        if not nodes.others:
            return True
        try:
            for block in _blocks(messages):
                await nodes.announce(KIND, [_encoded(message) for message in block])
        except LogUnavailable as error:
            # They are delivered now or never: the publisher could only send them again, and twice to some.
            logger.debug("ephemeral messages have not reached the other nodes: %s", error.reason)
            return False
        return True

    def take(self, content: Any) -> None:
        """Deliver messages of another node, as soon as this node has the messages before them."""
        ends_at = self._clock() + HOLD_SECONDS
        self._deliver([_decoded(each, ends_at=ends_at) for each in content])


def _blocks(messages: Iterable[Ephemeral]) -> Iterator[list[Ephemeral]]:
    block, size = list[Ephemeral](), 0
    for message in messages:
        size += len(message.payload)
        if block and size > _NOTE_BYTES:
            yield block
            block, size = [], len(message.payload)
        block.append(message)
    if block:
        yield block


def _encoded(message: Ephemeral) -> list[Any]:
    """Return a message as JSON values. Its own JSON is a text in them, so that all nodes send the same bytes."""
    keys = message.audience.keys
    return [message.after, None if keys is None else message.audience.keys_in_order, message.payload.decode()]


def _decoded(content: Sequence[Any], *, ends_at: float) -> Ephemeral:
    after, keys, payload = content
    return Ephemeral(payload.encode(), EVERYONE if keys is None else Audience.with_keys(keys), after, ends_at)
