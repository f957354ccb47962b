"""Topics: their names, which of them a user may follow, and which a connection follows."""

import re
from collections.abc import Collection, Iterable

from unmissed.core.errors import InvalidTopic, TopicRefused, one_string

MAX_TOPICS = 1_000
"""The most topics that one message addresses, and that one connection follows."""

MAX_TOPICS_BYTES = 65_536
"""The most bytes of the names of all topics that one connection follows."""

MAX_TOPIC_BYTES = 200

_TOPIC = rf"[A-Za-z0-9._:/@+=-]{{1,{MAX_TOPIC_BYTES}}}"
TOPIC_PATTERN = f"^{_TOPIC}$"
TOPICS_PATTERN = f"^({_TOPIC}(,{_TOPIC})*)?$"
"""Regular expressions of a name and of comma-separated names, for OpenAPI and AsyncAPI."""

_NAME = re.compile(_TOPIC, re.ASCII)
_PREFIX = "*"


def checked_topic(name: object) -> str:
    """Return the name of a topic. Raises InvalidTopic, which says what a name looks like."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidTopic(
            f"a topic is 1 to {MAX_TOPIC_BYTES} ASCII letters, digits and characters of . _ : / @ + = -, "
            'such as "orders.42"'
        )
    return name


def checked_grant(grant: object) -> str:
    """Return what a token grants: the name of a topic, or a prefix with a ``*`` at its end. Raises InvalidTopic."""
    if isinstance(grant, str) and grant.endswith(_PREFIX):
        prefix = grant.removesuffix(_PREFIX)
        return checked_topic(prefix) + _PREFIX if prefix else _PREFIX
    return checked_topic(grant)


def is_granted(topic: str, grants: frozenset[str]) -> bool:
    """Return whether one of the grants is this topic or a prefix of it."""
    return topic in grants or any(grant.endswith(_PREFIX) and topic.startswith(grant[:-1]) for grant in grants)


def check_topics(topics: Collection[str]) -> None:
    """Raise InvalidTopic if these are too many for one connection."""
    if len(topics) > MAX_TOPICS:
        raise InvalidTopic(
            f"a connection follows at most {MAX_TOPICS} topics, and this one {len(topics)}: unfollow some, "
            "or open another connection"
        )
    if (size := sum(map(len, topics))) > MAX_TOPICS_BYTES:
        raise InvalidTopic(
            f"the topics of a connection have names of at most {MAX_TOPICS_BYTES} bytes together, and these {size}: "
            "unfollow some, open another connection, or shorten the names"
        )


def named_topics(asked: Iterable[str] | None, grants: frozenset[str]) -> frozenset[str]:
    """Return the topics that a client asked for, or, if it asked for none, all that are granted by their name.

    Raises InvalidTopic for a name that no topic can have, for too many topics, and for one string in place of a list.
    """
    if isinstance(asked, str):
        raise InvalidTopic(one_string("topics", asked))
    if asked is None:
        topics = frozenset(grant for grant in grants if not grant.endswith(_PREFIX)) if grants else grants
    else:
        topics = frozenset(map(checked_topic, asked))
    if topics:
        check_topics(topics)
    # The same object for each connection of a user takes no memory.
    return grants if topics == grants else topics


def granted_topics(asked: Iterable[str] | None, grants: frozenset[str]) -> frozenset[str]:
    """Return ``named_topics``. Also raises TopicRefused for a topic that is not granted."""
    topics = named_topics(asked, grants)
    if asked is not None:
        for topic in topics:
            if not is_granted(topic, grants):
                raise TopicRefused(topic)
    return topics
