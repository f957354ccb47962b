"""What one client was promised within one epoch, from its first position to its last."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Life:
    """A stretch of one client's history without a reset. It has a right to all after ``floor``, up to ``position``."""

    epoch: str
    floor: int
    position: int = field(init=False)
    seen: set[int] = field(default_factory=set)
    gaps: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.position = self.floor

    def reach(self, number: int) -> None:
        """Move the position, which never goes back."""
        self.position = max(self.position, number)

    def accounts_for(self, number: int) -> bool:
        """Return whether the client received this number, or was told that it is lost."""
        return number in self.seen or any(first <= number <= last for first, last in self.gaps)
