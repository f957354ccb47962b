"""The values by key that a stream keeps: state frames replace them, and messages change them."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from unmissed.client.received import ReceivedMessage

_Audiences = dict[frozenset[str], list[ReceivedMessage]]
"""The messages of the values of one key, by the topics that they were published to."""


@dataclass(frozen=True, slots=True)
class KeptValue:
    """The value of a key: the message that set it, and after it the pieces that were appended."""

    messages: tuple[ReceivedMessage, ...]

    @property
    def type(self) -> str:
        """The type of the message that set the value."""
        return self.messages[0].type

    @property
    def data(self) -> Any:
        """The data of the message that set the value, or of the first piece if there are only pieces."""
        return self.messages[0].data


class KeptValues:
    """The values of one stream. A message changes nothing if the state that was loaded last contains it already."""

    def __init__(self) -> None:
        self.loaded = False
        """Whether a whole state has arrived."""
        self._by_topic: dict[str | None, dict[str, _Audiences]] = {}
        """By topic and key. Values without topics are at None."""
        self._parts: dict[str | None, list[ReceivedMessage]] = {}
        """What has arrived of a state, by the id of the request for it."""
        self._loaded_through: dict[str | None, int] = {}
        self._all_loaded_through = 0

    def of(self, topic: str | None) -> Mapping[str, _Audiences]:
        """Return the values that were published to a topic, by key."""
        return self._by_topic.get(topic, {})

    def begin(self, *, clear: bool) -> None:
        """Begin a connection, on which states arrive from their start. ``clear``: in another epoch, without values."""
        self._parts.clear()
        if clear:
            self._by_topic.clear()
            self._loaded_through, self._all_loaded_through = {}, 0

    def collect(self, messages: Iterable[ReceivedMessage], *, request_id: str | None) -> None:
        """Add a part of a state, which changes nothing before ``finish``."""
        self._parts.setdefault(request_id, []).extend(messages)

    def finish(self, number: int, *, topics: Collection[str] | None, request_id: str | None) -> None:
        """Replace the values of these topics, by default all, with the state that has arrived, cut at ``number``."""
        messages = self._parts.pop(request_id, [])
        if topics is None:
            self.begin(clear=True)
            self.loaded = True
            self._all_loaded_through = number
        else:
            self.forget(topics)
            self._loaded_through.update(dict.fromkeys(topics, number))
        for message in messages:
            for place in message.topics or (None,):
                if topics is None or place in topics:
                    self._change(place, message)

    def forget(self, topics: Iterable[str]) -> None:
        """Drop the values of topics."""
        for topic in topics:
            self._by_topic.pop(topic, None)

    def take(self, message: ReceivedMessage) -> None:
        """Do what a message says about the value of its key."""
        number = message.sequence_number or 0
        for place in message.topics or (None,):
            if number > max(self._all_loaded_through, self._loaded_through.get(place, 0)):
                self._change(place, message)

    def _change(self, place: str | None, message: ReceivedMessage) -> None:
        assert message.key is not None  # noqa: S101  # the caller has checked it
        keys = self._by_topic.setdefault(place, {})
        audiences, audience = keys.setdefault(message.key, {}), frozenset(message.topics)
        if message.append:
            audiences.setdefault(audience, []).append(message)
        else:
            audiences.pop(audience, None)
            if not message.deleted:
                audiences[audience] = [message]
        if not audiences:
            del keys[message.key]


class TopicState(Mapping[str, KeptValue]):
    """The values of a topic by key. It changes while its stream is read."""

    def __init__(self, values: KeptValues, topic: str | None) -> None:
        self._values = values
        self._topic = topic

    def __getitem__(self, key: str) -> KeptValue:
        audiences = self._values.of(self._topic)[key]
        # A key has one value for each audience, such as this topic alone, and this one and another: the newest counts.
        newest = max([*audiences.values()], key=lambda messages: messages[-1].sequence_number or 0)
        return KeptValue(tuple(newest))

    def __iter__(self) -> Iterator[str]:
        # A copy: a loop may wait, and the values change meanwhile.
        return iter([*self._values.of(self._topic)])

    def __len__(self) -> int:
        return len(self._values.of(self._topic))

    def __repr__(self) -> str:
        return f"TopicState({self._topic!r}, {dict(self)!r})"
