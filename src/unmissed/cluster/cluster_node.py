"""One node of a cluster: joins presence, logouts, ephemeral messages and what operators see to the notes."""

from collections.abc import Callable, Sequence
from typing import Any

from unmissed.cluster import live_notes
from unmissed.cluster.listing import Listing, UnixTime
from unmissed.cluster.live_notes import LiveNotes
from unmissed.cluster.logouts import Logouts, LogoutsHere
from unmissed.cluster.nodes import Knowledge, Nodes
from unmissed.cluster.overview import Overview, OwnNode
from unmissed.cluster.presence import Presence, presence_answers
from unmissed.core.ephemeral import Ephemeral
from unmissed.core.revocations import Revocations
from unmissed.logs.base import Channel


class ClusterNode:
    """One of the nodes that share a log. All but ``nodes``, which are the others, ask them.

    ``own`` is what this node has. ``channel`` carries the notes between nodes, and ``keys`` authenticate them; without
    a channel, the node is alone. ``deliver`` takes the ephemeral messages of other nodes. ``clock`` returns monotonic
    seconds, and ``wall_clock`` Unix seconds.
    """

    def __init__(
        self,
        own: OwnNode,
        revocations: Revocations,
        *,
        channel: Channel | None,
        keys: Sequence[bytes],
        deliver: Callable[[Sequence[Ephemeral]], None],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        connections, here = own.connections, LogoutsHere(own.connections, revocations)
        unix_time = self.unix_time = UnixTime(clock=clock, wall_clock=wall_clock)
        self.listing = Listing(connections, unix_time=unix_time, ask=self._ask)
        self.overview = Overview(own, unix_time=unix_time, ask=self._ask)
        self.live = LiveNotes(deliver, nodes=lambda: self.nodes, clock=clock)
        answers = {**presence_answers(connections), **self.listing.answers, **self.overview.answers, **here.answers}
        knowledge = Knowledge(
            handlers={**answers, live_notes.KIND: self.live.take},
            facts=here.notes,
            fingerprint=lambda: revocations.fingerprint,
            passing=frozenset({live_notes.KIND}),
        )
        self.nodes = Nodes(channel, node_id=own.node_id, keys=keys, knowledge=knowledge, clock=clock)
        self.presence = Presence(connections, ask=self._ask)
        self.logouts = Logouts(here, nodes=self.nodes)

    async def _ask(self, kind: str, content: Any) -> dict[str, Any]:
        return await self.nodes.ask(kind, content)
