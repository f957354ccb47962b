"""The parts of a client's history: what it has a right to, what it got, and what was declared lost."""

from bisect import bisect_left
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stretch:
    """A part of one client's history without a reset. The client has a right to (``floor``, ``position``]."""

    epoch: str
    floor: int
    position: int = field(init=False)
    seen: set[int] = field(default_factory=set)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    """For each position, the index of the fact that moved the client there."""
    replaced: set[int] = field(default_factory=set)
    """The numbers that did not come because later messages for the same key had replaced them."""

    def __post_init__(self) -> None:
        self.position = self.floor

    def reach(self, number: int, index: int) -> None:
        """Move the position, which never goes back, by the fact with this index."""
        if number > self.position:
            self.position = number
            self.positions.append(number)
            self.indices.append(index)

    def index_of(self, number: int) -> int:
        """Return the index of the fact by which the client had passed a number."""
        return self.indices[bisect_left(self.positions, number)]

    def is_in_a_gap(self, number: int) -> bool:
        """Return whether the number is in the range of a gap."""
        return any(first <= number <= last for first, last in self.gaps)

    def is_whole_between(self, low: int, high: int) -> bool:
        """Return whether the client has a right to all numbers between two, and none of them was declared lost."""
        in_a_gap = any(first < high and last > low for first, last in self.gaps)
        return self.floor <= low and high <= self.position and not in_a_gap
