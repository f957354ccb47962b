"""Connections by key."""

from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from unmissed.delivery.connection import Connection
from unmissed.delivery.index import Index

KEYS = ("@alice", "#news", "#sport")
CONNECTIONS = tuple(Connection.__new__(Connection) for _ in range(3))


class Indexed(RuleBasedStateMachine):
    """An index beside a set of pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.index = Index()
        self.pairs: set[tuple[str, Connection]] = set()

    @rule(keys=st.lists(st.sampled_from(KEYS)), connection=st.sampled_from(CONNECTIONS))
    def add(self, keys: list[str], connection: Connection) -> None:
        self.index.add(keys, connection)
        self.pairs |= {(key, connection) for key in keys}

    @rule(keys=st.lists(st.sampled_from(KEYS)), connection=st.sampled_from(CONNECTIONS))
    def remove(self, keys: list[str], connection: Connection) -> None:
        self.index.remove(keys, connection)
        self.pairs -= {(key, connection) for key in keys}

    @invariant()
    def every_key_has_its_connections(self) -> None:
        for key in KEYS:
            assert {found for name, found in self.pairs if name == key} == set(self.index.get(key))
        assert {found for _, found in self.pairs} == self.index.any_of(KEYS)
        kept = cast("Any", self.index)._found  # noqa: SLF001
        assert {key for key, _ in self.pairs} == set(kept), "no key is kept without connections"


TestIndexed = Indexed.TestCase
TestIndexed.settings = settings(max_examples=settings().max_examples // 4)
