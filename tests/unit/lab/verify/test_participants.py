"""Who the clients of a run are."""

import random

import pytest

from unmissed.core.audience import PUBLISH_SCOPE
from unmissed.lab.verify.facts import Addressees
from unmissed.lab.verify.participants import ManyUsers, OneUser
from unmissed.security.tokens import JwtVerifier, issue_token
from unmissed.testing import SECRET


def test_each_client_is_one_of_several_users_with_a_token_of_its_own() -> None:
    credentials, chance = ManyUsers.of_secret(SECRET), random.Random(7)

    witnesses = [credentials.witness(f"client-{index}", chance) for index in range(50)]

    assert set(credentials.publics.users) == {witness.user for witness in witnesses}
    assert set(credentials.publics.topics) == {topic for witness in witnesses for topic in witness.topics}
    for witness in witnesses:
        identity = JwtVerifier(SECRET).verify(credentials.token(witness))
        assert (witness.user, witness.topics) == (identity.user_id, identity.topics)
        assert PUBLISH_SCOPE in identity.scopes


def test_with_one_token_every_client_follows_what_it_grants_by_name() -> None:
    token = issue_token(SECRET, user_id="alice", topics=["news", "rooms.*"], expires_in=60)
    credentials = OneUser(token)

    witness = credentials.witness("client-1", random.Random(7))

    assert ("client-1", "alice", frozenset({"news"})) == (witness.name, witness.user, witness.topics)
    assert token == credentials.token(witness)
    assert "news" in credentials.publics.topics


@pytest.mark.parametrize("token", ["opaque", "a.b.c", "a.W10.c"])
def test_a_token_of_another_kind_leaves_messages_to_everyone_and_to_others(token: str) -> None:
    credentials = OneUser(token)
    witness, chance = credentials.witness("client-1", random.Random(7)), random.Random(7)

    drawn = {credentials.publics.drawn(chance) for _ in range(100)}

    assert Addressees() in drawn
    assert {True, False} == {each.include(witness) for each in drawn}
