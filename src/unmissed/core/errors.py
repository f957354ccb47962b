"""All exceptions of the package, as one tree.

::

    UnmissedError
    ├── ConfigurationError      an invalid setting or environment; the text says what to change
    ├── InvalidMessage          a message that cannot be published; no number was used
    │   ├── MessageTooLarge
    │   └── IdempotencyConflict     the key was used for another message
    ├── InvalidPosition         ``since`` is not a sequence number
    ├── OutdatedState           the rest of a state was requested, and its epoch has ended
    ├── InvalidTopic            a name that no topic can have, or too many topics
    ├── InvalidTarget           nothing can be published in this object, or it has no transaction
    ├── TopicRefused            a topic that the client may not follow
    ├── ScopeRequired           the token does not have the scope for this
    ├── CommandError            raised by a command of the application: the text is sent to the client
    ├── InvalidFrame            a client frame that was refused
    ├── InvalidToken            a token that was not accepted
    ├── OriginRefused           a page from an origin that is not allowed wanted to connect
    ├── UnknownConnection       no open connection has this id
    ├── TooManyConnections      a limit on connections is reached
    ├── TooManyRequests         a user sends more than the limit allows
    ├── NotRunning              the manager was used before its start or after its stop
    ├── AlreadyRunning          the manager was started twice
    ├── Draining                the server is shutting down and accepts no new connections or messages
    ├── LogUnavailable          the log cannot be used at the moment
    ├── ProviderUnavailable     a token cannot be verified at the moment: its key is not known yet
    ├── WrongThread             the manager was used from the wrong thread or event loop
    ├── ConnectionRefused       raised by the client: the server does not accept this client
    ├── RequestRefused          raised by the client: the server refused to execute a request
    └── RequestUnanswered       raised by the client: the stream ended before the answer to a request
"""

from math import ceil

LOG_UNAVAILABLE = "the log is unavailable: the reason is in the server's log output, and in /websocket/status"
"""The public text. The reason itself names addresses and paths."""

NODE_FAILS = "this node is not healthy: the reason is in the server's log output, and in /websocket/status"
"""The public text about failing periodic checks, and about other nodes that cannot be reached."""


_MOST_ECHOED = 100
_LONGEST_WAIT = 3_600.0


class UnmissedError(Exception):
    """The base class of every error that this package raises."""


class ConfigurationError(UnmissedError):
    """An invalid setting or environment. The text says what to change."""


class InvalidMessage(UnmissedError, ValueError):
    """A message that cannot be published. Nothing was stamped, stored or sent."""


class MessageTooLarge(InvalidMessage):
    """A message, or a batch of them, over the size limit (bytes)."""

    def __init__(self, what: str, *, limit: int) -> None:
        self.limit = limit
        super().__init__(f"{what} is over the limit of {limit} bytes: send less, or raise the limit on the server")


class IdempotencyConflict(InvalidMessage):
    """An idempotency key that was used for another message. The first message stays published."""

    def __init__(self) -> None:
        super().__init__("this idempotency key was used for another message: use a new key")


class InvalidPosition(UnmissedError, ValueError):
    """``since`` is not a canonical decimal integer from 0 to 2**53 - 1."""

    def __init__(self) -> None:
        super().__init__("since must be one whole number from 0 to 9007199254740991, in plain digits such as 42")


class OutdatedState(UnmissedError):
    """The number at which a state is cut is none of this epoch: another one has begun since its first page."""

    def __init__(self) -> None:
        super().__init__("through is no number of this epoch: ask for the state again, without after and through")


class InvalidTopic(UnmissedError, ValueError):
    """A name that no topic can have, or too many topics. The text is safe to send back."""


class InvalidTarget(UnmissedError, TypeError):
    """What a message cannot be published in: another object, or one without a transaction. Nothing was executed."""

    def __init__(self, needed: str, target: object = None, *, other: str | None = None) -> None:
        given = "" if target is None else f" It is {type(target).__module__}.{type(target).__qualname__}."
        instead = "" if other is None else f" Call {other} for it."
        super().__init__(f"a message is published in {needed}.{given}{instead}")


class TopicRefused(UnmissedError):
    """A topic that the client may not follow."""

    def __init__(self, topic: str, *, reason: str = "it must be in the token's topics, by name or prefix") -> None:
        self.topic = topic
        super().__init__(f"the topic {topic} is not granted: {reason}")


class ScopeRequired(UnmissedError):
    """Something that the scopes of the token do not allow."""

    def __init__(self, what: str, *, scope: str) -> None:
        self.scope = scope
        super().__init__(f"{what} needs a token with the scope {scope}")


class CommandError(UnmissedError):
    """Raised by a command of the application, or instead of it: its text is sent to the client."""


class InvalidFrame(UnmissedError, ValueError):
    """A client frame that was refused. The text is sent to the client in an ``error`` frame."""

    request_id: str | None = None
    """The id of the frame, if it has one."""


class InvalidToken(UnmissedError):
    """A token that was not accepted. The text never contains any part of the token."""


class OriginRefused(UnmissedError):
    """A WebSocket or an event stream for a page whose origin is neither the server's own host nor allowed."""

    def __init__(self, origin: str, *, host: str | None) -> None:
        self.origin = origin
        self.host = host
        # A close reason has room for the facts only, so they come first.
        super().__init__(
            f"origin {_shortened(origin)} does not match Host {_shortened(host or '')}: "
            "add it to UNMISSED_ALLOWED_ORIGINS, or let the proxy forward the Host header"
        )


class UnknownConnection(UnmissedError, LookupError):
    """No open connection of this node has this id; ``node`` is the other node that it belongs to, if it does."""

    def __init__(self, connection_id: str, *, node: str | None = None) -> None:
        self.connection_id = connection_id
        self.node = node
        where = "no open connection has the id" if node is None else f"another node, {node}, has the connection"
        super().__init__(
            f"{where} {connection_id!r}: publish to the user, who may be offline or connected to any node, "
            "with manager.publish(message, users=[user_id])"
        )


class TooManyConnections(UnmissedError):
    """A limit on connections, in total or of one user, is reached."""


class TooManyRequests(UnmissedError):
    """A user asks for more than a limit allows. Nothing was done. Retry after ``retry_after`` seconds."""

    def __init__(self, reason: str, *, retry_after: float) -> None:
        self.retry_after = max(1, ceil(min(retry_after, _LONGEST_WAIT)))
        super().__init__(f"{reason}: retry in {self.retry_after} s")


class NotRunning(UnmissedError, RuntimeError):
    """The manager is not running."""

    def __init__(self) -> None:
        super().__init__(
            "the ConnectionManager is not running: pass its lifespan to FastAPI, FastAPI(lifespan=manager.lifespan), "
            "or enter 'async with manager:' in your own lifespan. TestClient(app) runs it only in a with statement"
        )


class AlreadyRunning(UnmissedError, RuntimeError):
    """The manager was entered while it was running. It continues to run."""

    def __init__(self) -> None:
        super().__init__(
            "the ConnectionManager is already running: enter it once, with FastAPI(lifespan=manager.lifespan) "
            "or with 'async with manager:' in your own lifespan"
        )


class Draining(UnmissedError):
    """The server is shutting down: it accepts no new connections and no new messages."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down: reconnect or retry shortly")


class LogUnavailable(UnmissedError):
    """The log cannot be used at the moment, for the ``reason``.

    If a publish raises it, the messages may or may not have been published: retry with the same idempotency key.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{reason}: retry shortly (a publish with the same idempotency key)")


class ProviderUnavailable(UnmissedError):
    """A token cannot be verified at the moment: its key is not known, and the identity provider cannot be asked.

    ``loaded``: whether other keys of the provider are known.
    """

    def __init__(self, *, loaded: bool = False) -> None:
        keys = "the token's key is not known yet" if loaded else "the keys of the identity provider are not available"
        super().__init__(f"{keys}: retry shortly")


class WrongThread(UnmissedError, RuntimeError):
    """A method of the manager was called from the wrong thread or event loop."""

    def __init__(self, *, right_call: str) -> None:
        super().__init__(f"the ConnectionManager was called from the wrong thread or event loop: use {right_call}")


class ConnectionRefused(UnmissedError):
    """The server closed the connection with a code or status that makes another attempt pointless."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"the server refused the connection with code {code}: {reason or 'no reason given'}")


class RequestRefused(UnmissedError):
    """The server refused a request of the client, for the ``reason``. ``code`` is a close code, such as 4403."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"the server refused the request with code {code}: {reason}")


class RequestUnanswered(UnmissedError):
    """A request of the client will get no answer. The text says whether it may have been executed."""


def _shortened(text: str) -> str:
    """Return at most 100 characters of a header, quoted."""
    return repr(text[:_MOST_ECHOED])


def one_string(name: str, value: str) -> str:
    """Return the error text for one string in place of a list: Python would take its letters as the names."""
    return f"{name} is a list of names, not one string: write {name}=[{_shortened(value)}]"


def public_text(error: Exception) -> str:
    """Return what a client may read about an exception of this package."""
    return str(LogUnavailable("the log is unavailable")) if isinstance(error, LogUnavailable) else str(error)
