"""Which numbers the messages of a stream have: sequences are contiguous, and numbers may skip ahead.

Each message has its offset in its subject. In a cluster, the segments may begin a few messages earlier or later than
planned, because a new leader may have other messages at the end of its log.
"""

from dataclasses import dataclass
from itertools import takewhile

_SLACK = 1_000
"""By how many messages a segment may begin earlier than planned, at most."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a stream: the message with the sequence ``first``, and later ones, have the number sequence + offset.

    ``lossy`` is whether messages before the segment may be lost. Otherwise, the numbers before it were never used.
    """

    first: int
    offset: int
    lossy: bool = False

    @property
    def base(self) -> int:
        """The number of the first message."""
        return self.first + self.offset


@dataclass(frozen=True, slots=True)
class Numbering:
    """The segments of a stream, in ascending order, of which the last one receives new messages."""

    segments: tuple[Segment, ...] = (Segment(0, 0),)

    @classmethod
    def of(cls, text: str) -> "Numbering":
        """Read what ``text`` returns. Raises ValueError for other text."""
        parts = [segment.split(":") for segment in text.split(" ")]
        segments = tuple(Segment(int(first), int(offset), kind == "lossy") for first, offset, kind in parts)
        return cls(segments)

    @property
    def text(self) -> str:
        """The numbering as text, for the metadata of a stream."""
        return " ".join(f"{each.first}:{each.offset}:{'lossy' if each.lossy else 'whole'}" for each in self.segments)

    @property
    def last(self) -> Segment:
        """The segment of new messages."""
        return self.segments[-1]

    @property
    def lost(self) -> int:
        """The number through which messages may be lost for every client, or 0."""
        return max((segment.base - 1 for segment in self.segments if segment.lossy), default=0)

    @property
    def offsets(self) -> frozenset[int]:
        """The offsets of all segments."""
        return frozenset(segment.offset for segment in self.segments)

    @property
    def lossy(self) -> frozenset[int]:
        """The offsets of segments before which messages may be lost."""
        return frozenset(segment.offset for segment in self.segments if segment.lossy)

    def number(self, sequence: int) -> int:
        """Return the number of a message in the stream, by the plan."""
        return sequence + self._segment(sequence).offset

    def sequence_after(self, number: int) -> int:
        """Return the sequence of the first message with a higher number, by the plan."""
        begun = [*takewhile(lambda segment: segment.base <= number + 1, self.segments)]
        if not begun:
            return self.segments[0].first
        sequence = number + 1 - begun[-1].offset
        # The number is one that was skipped: the next segment begins before the sequence that it would have.
        following = self.segments[len(begun) :]
        return min(sequence, following[0].first) if following else sequence

    def begin_after(self, number: int) -> int:
        """Return a sequence at or before the first message with a higher number, whatever the plan says."""
        sequence = self.sequence_after(number)
        begins = [segment.first for segment in self.segments[1:] if segment.base > number + 1]
        # Where the number is exact, only its own segment counts.
        return max(1, sequence - _SLACK) if sequence in begins else sequence

    def continued(self, sequence: int, *, number: int, lossy: bool, oldest: int) -> "Numbering":
        """Return the numbering in which this sequence and the ones after it have numbers from ``number`` on.

        Segments before the sequence ``oldest`` have no messages, and are left out.
        """
        kept = [segment for segment in self.segments if segment.first < sequence]
        ends = [segment.first for segment in kept[1:]] + [sequence] * bool(kept)
        # A segment that got no message is replaced, but what it says about the messages before it stays true.
        lossy = lossy or any(segment.lossy for segment in self.segments[len(kept) :])
        used = [segment for segment, end in zip(kept, ends, strict=True) if end > oldest]
        return Numbering((*used, Segment(sequence, number - sequence, lossy)))

    def _segment(self, sequence: int) -> Segment:
        # Of a few: one is added when the server has lost messages, and removed when its messages have aged out.
        return next((each for each in reversed(self.segments) if each.first <= sequence), self.segments[0])
