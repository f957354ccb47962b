"""Everybody who takes part in a run: clients, pollers, edge clients and publishers, each with its own chances."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx

from unmissed.verify.clients import BrokenClient, Client
from unmissed.verify.credentials import Credentials
from unmissed.verify.events import Reader
from unmissed.verify.pollers import EdgeClients, Poller, Source
from unmissed.verify.proxied import ProxiedNode
from unmissed.verify.publishers import Publisher
from unmissed.verify.recorder import Recorder

BROKEN = "broken"
"""The name of the client that loses messages."""

_LEAST_PUBLISHERS = 4
_RATE_OF_PUBLISHER = 10.0
_CLIENTS_OF_POLLER = 8


@dataclass(frozen=True, slots=True)
class Load:
    """The size of a run: WebSocket clients, seconds of faults, messages a second, and the seed of all chances."""

    clients: int
    seconds: float
    rate: float
    seed: int
    chaos: bool = True
    """Whether the processes are killed, too."""


class Participants:
    """Creates everybody, in an order that depends on nothing but the load and the number of nodes.

    ``http`` returns a new client: the search for a free connection takes long in a pool that all share.
    """

    def __init__(
        self,
        nodes: Sequence[ProxiedNode],
        load: Load,
        *,
        credentials: Credentials,
        chance: random.Random,
        recorder: Recorder,
        http: Callable[[], httpx.AsyncClient],
    ) -> None:
        self._nodes = nodes
        self._credentials = credentials
        self._chance = chance
        self._recorder = recorder
        self._http = http
        self._run_id = f"{chance.getrandbits(64):x}"
        self.clients: list[Client | Poller] = [
            *(self._client(Client, f"client-{index}", sends_epoch=index % 2 == 1) for index in range(load.clients)),
            self._client(BrokenClient, BROKEN, sends_epoch=False),
            *(self._poller(index) for index in range(1 + load.clients // _CLIENTS_OF_POLLER)),
        ]
        """Those who must have everything at the end."""
        self.edge_clients = self._edge_clients()
        count = max(_LEAST_PUBLISHERS, round(load.rate / _RATE_OF_PUBLISHER))
        self.publishers = [self._publisher(index, rate=load.rate / count) for index in range(count)]

    def _own_chance(self) -> random.Random:
        return random.Random(self._chance.random())

    def _client(self, kind: type[Client], name: str, *, sends_epoch: bool) -> Client:
        reader = self._credentials.reader(name, self._chance)
        return kind(
            reader,
            nodes=self._nodes,
            token=self._credentials.token(reader),
            sends_epoch=sends_epoch,
            chance=self._own_chance(),
            recorder=self._recorder,
        )

    def _poller(self, index: int) -> Poller:
        reader = self._credentials.reader(f"poller-{index}", self._chance)
        source = self._source(reader, direct=False)
        return Poller(
            reader, source=source, sends_epoch=index % 2 == 1, chance=self._own_chance(), recorder=self._recorder
        )

    def _edge_clients(self) -> EdgeClients:
        reader = self._credentials.reader("edge client", self._chance)
        source = self._source(reader, direct=True)
        return EdgeClients(reader, source=source, chance=self._own_chance(), recorder=self._recorder)

    def _source(self, reader: Reader, *, direct: bool) -> Source:
        token = self._credentials.token(reader)
        return Source(nodes=self._nodes, token=token, direct=direct, chance=self._own_chance(), http=self._http())

    def _publisher(self, index: int, *, rate: float) -> Publisher:
        return Publisher(
            f"{self._run_id}-{index}",
            nodes=self._nodes,
            token=self._credentials.token(self._credentials.reader(f"publisher-{index}", self._chance)),
            publics=self._credentials.publics,
            rate=rate,
            chance=self._own_chance(),
            recorder=self._recorder,
            http=self._http(),
        )
