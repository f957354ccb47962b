"""What operators see of all nodes besides connections: topics, the nodes themselves, and their last hour."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from heapq import nlargest, nsmallest
from typing import Any

from unmissed.delivery.history import History, HistoryEntry
from unmissed.delivery.measures import NodeMeasures
from unmissed.delivery.registry import Registry
from unmissed.tasks import Pace

MAX_COUNTED_TOPICS = 10_000
"""Topics that one node counts in its answer, those with the most connections."""

_MINUTE = 60


@dataclass(frozen=True, slots=True)
class OwnNode:
    """What operators see of this node. ``facts`` returns what it says of itself, and ``measured`` its measures."""

    node_id: str
    connections: Registry
    history: History
    facts: Callable[[], dict[str, Any]]
    measured: Callable[[], NodeMeasures]


@dataclass(frozen=True, slots=True)
class TopicCounts:
    """How many connections follow each of the topics with the most of them, and how many topics there are."""

    connections: Mapping[str, int]
    total: int
    matching: int


@dataclass(frozen=True, slots=True)
class PastEvent:
    """An entry of the history of a node. ``time`` is in Unix seconds."""

    node_id: str
    time: float
    entry: HistoryEntry


@dataclass(frozen=True, slots=True)
class PastMinute:
    """How many events of a kind and close code there were on all nodes in a minute that began at a Unix time."""

    time: int
    kind: str
    code: int | None
    count: int


@dataclass(frozen=True, slots=True)
class Past:
    """The newest events of all nodes, the newest first, and the number of all events. ``since`` is in Unix seconds."""

    events: list[PastEvent]
    minutes: list[PastMinute]
    since: float


class Overview:
    """What operators see of all nodes.

    ``ask`` sends a kind of question and its content to the other nodes, and returns their answers by node.
    ``unix_time`` converts monotonic seconds to Unix seconds. All methods raise LogUnavailable if the nodes cannot reach
    each other, and leave out nodes that do not answer.
    """

    def __init__(
        self,
        own: OwnNode,
        *,
        unix_time: Callable[[float], float],
        ask: Callable[[str, Any], Awaitable[Mapping[str, Any]]],
    ) -> None:
        self._own = own
        self._unix_time = unix_time
        self._ask = ask

    @property
    def answers(self) -> dict[str, Callable[[Any], Any]]:
        """The functions that answer the questions of other nodes, as JSON, by kind."""

        async def topics(search: Any) -> Any:
            return asdict(await self._topics_here(search))

        return {
            "topics": topics,
            "facts": lambda _: self._own.facts(),
            "measures": lambda _: asdict(self._own.measured()),
            "history": lambda wanted: asdict(self._past_here(**wanted)),
        }

    async def topics(self, *, search: str, limit: int) -> TopicCounts:
        """Return the topics that contain a text, the ``limit`` of them with the most connections.

        If a node has more than MAX_COUNTED_TOPICS of them, counts of other nodes are lower bounds, and the numbers of
        topics upper ones. Otherwise they are exact.
        """
        search = search.casefold()
        here = await self._topics_here(search)
        nodes = [here, *(TopicCounts(**answer) for answer in (await self._ask("topics", search)).values())]
        counts = Counter[str]()
        for node in nodes:
            counts.update(node.connections)
        # A topic on several nodes is one topic.
        repeated = sum(len(node.connections) for node in nodes) - len(counts)
        total = sum(node.total for node in nodes) - repeated
        return TopicCounts(_largest(counts, limit), total, sum(node.matching for node in nodes) - repeated)

    async def nodes(self, others: Iterable[str]) -> dict[str, dict[str, Any] | None]:
        """Return what this node and the other nodes say of themselves, and None for one that does not answer."""
        answers = await self._ask("facts", None)
        return {self._own.node_id: self._own.facts(), **dict.fromkeys(others), **answers}

    def measures_here(self) -> dict[str, NodeMeasures]:
        """Return the measures of this node by its id."""
        return {self._own.node_id: self._own.measured()}

    async def measures(self) -> dict[str, NodeMeasures]:
        """Return the measures of all nodes by their ids."""
        answers = await self._ask("measures", None)
        return {**self.measures_here(), **{node: NodeMeasures(**answer) for node, answer in answers.items()}}

    async def past(self, *, limit: int, kind: str | None = None) -> Past:
        """Return the last hour: the newest events, of one kind or of all, and how many there were of each."""
        nodes = [self._past_here(limit=limit, kind=kind)]
        nodes += [_past(answer) for answer in (await self._ask("history", {"limit": limit, "kind": kind})).values()]
        events = nlargest(limit, (event for node in nodes for event in node.events), key=lambda event: event.time)
        return Past(events, [minute for node in nodes for minute in node.minutes], min(node.since for node in nodes))

    async def _topics_here(self, search: str) -> TopicCounts:
        """Return the connections to this node for each topic whose name contains a text, which has no upper case."""
        pace, counts, total = Pace(), Counter[str](), 0
        for topic, number in self._own.connections.topics():
            await pace.keep()
            total += 1
            if search in topic.casefold():
                counts[topic] = number
        return TopicCounts(_largest(counts, MAX_COUNTED_TOPICS), total, len(counts))

    def _past_here(self, *, limit: int, kind: str | None) -> Past:
        history, node_id, unix_time = self._own.history, self._own.node_id, self._unix_time
        return Past(
            [PastEvent(node_id, unix_time(each.at), each) for each in history.entries(limit=limit, kind=kind)],
            [
                # Minutes of the monotonic clock. Rounded, they are those of the wall clock on all nodes.
                PastMinute(int(unix_time(start)) // _MINUTE * _MINUTE, name, code, count)
                for start, counts in history.minutes()
                for (name, code), count in counts.items()
            ],
            unix_time(history.since),
        )


def _past(answer: Mapping[str, Any]) -> Past:
    """Return the past of another node, which has come as JSON."""
    events = [PastEvent(event["node_id"], event["time"], HistoryEntry(*event["entry"])) for event in answer["events"]]
    return Past(events, [PastMinute(**minute) for minute in answer["minutes"]], answer["since"])


def _largest(counts: Counter[str], limit: int) -> dict[str, int]:
    """Return the largest counts, and equal ones in alphabetical order."""
    return dict(nsmallest(limit, counts.items(), key=lambda item: (-item[1], item[0])))
