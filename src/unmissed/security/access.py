"""The rights of a client: who it is, which topics it may follow, and how it renews its token."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from inspect import isawaitable

from unmissed.core.audience import Identity, granted_topics, named_topics
from unmissed.core.errors import InvalidFrame, TopicRefused
from unmissed.tasks import Pace

Authorize = Callable[[Identity, str], bool | Awaitable[bool]]
"""A function of the application, async or not: whether this identity may follow this topic."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """What an authenticated client gets when it connects."""

    identity: Identity
    topics: frozenset[str]
    """The topics that it follows. It may follow each of them."""
    chose_topics: bool
    """Whether the client chose them, instead of following those that it was granted by name."""
    since: int | None = None
    """Its position: delivery starts after it, or without one with the next message."""
    epoch: str | None = None
    """The epoch of that position, if the client sent it."""
    state: bool = False
    """Whether it wants the values by key first, unless nothing after its position is lost."""
    client: str | None = None
    """The address of the client, if the server knows it."""


@dataclass(frozen=True, slots=True)
class Access:
    """How the clients of one endpoint renew their tokens, and which topics they may follow."""

    verify: Callable[[str], Identity | Awaitable[Identity]] | None = None
    """Verifies a renewed token, or raises InvalidToken. None means that clients cannot renew their tokens."""
    authorize: Authorize | None = None
    """Decides who may follow a topic. None means that the topics of the identity decide."""
    verify_waits: bool = False
    """Whether ``verify`` may return an awaitable."""

    async def verified(self, token: str) -> Identity:
        """Return the identity of a renewed token. Raises InvalidToken, and InvalidFrame where none can be renewed."""
        if self.verify is None:
            raise InvalidFrame("the token of this connection cannot be renewed: open another connection")
        identity = self.verify(token)
        return await identity if isawaitable(identity) else identity

    async def granted(self, identity: Identity, asked: Iterable[str] | None) -> frozenset[str]:
        """Return the topics that a client asked for, or, if it asked for none, those that it follows by default.

        Raises InvalidTopic, and TopicRefused for the first topic that it may not follow: no others are authorized then.
        """
        if self.authorize is None:
            return granted_topics(asked, identity.topics)
        if asked is None:
            return await self.kept(identity, named_topics(None, identity.topics))
        # In the order of the client. That of a set differs between processes, and so would the topic that is refused.
        in_order = dict.fromkeys(asked)
        topics, pace = named_topics(in_order, identity.topics), Pace()
        for topic in in_order:
            if not await _allows(self.authorize, identity, topic):
                raise TopicRefused(topic, reason="the application does not allow it")
            await pace.keep()
        return topics

    async def kept(self, identity: Identity, topics: Iterable[str]) -> frozenset[str]:
        """Return which of these topics this identity may follow."""
        if self.authorize is None:
            return frozenset(filter(identity.grants, topics))
        kept, pace = set[str](), Pace()
        for topic in topics:
            if await _allows(self.authorize, identity, topic):
                kept.add(topic)
            await pace.keep()
        return frozenset(kept)


NO_RENEWAL = Access()
"""The access of clients that cannot renew their tokens, and whose topics are those of their identity."""


async def _allows(authorize: Authorize, identity: Identity, topic: str) -> bool:
    decision = authorize(identity, topic)
    return bool(await decision if isawaitable(decision) else decision)
