"""A clock that tests move by hand."""


class ManualClock:
    """A monotonic and a wall clock in one, in seconds. It moves only by ``advance``."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self.now += seconds
