"""What happens to networks and to processes, drawn by a seed."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain

_LEAST_BYTES, _MOST_BYTES = 60, 200_000
_HEALTHY_SHARE = 0.4
_FIRST_SHARE = 0.2
_LEAST_PAUSE, _MOST_PAUSE = 0.5, 3.0
_LEAST_DOWN, _MOST_DOWN = 0.1, 2.5


class NetworkFault(StrEnum):
    """What a connection suffers."""

    LATENCY = "latency"
    SLICES = "slices"
    STALL = "stall"
    CUT = "cut"
    RESET = "reset"

    @property
    def is_steady(self) -> bool:
        """Whether it takes effect from the first byte on."""
        return self in (NetworkFault.LATENCY, NetworkFault.SLICES)

    @property
    def is_an_end(self) -> bool:
        """Whether it ends the connection."""
        return self in (NetworkFault.CUT, NetworkFault.RESET)


@dataclass(frozen=True, slots=True)
class ConnectionFault:
    """The fault of one connection: in which direction, after how many bytes, and for how many seconds."""

    fault: NetworkFault
    upwards: bool
    """Whether it concerns what the client sends, and not what the server sends."""
    after: int
    seconds: float
    slice_bytes: int = 7
    """How many bytes are written at a time if the fault is SLICES."""
    cut_after: int | None = None
    """After how many bytes the connection ends in addition to another fault."""

    def left(self, passed: int) -> int | None:
        """Return how many bytes pass before the connection ends, or None if it does not end."""
        end = self.after if self.fault.is_an_end else self.cut_after
        return None if end is None else end - passed


class ProcessFault(StrEnum):
    """What happens to a process."""

    KILL = "kill -9 of a node"
    SUSPEND = "suspension of a node"
    RESTART = "restart of a node"
    KILL_ENGINE = "kill -9 of the engine"


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """One fault of a process. Times are in seconds."""

    pause: float
    """How long everything runs before."""
    fault: ProcessFault
    target: int
    """The index of the node or of the process of the engine."""
    down: float
    """How long the process is suspended, or not started again."""


def drawn(chance: random.Random) -> ConnectionFault | None:
    """Return what happens to the next connection; None for nothing."""
    fault = chance.choice(list(NetworkFault))
    upwards = chance.random() < 0.3
    after = round(math.exp(chance.uniform(math.log(_LEAST_BYTES), math.log(_MOST_BYTES))))
    seconds = chance.uniform(0.002, 0.03) if fault is NetworkFault.LATENCY else chance.uniform(0.1, 6.0)
    return None if chance.random() < _HEALTHY_SHARE else ConnectionFault(fault, upwards, after, seconds)


def planned(chance: random.Random, *, seconds: float, nodes: int, engines: int) -> Iterator[PlannedFault]:
    """Yield faults without end for a run of ``seconds``. The first kills a node, the second the engine, if any."""
    faults = [*ProcessFault] if engines else [ProcessFault.KILL, ProcessFault.SUSPEND, ProcessFault.RESTART]
    first = [ProcessFault.KILL, ProcessFault.KILL_ENGINE] if engines else [ProcessFault.KILL]
    for index, fault in enumerate(chain(first, iter(lambda: chance.choice(faults), None))):
        pause = chance.uniform(_LEAST_PAUSE, _MOST_PAUSE) if index else _FIRST_SHARE * seconds
        target = chance.randrange(engines if fault is ProcessFault.KILL_ENGINE else nodes)
        yield PlannedFault(pause, fault, target, chance.uniform(_LEAST_DOWN, _MOST_DOWN))
