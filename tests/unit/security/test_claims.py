"""Claims of a verified token: the rules, and the identity that they describe."""

from collections.abc import Mapping
from typing import Any

import pytest

from unmissed.core.audience import ADMIN_SCOPE, PUBLISH_SCOPE, Identity
from unmissed.core.errors import ConfigurationError, InvalidToken
from unmissed.security.claims import TokenRules
from unmissed.settings import Settings
from unmissed.testing import SECRET

NOW = 1_796_000_000.0


def identity(rules: TokenRules | None = None, **claims: object) -> Identity:
    return (rules or TokenRules()).identity_of({"sub": "alice", "exp": NOW + 60, **claims}, now=NOW)


@pytest.mark.parametrize("audience", ["chat", "api", ["mail", "api"], ["chat", "api"]])
def test_one_of_several_audiences_is_enough(audience: object) -> None:
    assert "alice" == identity(TokenRules(audiences=["chat", "api"]), aud=audience).user_id


@pytest.mark.parametrize("audience", ["mail", ["mail"], "chat,api", [["chat"]], {"chat": 1}, [None], "ap"])
def test_none_of_several_audiences_is_refused(audience: object) -> None:
    with pytest.raises(InvalidToken, match="see UNMISSED_JWT_AUDIENCE"):
        identity(TokenRules(audiences=["chat", "api"]), aud=audience)


def test_each_of_several_issuers_is_accepted() -> None:
    rules = TokenRules(issuers=["https://a.test/", "https://b.test/"])

    assert ["alice", "alice"] == [identity(rules, iss=issuer).user_id for issuer in rules.issuers]
    for other in ("https://a.test", "https://c.test/", ["https://a.test/"], None):
        with pytest.raises(InvalidToken, match="see UNMISSED_JWT_ISSUER"):
            identity(rules, iss=other)


@pytest.mark.parametrize("name", ["audiences", "issuers", "scope_claims"])
def test_one_string_in_place_of_a_list_is_a_configuration_error(name: str) -> None:
    """Each of its letters would count."""
    names: dict[str, Any] = {name: "chat"}

    with pytest.raises(ConfigurationError, match=rf"{name}=\['chat'\]"):
        TokenRules(**names)


@pytest.mark.parametrize(
    ("name", "claims"),
    [
        ("scope", {"scope": f"{PUBLISH_SCOPE} openid"}),
        ("scope", {"scope": [PUBLISH_SCOPE, "openid"]}),
        ("permissions", {"permissions": [PUBLISH_SCOPE, "openid"]}),
        ("scp", {"scp": f"openid {PUBLISH_SCOPE}"}),
        ("cognito:groups", {"cognito:groups": [PUBLISH_SCOPE, "openid"]}),
        ("realm_access.roles", {"realm_access": {"roles": [PUBLISH_SCOPE, "openid"]}}),
        ("resource_access.my.client.roles", {"resource_access": {"my.client": {"roles": [PUBLISH_SCOPE, "openid"]}}}),
        ("https://example.com/roles", {"https://example.com/roles": [PUBLISH_SCOPE, "openid"]}),
    ],
)
def test_scopes_come_from_the_claim_of_the_provider(name: str, claims: dict[str, Any]) -> None:
    assert frozenset({PUBLISH_SCOPE, "openid"}) == identity(TokenRules(scope_claims=[name]), **claims).scopes


@pytest.mark.parametrize(
    "claims",
    [{}, {"realm_access": {}}, {"realm_access": []}, {"realm_access": "roles"}, {"roles": [ADMIN_SCOPE]}, {"": {}}],
)
def test_a_token_without_the_claim_has_no_scopes(claims: dict[str, Any]) -> None:
    rules = TokenRules(scope_claims=["realm_access.roles"])

    assert frozenset() == identity(rules, scope=ADMIN_SCOPE, **claims).scopes


def test_roles_and_groups_with_spaces_are_no_scopes_and_refuse_no_token() -> None:
    rules = TokenRules(scope_claims=["cognito:groups", "realm_access.roles"])
    claims = {"cognito:groups": ["Sales admin", PUBLISH_SCOPE], "realm_access": {"roles": ["", " admin", "a\u00a0b"]}}

    assert frozenset({PUBLISH_SCOPE}) == identity(rules, **claims).scopes


def test_scopes_of_several_claims_count_together() -> None:
    rules = TokenRules(scope_claims=["scp", "roles"])

    assert frozenset({"a", "b", "c"}) == identity(rules, scp="a b", roles=["c"]).scopes


@pytest.mark.parametrize("value", [None, 1, True, [1], ["a", None], {"a": "b"}, ["\ud800"], "\ud800"])
def test_a_claim_with_something_else_than_scopes_is_refused(value: object) -> None:
    with pytest.raises(InvalidToken, match="the token's permissions must be"):
        identity(TokenRules(scope_claims=["permissions"]), permissions=value)


def test_topics_come_from_the_claim_that_is_named() -> None:
    rules = TokenRules(topics_claim="app.rooms")

    assert frozenset({"rooms.1", "news.*"}) == identity(rules, app={"rooms": ["rooms.1", "news.*"]}).topics
    assert frozenset() == identity(rules, topics=["secret"]).topics
    with pytest.raises(InvalidToken, match=r"the token's app\.rooms must be a list"):
        identity(rules, app={"rooms": "rooms.1"})


def by_object_id(claims: Mapping[str, Any]) -> Identity:
    if "oid" not in claims:
        raise InvalidToken("the token has no oid")
    return Identity(claims["oid"], topics=frozenset({f"tenants.{claims['tid']}"}))


def test_a_function_makes_the_identity_which_expires_with_its_token() -> None:
    """An identity without an expiry would never be refused again: not by the cache, and on no connection."""
    found = identity(TokenRules(identity=by_object_id), sub=None, oid="42", tid="acme", iat=NOW - 5)

    assert Identity("42", frozenset(), NOW + 60, frozenset({"tenants.acme"}), NOW - 5) == found


@pytest.mark.parametrize(("given", "expected"), [(NOW + 10, NOW + 10), (NOW + 1e6, NOW + 60), (None, NOW + 60)])
def test_a_function_may_only_shorten_the_life_of_a_token(given: float | None, expected: float) -> None:
    rules = TokenRules(identity=lambda claims: Identity(claims["sub"], expires_at=given))

    assert expected == identity(rules).expires_at


def test_a_function_is_asked_only_about_valid_tokens() -> None:
    rules = TokenRules(audiences=["chat"], identity=lambda _: pytest.fail("it was asked"))

    for claims in (
        {"aud": "mail"},
        {"aud": "chat", "exp": NOW},
        {"aud": "chat", "nbf": NOW + 60},
        {"aud": "chat", "exp": "x"},
    ):
        with pytest.raises(InvalidToken):
            identity(rules, **claims)


def test_a_function_may_refuse_and_must_return_an_identity() -> None:
    with pytest.raises(InvalidToken, match="no oid"):
        identity(TokenRules(identity=by_object_id))
    with pytest.raises(ConfigurationError, match=r"must return unmissed\.Identity"):
        identity(TokenRules(identity=lambda claims: claims["sub"]))  # what a user may forget


def test_the_rules_are_those_of_the_settings() -> None:
    settings = Settings.load(
        jwt_secret=SECRET,
        jwt_audience="chat, api",
        jwt_issuer="https://a.test/,https://b.test/",
        scope_claim="scp,roles",
        topics_claim="rooms",
        token_leeway=7,
    )

    assert TokenRules(
        audiences=("chat", "api"),
        issuers=("https://a.test/", "https://b.test/"),
        scope_claims=("scp", "roles"),
        topics_claim="rooms",
        leeway=7.0,
    ) == TokenRules.of(settings)
