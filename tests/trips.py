"""Counts the way of one trip through the package: which of its files run, and where a call leads back up."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from source import SOURCE

_BELOW = f"{SOURCE}/"


@dataclass(repr=False)
class Trip:
    """The files of the package in the order of their first call, and the calls that return to a file further up."""

    files: list[str] = field(default_factory=list[str])
    calls: int = 0
    climbs: list[str] = field(default_factory=list[str])
    """Calls into a file that is already on the stack, from another file: ``caller -> callee``."""

    def __repr__(self) -> str:
        return "\n  ".join([f"{len(self.files)} files, {self.calls} calls", *self.files, *self.climbs])


@contextmanager
def recorded(*, until: str | None = None) -> Iterator[Trip]:
    """Record the calls of this thread, up to the first one into a file whose name begins with ``until``."""
    trip = Trip()

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and (file := _file_of(frame)) is not None:
            if until is not None and file.startswith(until):
                sys.setprofile(None)
                return
            trip.calls += 1
            if file not in trip.files:
                trip.files.append(file)
            _note_climb(trip, frame, file)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        yield trip
    finally:
        sys.setprofile(before)


def _note_climb(trip: Trip, frame: FrameType, file: str) -> None:
    caller = frame.f_back
    if caller is None or (below := _file_of(caller)) in (None, file):
        return
    further_up = caller.f_back
    while further_up is not None:
        if _file_of(further_up) == file:
            trip.climbs.append(f"{below}:{caller.f_code.co_name} -> {file}:{frame.f_code.co_name}")
            return
        further_up = further_up.f_back


def _file_of(frame: FrameType) -> str | None:
    name = frame.f_code.co_filename
    return name.removeprefix(_BELOW) if name.startswith(_BELOW) else None
