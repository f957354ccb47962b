"""One node of a cluster: joins presence and logouts to the notes between nodes."""

from collections.abc import Callable, Sequence

from unmissed.cluster.logouts import Logouts, LogoutsHere
from unmissed.cluster.nodes import Knowledge, Nodes
from unmissed.cluster.presence import Presence, presence_answers
from unmissed.core.revocations import Revocations
from unmissed.delivery.registry import Registry
from unmissed.logs.base import Channel


class ClusterNode:
    """One of the nodes that share a log. ``presence`` and ``logouts`` ask the other nodes, which are ``nodes``.

    ``connections`` are those of this node. ``channel`` carries the notes between nodes, and ``keys`` authenticate them;
    without a channel, the node is alone. ``clock`` returns monotonic seconds, and ``wall_clock`` Unix seconds.
    """

    def __init__(
        self,
        connections: Registry,
        revocations: Revocations,
        *,
        node_id: str,
        channel: Channel | None,
        keys: Sequence[bytes],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        def unix_time(monotonic: float) -> float:
            return wall_clock() - (clock() - monotonic)

        here = LogoutsHere(connections, revocations)
        knowledge = Knowledge(
            handlers={**presence_answers(connections, unix_time=unix_time), **here.answers},
            facts=here.notes,
            fingerprint=lambda: revocations.fingerprint,
        )
        self.nodes = Nodes(channel, node_id=node_id, keys=keys, knowledge=knowledge, clock=clock)
        self.presence = Presence(connections, ask=self.nodes.ask, unix_time=unix_time)
        self.logouts = Logouts(here, nodes=self.nodes)
