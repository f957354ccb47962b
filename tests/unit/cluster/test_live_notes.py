"""Ephemeral messages between nodes: what is sent, in which notes, and what another node makes of it."""

from typing import Any

from support import nth
from unmissed.cluster.live_notes import HOLD_SECONDS, KIND, LiveNotes
from unmissed.core.audience import EVERYONE, Audience
from unmissed.core.ephemeral import Ephemeral
from unmissed.core.errors import LogUnavailable


class Others:
    """The other nodes. It records the notes that were announced to them."""

    def __init__(self, *others: str, available: bool = True) -> None:
        self.others = frozenset(others)
        self.announced: list[tuple[str, Any]] = []
        self._available = available

    async def announce(self, kind: str, content: Any) -> None:
        if not self._available:
            raise LogUnavailable("no connection")
        self.announced.append((kind, content))


def notes(others: Others, delivered: list[Ephemeral] | None = None) -> LiveNotes:
    found = [] if delivered is None else delivered
    return LiveNotes(found.extend, nodes=lambda: others, clock=lambda: 100.0)  # type: ignore[arg-type, return-value]


NEWS = Audience.of(topics=["news", "sport"], users=["bob"])


async def test_another_node_delivers_the_same_bytes_to_the_same_audience_after_the_same_number() -> None:
    others, delivered = Others("b"), list[Ephemeral]()
    sent = [Ephemeral('{"é":1}'.encode(), NEWS, nth(7), 3.0), Ephemeral(b"{}", EVERYONE, nth(7), 3.0)]

    await notes(others).send(sent)
    [(kind, content)] = others.announced
    notes(Others(), delivered).take(content)

    assert KIND == kind
    assert [(each.payload, each.audience, each.after, 100.0 + HOLD_SECONDS) for each in sent] == [
        (each.payload, each.audience, each.after, each.ends_at) for each in delivered
    ]
    assert NEWS.first == delivered[0].audience.first


async def test_large_messages_are_sent_in_several_notes() -> None:
    others = Others("b")

    await notes(others).send([Ephemeral(b"x" * 200_000, EVERYONE, 0, 0.0)] * 3)

    assert [1, 1, 1] == [len(content) for _, content in others.announced]


async def test_a_node_that_is_alone_sends_nothing() -> None:
    others = Others()

    assert await notes(others).send([Ephemeral(b"{}", EVERYONE, 0, 0.0)])
    assert [] == others.announced


async def test_other_nodes_that_cannot_be_reached_are_no_error_for_the_publisher() -> None:
    assert not await notes(Others("b", available=False)).send([Ephemeral(b"{}", EVERYONE, 0, 0.0)])
