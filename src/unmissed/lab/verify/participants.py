"""Who takes part in a run: users with topics and tokens, and their clients and publishers, each with its own seed."""

import base64
import json
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from unmissed.core.audience import PUBLISH_SCOPE
from unmissed.lab.verify.database_writers import DatabaseWriter, Transactions
from unmissed.lab.verify.deployment import Gateway, ProxiedNode
from unmissed.lab.verify.facts import Recorder, Witness
from unmissed.lab.verify.publishers import Publics, Publisher
from unmissed.lab.verify.rest_clients import EdgeClients, PageSource, Poller
from unmissed.lab.verify.websocket_clients import BrokenClient, WebSocketClient
from unmissed.security.tokens import issue_token, issue_token_under
from unmissed.settings import Settings

BROKEN = "broken"
"""The name of the client that loses messages."""

_USERS = tuple(f"verify-{number}" for number in range(5))
_ORDINARY_TOPICS = tuple(f"verify.topic-{number}" for number in range(4))
_TOPICS = (*_ORDINARY_TOPICS, "verify.rooms.1", "verify.rooms.2")
_MOST_TOPICS = 3
_TOKEN_SECONDS = 86_400.0
_LEAST_PUBLISHERS = 4
_RATE_OF_PUBLISHER = 10.0
_WRITERS = 8
_SHARE_OF_WRITERS = 0.1
_CLIENTS_OF_POLLER = 8
_CLIENTS_OF_STATE = 3

Issue = Callable[[str, frozenset[str]], str]
"""Returns a token for a user with topics, and with the right to publish."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """The size of a run: WebSocket clients, seconds of faults, messages a second, and the seed of all chances."""

    clients: int
    seconds: float
    rate: float
    seed: int
    chaos: bool = True
    """Whether the processes are killed, too."""


class Credentials(Protocol):
    """Who the clients of a run are."""

    publics: Publics

    def witness(self, name: str, chance: random.Random) -> Witness:
        """Return a client with its user and its topics."""
        ...

    def token(self, witness: Witness) -> str:
        """Return the token of a client. It may publish."""
        ...


class ManyUsers:
    """Clients of several users, who follow various topics."""

    publics = Publics(_USERS, _TOPICS)

    def __init__(self, issue: Issue) -> None:
        self._issue = issue

    @classmethod
    def of_secret(cls, secret: str) -> "ManyUsers":
        """Return users whose tokens are signed with this key."""

        def issue(user: str, topics: frozenset[str]) -> str:
            return issue_token(secret, user_id=user, topics=topics, scope=PUBLISH_SCOPE, expires_in=_TOKEN_SECONDS)

        return cls(issue)

    @classmethod
    def of_settings(cls) -> "ManyUsers":
        """Return users whose tokens a server with our settings accepts. Raises ConfigurationError."""
        settings = Settings.load()

        def issue(user: str, topics: frozenset[str]) -> str:
            return issue_token_under(
                settings, user_id=user, topics=topics, scope=PUBLISH_SCOPE, expires_in=_TOKEN_SECONDS
            )

        return cls(issue)

    def witness(self, name: str, chance: random.Random) -> Witness:
        """Return a client of a random user who follows random topics."""
        topics = chance.sample(_TOPICS, k=chance.randrange(_MOST_TOPICS + 1))
        return Witness(name, chance.choice(_USERS), frozenset(topics))

    def token(self, witness: Witness) -> str:
        """Return a new token."""
        return self._issue(witness.user, witness.topics)


class OneUser:
    """All clients are the user of one token, and follow the topics that it grants by name."""

    def __init__(self, token: str) -> None:
        claims = _claims(token)
        self._token = token
        self._user = str(claims.get("sub", ""))
        self._topics = frozenset(topic for topic in claims.get("topics", []) if not topic.endswith("*"))
        self.publics = Publics((self._user,) if self._user else (), (*_TOPICS, *sorted(self._topics)))

    def witness(self, name: str, chance: random.Random) -> Witness:  # noqa: ARG002  # nothing is left to chance
        """Return a client of the one user."""
        return Witness(name, self._user, self._topics)

    def token(self, witness: Witness) -> str:  # noqa: ARG002  # there is one user
        """Return the one token."""
        return self._token


def _claims(token: str) -> dict[str, Any]:
    """Return the claims of a JWT, or nothing for another kind of token. The server verifies it, not we."""
    try:
        segment = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
    except (IndexError, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}


class Participants:
    """Creates all clients and publishers, in an order that depends on nothing but the plan and the number of nodes.

    ``http`` returns a new client: the search for a free connection takes long in a pool that all share. Writers publish
    in ``transactions``, if the log is in a database.
    """

    def __init__(
        self,
        nodes: Sequence[ProxiedNode],
        plan: RunPlan,
        *,
        credentials: Credentials,
        chance: random.Random,
        recorder: Recorder,
        http: Callable[[], httpx.AsyncClient],
        transactions: Transactions | None = None,
    ) -> None:
        self._nodes = nodes
        self._credentials = credentials
        self._chance = chance
        self._recorder = recorder
        self._http = http
        self.transactions = transactions
        # Not from ``chance``: a server remembers the idempotency keys of an earlier run with the same seed.
        self._run_id = secrets.token_hex(8)
        self.clients: list[WebSocketClient | Poller] = [
            *(self._client(WebSocketClient, f"client-{index}", index=index) for index in range(plan.clients)),
            self._client(BrokenClient, BROKEN, index=0),
            *(self._poller(index) for index in range(1 + plan.clients // _CLIENTS_OF_POLLER)),
        ]
        """Those who must have everything at the end. Every other one sends its epoch; every third loads the state."""
        self.edge_clients = self._edge_clients()
        count = max(_LEAST_PUBLISHERS, round(plan.rate / _RATE_OF_PUBLISHER))
        self.publishers = [self._publisher(index, rate=plan.rate / count) for index in range(count)]
        rate = plan.rate * _SHARE_OF_WRITERS / _WRITERS
        self.writers = [self._writer(index, transactions, rate=rate) for index in range(_WRITERS) if transactions]

    @property
    def sources(self) -> list[Publisher | DatabaseWriter]:
        """All who publish."""
        return [*self.publishers, *self.writers]

    def _gateway(self, witness: Witness) -> Gateway:
        return Gateway(self._nodes, self._credentials.token(witness), random.Random(self._chance.random()))

    def _client(self, kind: type[WebSocketClient], name: str, *, index: int) -> WebSocketClient:
        witness = self._credentials.witness(name, self._chance)
        return kind(
            witness,
            self._gateway(witness),
            sends_epoch=index % 2 == 1,
            wants_state=index % _CLIENTS_OF_STATE == 1,
            recorder=self._recorder,
        )

    def _poller(self, index: int) -> Poller:
        witness = self._credentials.witness(f"poller-{index}", self._chance)
        gateway = self._gateway(witness)
        source = PageSource(gateway, direct=False, http=self._http())
        return Poller(
            witness, source=source, sends_epoch=index % 2 == 1, chance=gateway.chance, recorder=self._recorder
        )

    def _edge_clients(self) -> EdgeClients:
        witness = self._credentials.witness("edge client", self._chance)
        gateway = self._gateway(witness)
        source = PageSource(gateway, direct=True, http=self._http())
        return EdgeClients(witness, source=source, chance=gateway.chance, recorder=self._recorder)

    def _publisher(self, index: int, *, rate: float) -> Publisher:
        witness = self._credentials.witness(f"publisher-{index}", self._chance)
        return Publisher(
            f"{self._run_id}-{index}",
            self._gateway(witness),
            publics=self._credentials.publics,
            rate=rate,
            recorder=self._recorder,
            http=self._http(),
        )

    def _writer(self, index: int, transactions: Transactions, *, rate: float) -> DatabaseWriter:
        # For topics without a rule: nobody may know of a message without a number that its rule has removed.
        return DatabaseWriter(
            f"{self._run_id}-writer-{index}",
            transactions,
            topics=_ORDINARY_TOPICS,
            rate=rate,
            chance=random.Random(self._chance.random()),
            recorder=self._recorder,
        )
