"""What is measured while messages are delivered. ``api/metrics_routes.py`` reads and names the figures."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from unmissed.core.close_codes import KNOWN_CODES
from unmissed.core.reader import ReadCounts

BUCKETS = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the histograms' buckets, in seconds."""


class Histogram:
    """Counts of observed times: for each bucket of BUCKETS, and for all above."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds


class Measures(ReadCounts):
    """Counters since the start of the manager, of this process alone, also if other nodes share its log."""

    def __init__(self) -> None:
        super().__init__()
        self.published = 0
        """Messages that this process has published."""
        self.ephemeral_published = 0
        """Ephemeral messages that this process has published."""
        self.ephemeral_delivered = 0
        """Ephemeral messages written to connections."""
        self.ephemeral_dropped = 0
        """Ephemeral messages that were dropped for all connections of this process."""
        self.recoveries = Counter[tuple[str, str]]()
        """Recoveries by transport, ``websocket``, ``events`` or ``rest``, and outcome."""
        self.closes = Counter[int]()
        """Ended connections by close code."""
        self.refusals = Counter[int]()
        """Refused requests and connections by close code, also those that were answered over HTTP."""
        self.stalls = 0
        """Connections that were dropped because their client took nothing."""
        self.flush_seconds = Histogram()
        self.publish_to_write_seconds = Histogram()
        """From the append of each message to the end of the flush that wrote it."""

    def report(self, *, counters: Mapping[str, int], gauges: Mapping[str, float]) -> "NodeMeasures":
        """Return what is measured now, with these counters and gauges of other parts of the node."""
        return NodeMeasures(
            counters={
                "published": self.published,
                "delivered": self.delivered,
                "ephemeral_published": self.ephemeral_published,
                "ephemeral_delivered": self.ephemeral_delivered,
                "ephemeral_dropped": self.ephemeral_dropped,
                "gaps": self.gaps,
                "stalls": self.stalls,
                **counters,
            },
            gauges=gauges,
            recoveries=[(transport, outcome, count) for (transport, outcome), count in self.recoveries.items()],
            closes=_by_known_code(self.closes),
            refusals=_by_known_code(self.refusals),
            histograms={
                name: ([*histogram.counts], histogram.total)
                for name, histogram in (
                    ("flush_seconds", self.flush_seconds),
                    ("publish_to_write_seconds", self.publish_to_write_seconds),
                )
            },
        )


@dataclass(frozen=True, slots=True)
class NodeMeasures:
    """What one node has measured, in values that have a JSON form."""

    counters: Mapping[str, int]
    gauges: Mapping[str, float]
    recoveries: list[tuple[str, str, int]]
    """Transport, outcome, and how many."""
    closes: Mapping[str, int]
    refusals: Mapping[str, int]
    histograms: Mapping[str, tuple[list[int], float]]
    """For each bucket of BUCKETS, and for all above, how many; and the sum of all."""


def _by_known_code(counts: Mapping[int, int]) -> dict[str, int]:
    """Return the counts by code. Clients choose codes, so unknown ones are counted together."""
    found = Counter[str]()
    for code, count in counts.items():
        found[str(int(code)) if code in KNOWN_CODES else "other"] += count
    return dict(found)
