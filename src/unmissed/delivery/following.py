"""The topics that one connection follows, since when, and the keys that make messages visible to it."""

from unmissed.core.audience import keys_of, topic_key
from unmissed.core.window import Outcome, Window
from unmissed.delivery.past import Past


class Following:
    """The topics of one connection that began at the position ``start``. ``chosen``: whether its client chose them."""

    __slots__ = ("_after", "_keys", "_start", "_user_id", "chosen", "topics")

    def __init__(self, user_id: str, topics: frozenset[str], *, chosen: bool, start: int) -> None:
        self.topics = topics
        self.chosen = chosen
        self._user_id = user_id
        self._start = start
        self._keys: frozenset[str] | None = None
        self._after: dict[str, int] | None = None
        """For each key of a topic that was followed later: the number after which its messages are sent."""

    @property
    def keys(self) -> frozenset[str]:
        """The keys of the user and the topics. They are created for the first message that is not for everyone."""
        if self._keys is None:
            self._keys = keys_of(self._user_id, self.topics)
        return self._keys

    def change(self, topics: frozenset[str], *, position: int) -> None:
        """Follow these topics instead, those that are new from this position on."""
        after = self._after or {}
        for key in map(topic_key, self.topics - topics):
            after.pop(key, None)
        after.update(dict.fromkeys(map(topic_key, topics - self.topics), position))
        self._after = after or None
        self._keys = None
        self.topics = topics

    def past(
        self, topics: frozenset[str], *, keys: frozenset[str], since: int, epoch: str | None, until: int, window: Window
    ) -> Past:
        """Return the messages of new topics after ``since`` that were not sent for the ``keys`` followed before."""
        after = self._after or {}
        sent_after = {key: after.get(key, self._start) for key in keys}
        outcome, start = window.locate(since, epoch=epoch)
        if outcome is Outcome.GAP:
            # What was evicted may not have been for the new topics. 0 stands for the start of this epoch.
            outcome, start = Outcome.COMPLETE, max(since, window.first_number - 1)
        new = frozenset(map(topic_key, topics))
        self._after = {**after, **dict.fromkeys(new, start)}
        return Past(outcome, start, until, new, sent_after, topics)
