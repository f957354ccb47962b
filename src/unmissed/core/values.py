"""Values by key: for each key and audience the newest value, and the pieces that were added to it."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from unmissed.core.audience import Audience
from unmissed.core.messages import Message, Value

_ValueId = tuple[frozenset[str] | None, str]


@dataclass(slots=True)
class _Pieces:
    """A value that pieces were added to. ``base`` is the value or the tombstone before them, if it is retained."""

    base: Message | None
    pieces: list[Message] = field(default_factory=list)
    damaged: bool = False
    """Whether a part of it was evicted, so that what is left is not the value."""


MAX_ENDED = 10_000
"""How many values are remembered of which all pieces were evicted. Beyond that, further pieces begin a new value."""


class Values:
    """The retained messages with a key. The same key with another audience is another value.

    A value, or a tombstone, replaces everything before it: a client that receives it needs nothing else. Pieces and
    tombstones are otherwise like any other message.
    """

    def __init__(self) -> None:
        self._known: dict[_ValueId, Message | _Pieces] = {}
        """Most values have no pieces: the message alone takes less memory."""
        self._ended: dict[int, None] = {}
        """Hashes of values whose pieces were all evicted, the latest last: further pieces do not make them whole."""

    def __len__(self) -> int:
        return len(self._known)

    def add(self, message: Message, value: Value, *, whole: bool) -> Sequence[Message]:
        """Add a message, whose ``value`` is not None, and return the messages that it replaces.

        ``whole`` is false if the value that a piece is added to may have had a part that is not retained.
        """
        identity = message.audience.keys, value.key
        known = self._known.get(identity)
        if not value.append:
            self._ended.pop(hash(identity), None)
            self._known[identity] = message
            return _parts(known)
        if not isinstance(known, _Pieces):
            known = self._known[identity] = _Pieces(known, damaged=not whole or hash(identity) in self._ended)
        known.pieces.append(message)
        return ()

    def damage(self, message: Message, value: Value) -> None:
        """Note that pieces of a value, which has just been added, are lost."""
        self._known[message.audience.keys, value.key] = _Pieces(message, damaged=True)

    def evicted(self, message: Message, value: Value) -> None:
        """Forget a message of which the log has no room, or whose time is over."""
        identity = message.audience.keys, value.key
        known = self._known[identity]
        if isinstance(known, _Pieces):
            if known.base is message:
                # What the pieces were added to is gone. A tombstone is no part of the value.
                known.base, known.damaged = None, known.damaged or not value.deleted
            else:
                known.pieces.remove(message)
                known.damaged = True
            if known.pieces or known.base is not None:
                return
            self._ended[hash(identity)] = None
            if len(self._ended) > MAX_ENDED:
                del self._ended[next(iter(self._ended))]
        del self._known[identity]

    def of(self, audience: Audience, key: str) -> Message | None:
        """Return the newest value or tombstone of a key with this audience, without the pieces after it."""
        known = self._known.get((audience.keys, key))
        return known.base if isinstance(known, _Pieces) else known

    def is_whole(self, message: Message) -> bool:
        """Return whether every part of the value that a retained message belongs to is retained, too."""
        known = self._known.get((message.audience.keys, message.key or ""))
        return not (isinstance(known, _Pieces) and known.damaged)

    def ending_with(self, message: Message, *, through: int) -> Sequence[Message]:
        """Return the parts up to a number of the value that a retained message belongs to, if it is the last of them.

        Return none for another part, for a value that is not whole, and for a tombstone.
        """
        known = self._known.get((message.audience.keys, message.key or ""))
        if not isinstance(known, _Pieces):
            return (message,) if known is message and message.value and message.value.is_full else ()
        count = bisect_right(known.pieces, through, key=attrgetter("sequence_number"))
        base = () if known.base is None or (known.base.value and known.base.value.deleted) else (known.base,)
        last = known.pieces[count - 1] if count else next(iter(base), None)
        return (*base, *known.pieces[:count]) if last is message and not known.damaged else ()


def _parts(known: Message | _Pieces | None) -> Sequence[Message]:
    if isinstance(known, _Pieces):
        return known.pieces if known.base is None else (known.base, *known.pieces)
    return () if known is None else (known,)
