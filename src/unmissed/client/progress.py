"""Where a stream is in the log, and what each frame of the server means there: events, the position, and values."""

import logging
from collections.abc import Iterator
from typing import Any

from unmissed.client.kept_values import KeptValues
from unmissed.client.link import Place
from unmissed.client.received import (
    Event,
    Gap,
    ReceivedMessage,
    Reset,
    StateLoaded,
    Unreadable,
    frame_of,
    stamped_number,
)
from unmissed.core.errors import ConfigurationError
from unmissed.core.fields import MAX_SEQUENCE_NUMBER
from unmissed.core.server_frames import AuthenticatedFrame, ConnectedFrame, FollowingFrame, GapFrame, StateFrame
from unmissed.core.window import Outcome

logger = logging.getLogger("unmissed.client")


class Progress:
    """The progress of one stream, which reads the frames in their order and asks what is to be done after each.

    ``shown_url`` is the server in error messages. ``values`` are kept if the stream has a state.
    """

    def __init__(self, place: Place, *, shown_url: str, values: KeptValues | None, has_snapshot: bool) -> None:
        self.position, self.epoch = place.number, place.epoch
        self.values = values
        self.is_stale = has_snapshot and place.number is None
        """Whether the snapshot must be loaded before anything else is received."""
        self.needs_values = False
        """Whether values may be wrong: a new connection after the position begins with all of them."""
        self.added_topics: list[str] = []
        """Topics that a renewed token has added, whose values are not requested yet."""
        self.followed: dict[str, tuple[str, ...]] = {}
        """The topics whose values are requested, by the id of the request."""
        self._shown_url = shown_url
        self._has_snapshot = has_snapshot
        self._unconfirmed = False
        """Whether the position is the number of a snapshot that the server has not answered yet."""
        self._lost = range(0)
        """The positions in the gaps that were reported: from each but the last, the server declares the rest again."""
        self._contained = 0
        """The number of the last snapshot: messages up to it are not delivered."""
        self._recovered_through = 0
        self._first = 0
        """The first number of the epoch, or 0 if the server has not sent it."""

    @property
    def place(self) -> Place:
        """Where another connection continues."""
        return Place(self.position, self.epoch)

    def loaded(self, number: int) -> bool:
        """Continue after the number of a snapshot. Return whether that takes another connection.

        Raises ConfigurationError for what is no number.
        """
        if type(number) is not int or not 0 <= number <= MAX_SEQUENCE_NUMBER:
            raise ConfigurationError(
                f"the snapshot returned {number!r}: return the sequence number that the loaded state contains, or 0"
            )
        number = max(number, self._first - 1)
        position, self.is_stale = self.position, False
        is_too_old = number in self._lost[:-1]
        if is_too_old:
            lost = (number + 1, self._lost[-1])
            logger.warning("%s: the snapshot does not contain %d to %d, of which some are lost", self._shown_url, *lost)
        self.position = self._contained = number
        # The present connection delivers what is retained of a gap. A new one after a state that stays too old would
        # begin with a gap, which ends later each time if much is published: the state would be loaded for ever.
        leads_there = position is not None and (position == number or (position < number and is_too_old))
        self._unconfirmed = self._unconfirmed or not leads_there
        return not leads_there

    def read(self, text: bytes) -> Iterator[Event]:
        """Yield what a frame means to the application."""
        try:
            frame = frame_of(text)
        except ValueError as error:
            yield from self._unreadable(text, detail=str(error))
        else:
            yield from self._take(frame)

    def _unreadable(self, text: bytes, *, detail: str) -> Iterator[Unreadable]:
        """Move past a frame, if its number can be read, so that a reconnect does not deliver it again."""
        number = stamped_number(text)
        if number is None or number > self._contained:
            logger.error("%s: message %s cannot be read: %s", self._shown_url, number, detail)
            yield Unreadable(number, detail)
        if number is not None:
            self._reach(number)

    def _take(self, frame: dict[str, Any]) -> Iterator[Event]:
        match frame:
            case {"type": ConnectedFrame.type}:
                yield from self._take_connected(frame)
            case {"type": GapFrame.type, "from": first, "to": last}:
                yield from self._gap(first, last)
                self.needs_values = self.values is not None
            case {"type": StateFrame.type, "values": values} if self.values is not None:
                yield from self._take_state(frame, values, self.values)
            case {"type": FollowingFrame.type, "removed": removed} if self.values is not None:
                self.values.forget(removed)
                self.followed.pop(frame.get("id", ""), None)
            case {"type": AuthenticatedFrame.type, "added": added, "removed": removed} if self.values is not None:
                self.values.forget(removed)
                self.added_topics += added
            case {"timestamp": _}:
                yield from self._take_message(ReceivedMessage.of(frame, recovered_through=self._recovered_through))
            case _:  # Heartbeats, answers to client frames, and types that a later version of the server adds.
                pass
        if "sequence_number" in frame:
            self._reach(frame["sequence_number"])

    def _take_message(self, message: ReceivedMessage) -> Iterator[ReceivedMessage]:
        number = message.sequence_number
        if number is not None and number <= self._contained:
            return
        if self.values is not None and message.key is not None:
            self.values.take(message)
        yield message

    def _take_state(self, frame: dict[str, Any], found: list[Any], values: KeptValues) -> Iterator[StateLoaded]:
        request_id = frame.get("id")
        values.collect((ReceivedMessage.of(each, recovered_through=0) for each in found), request_id=request_id)
        if not frame.get("has_more"):
            topics = None if request_id is None else self.followed.get(request_id, ())
            values.finish(frame["sequence_number"], topics=topics, request_id=request_id)
            yield StateLoaded(topics)

    def _reach(self, number: int) -> None:
        """Move the position, which only ``connected`` sets back."""
        self.position = max(number, self.position or 0)

    def _take_connected(self, frame: dict[str, Any]) -> Iterator[Event]:
        number = frame["sequence_number"]
        self._first = frame.get("first", 0)
        if self.values is not None:
            self._expect_state(frame, self.values)
        if frame.get("outcome") == Outcome.RESET:
            yield self._reset(frame["epoch"])
        elif frame.get("outcome") == Outcome.GAP and self.position is not None:
            # A server without both fields continues behind the gap.
            yield from self._gap(frame.get("from", max(self.position + 1, self._first)), frame.get("to", number))
        self._unconfirmed = False
        self._recovered_through = frame["latest"] if "outcome" in frame else 0
        # Last: a gap is counted from the position before, and a reset compares the epoch before.
        self.epoch, self.position = frame["epoch"], max(number, self._contained)

    def _expect_state(self, frame: dict[str, Any], values: KeptValues) -> None:
        """Begin the state that follows ``connected``, unless nothing was missed since the last one."""
        outcome = frame.get("outcome")
        if outcome != Outcome.COMPLETE and not frame.get("state"):
            raise ConfigurationError(
                f"{self._shown_url} sends no values by key: leave out state=True, or update the server"
            )
        values.begin(clear=outcome == Outcome.RESET)

    def _reset(self, epoch: str) -> Reset:
        # If this epoch is known already, the snapshot belongs to another one: loading it could be repeated for ever.
        self.is_stale = self._has_snapshot and not (self._unconfirmed and epoch == self.epoch)
        self._lost, self._contained = range(0), 0
        return Reset(epoch)

    def _gap(self, first: int, last: int) -> Iterator[Gap]:
        """Report a gap, unless it is the rest of one that was reported, which a reconnect declares again."""
        known, lost = self._lost, range(first - 1, last + 1)
        is_known = first - 1 in known
        if is_known and last in known:
            return
        self.is_stale = self._has_snapshot
        self._lost = range(known.start, lost.stop) if is_known else lost
        yield Gap(first, last)
