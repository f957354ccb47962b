"""Who the clients of a run are."""

import random

import pytest

from unmissed.core.audience import PUBLISH_SCOPE
from unmissed.security.tokens import JwtVerifier, issue_token
from unmissed.testing import SECRET
from unmissed.verify.credentials import ManyUsers, OneUser
from unmissed.verify.events import Audience


def test_each_client_is_one_of_several_users_with_a_token_of_its_own() -> None:
    credentials, chance = ManyUsers.of_secret(SECRET), random.Random(7)

    readers = [credentials.reader(f"client-{index}", chance) for index in range(50)]

    assert set(credentials.publics.users) == {reader.user for reader in readers}
    assert set(credentials.publics.topics) == {topic for reader in readers for topic in reader.topics}
    for reader in readers:
        identity = JwtVerifier(SECRET).verify(credentials.token(reader))
        assert (reader.user, reader.topics) == (identity.user_id, identity.topics)
        assert PUBLISH_SCOPE in identity.scopes


def test_with_one_token_every_client_follows_what_it_grants_by_name() -> None:
    token = issue_token(SECRET, user_id="alice", topics=["news", "rooms.*"], expires_in=60)
    credentials = OneUser(token)

    reader = credentials.reader("client-1", random.Random(7))

    assert ("client-1", "alice", frozenset({"news"})) == (reader.name, reader.user, reader.topics)
    assert token == credentials.token(reader)
    assert "news" in credentials.publics.topics


@pytest.mark.parametrize("token", ["opaque", "a.b.c", "a.W10.c"])
def test_a_token_of_another_kind_leaves_messages_to_everyone_and_to_others(token: str) -> None:
    credentials = OneUser(token)
    reader, chance = credentials.reader("client-1", random.Random(7)), random.Random(7)

    audiences = {credentials.publics.drawn(chance) for _ in range(100)}

    assert Audience() in audiences
    assert {True, False} == {audience.includes(reader) for audience in audiences}
