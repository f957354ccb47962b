"""A clock that tests advance manually."""


class ManualClock:
    """A clock in seconds, usable as both monotonic and wall clock. Only ``advance`` changes its time."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self.now += seconds
