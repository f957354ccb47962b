"""Settings from the environment, and refusals that say what to change."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from unmissed.core.errors import ConfigurationError
from unmissed.core.retention import Retention
from unmissed.settings import Settings, unknown_variables
from unmissed.testing import SECRET


def refusal_of(**values: object) -> str:
    with pytest.raises(ConfigurationError) as refused:
        Settings.load(**values)
    return str(refused.value)


def refusal_of_key(**values: object) -> str:
    with pytest.raises(ConfigurationError) as refused:
        Settings.load(**values).key()
    return str(refused.value)


def test_defaults_need_no_environment() -> None:
    settings = Settings.load()

    assert Retention(max_messages=500, max_age=900.0, max_bytes=33_554_432) == settings.log_retention()
    assert "HS256" == settings.jwt_algorithm
    assert () == settings.allowed_origins
    assert None is settings.max_connections
    assert not settings.allow_query_token


@pytest.mark.parametrize(
    ("variable", "text", "field", "expected"),
    [
        ("UNMISSED_JWT_SECRET", SECRET, "jwt_secret", SecretStr(SECRET)),
        ("UNMISSED_JWT_SECRET_FILE", "/run/secrets/key", "jwt_secret_file", Path("/run/secrets/key")),
        ("UNMISSED_NODE_SECRET", SECRET, "node_secret", SecretStr(SECRET)),
        ("UNMISSED_JWT_ALGORITHM", "ES256", "jwt_algorithm", "ES256"),
        ("UNMISSED_JWT_AUDIENCE", "chat", "jwt_audience", ("chat",)),
        ("UNMISSED_JWT_IGNORE_AUDIENCE", "true", "jwt_ignore_audience", True),
        ("UNMISSED_JWT_ISSUER", "login", "jwt_issuer", ("login",)),
        ("UNMISSED_MAX_MESSAGES", "5", "max_messages", 5),
        ("UNMISSED_MAX_AGE", "0.5", "max_age", 0.5),
        ("UNMISSED_MAX_BYTES", "1000000", "max_bytes", 1_000_000),
        ("UNMISSED_MAX_MESSAGE_BYTES", "100", "max_message_bytes", 100),
        ("UNMISSED_HEARTBEAT_SECONDS", "10", "heartbeat_seconds", 10.0),
        ("UNMISSED_STALL_SECONDS", "10", "stall_seconds", 10.0),
        ("UNMISSED_DRAIN_SECONDS", "10", "drain_seconds", 10.0),
        ("UNMISSED_ALLOWED_ORIGINS", "*", "allowed_origins", ("*",)),
        ("UNMISSED_ALLOW_QUERY_TOKEN", "true", "allow_query_token", True),
        ("UNMISSED_DOCS", "false", "docs", False),
        ("UNMISSED_MAX_CONNECTIONS", "10", "max_connections", 10),
        ("UNMISSED_MAX_CONNECTIONS_PER_USER", "2", "max_connections_per_user", 2),
        ("UNMISSED_LOG_URL", "memory:", "log_url", "memory:"),
        ("unmissed_max_messages", "5", "max_messages", 5),
    ],
)
def test_every_setting_is_an_environment_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, field: str, expected: object
) -> None:
    monkeypatch.setenv(variable, text)

    assert expected == getattr(Settings.load(), field)


def test_a_given_value_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMISSED_MAX_MESSAGES", "5")

    assert 7 == Settings.load(max_messages=7).max_messages


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("https://app.example.com", ("https://app.example.com",)),
        ("https://a.example, http://localhost:*", ("https://a.example", "http://localhost:*")),
        (" https://a.example ,, https://b.example , ", ("https://a.example", "https://b.example")),
    ],
)
def test_origins_are_split_by_commas(monkeypatch: pytest.MonkeyPatch, text: str, expected: tuple[str, ...]) -> None:
    monkeypatch.setenv("UNMISSED_ALLOWED_ORIGINS", text)

    assert expected == Settings.load().allowed_origins


def test_origins_may_be_given_as_a_list() -> None:
    assert ("https://a.example",) == Settings.load(allowed_origins=["https://a.example"]).allowed_origins


@pytest.mark.parametrize(
    ("variable", "text", "fix"),
    [
        ("UNMISSED_JWT_ALGORITHM", "none", "'HS256'"),
        ("UNMISSED_JWT_ALGORITHM", "hs256", "'HS256'"),
        ("UNMISSED_MAX_MESSAGES", "0", "greater than 0"),
        ("UNMISSED_MAX_MESSAGES", "-1", "greater than 0"),
        ("UNMISSED_MAX_MESSAGES", "many", "valid integer"),
        ("UNMISSED_MAX_MESSAGES", "1.5", "valid integer"),
        ("UNMISSED_MAX_AGE", "0", "greater than 0"),
        ("UNMISSED_MAX_AGE", "inf", "finite number"),
        ("UNMISSED_MAX_AGE", "nan", "finite number"),
        ("UNMISSED_MAX_AGE", "15m", "valid number"),
        ("UNMISSED_MAX_BYTES", "32MB", "valid integer"),
        ("UNMISSED_MAX_MESSAGE_BYTES", "0", "greater than 0"),
        ("UNMISSED_HEARTBEAT_SECONDS", "0", "greater than 0"),
        ("UNMISSED_STALL_SECONDS", "-1", "greater than 0"),
        ("UNMISSED_DRAIN_SECONDS", "soon", "valid number"),
        ("UNMISSED_ALLOW_QUERY_TOKEN", "maybe", "valid boolean"),
        ("UNMISSED_MAX_CONNECTIONS", "0", "greater than 0"),
        ("UNMISSED_MAX_CONNECTIONS_PER_USER", "0", "greater than 0"),
        ("UNMISSED_FIRST_NUMBER", "0", "greater than 0"),
        ("UNMISSED_FIRST_NUMBER", "now", "'clock'"),
        ("UNMISSED_FIRST_NUMBER", str(2**53), "4503599627370496"),
    ],
)
def test_a_refusal_names_the_variable_and_what_it_should_be(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, fix: str
) -> None:
    monkeypatch.setenv(variable, text)

    refusal = refusal_of()

    assert refusal.startswith(f"{variable}: ")
    assert fix in refusal
    assert 1 == len(refusal.splitlines())


def test_every_wrong_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMISSED_MAX_MESSAGES", "0")
    monkeypatch.setenv("UNMISSED_MAX_AGE", "0")

    lines = refusal_of().splitlines()

    assert {"UNMISSED_MAX_MESSAGES", "UNMISSED_MAX_AGE"} == {line.partition(":")[0] for line in lines}


def test_a_value_that_is_no_setting_is_refused() -> None:
    assert refusal_of(max_mesages=5).startswith("UNMISSED_MAX_MESAGES: ")


def test_a_log_that_cannot_hold_one_message_is_refused() -> None:
    assert "UNMISSED_MAX_BYTES must be at least 452: " in refusal_of(max_bytes=99, max_message_bytes=100)


def test_a_log_that_holds_just_one_message_is_accepted() -> None:
    assert 452 == Settings.load(max_bytes=452, max_message_bytes=100).max_bytes


@pytest.mark.parametrize("origin", ["example.com", "https://*.example.com", "https://a.example/path", "https://"])
def test_an_origin_that_no_page_can_have_is_refused(origin: str) -> None:
    assert "is not an origin: write https://app.example.com" in refusal_of(
        allowed_origins=f"https://a.example,{origin}"
    )


def test_the_secret_is_the_key() -> None:
    assert Settings.load(jwt_secret=SECRET).key() == SECRET


def test_the_key_may_be_in_a_file_whose_last_newline_is_not_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"{SECRET}\n")

    assert Settings.load(jwt_secret_file=path).key() == SECRET


def test_a_secret_of_32_bytes_is_enough() -> None:
    """Bytes, not characters: 16 letters with two bytes each will do."""
    assert Settings.load(jwt_secret="é" * 16).key() == "é" * 16


def test_no_secret_is_refused_with_two_ways_out() -> None:
    refusal = refusal_of_key()

    assert refusal.startswith("UNMISSED_JWT_SECRET is not set")
    assert "openssl rand -base64 48" in refusal
    assert "unmissed serve --dev" in refusal


@pytest.mark.parametrize("secret", ["short", "x" * 31])
@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_short_secret_is_refused(secret: str, algorithm: str) -> None:
    expected = (
        f"UNMISSED_JWT_SECRET has {len(secret)} bytes and needs at least 32: create one with: openssl rand -base64 48"
    )
    assert expected == refusal_of_key(jwt_secret=secret, jwt_algorithm=algorithm)


def test_an_empty_secret_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMISSED_JWT_SECRET", "")

    assert refusal_of_key().startswith("UNMISSED_JWT_SECRET is not set")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("\n")

    assert "has 0 bytes and needs at least 32" in refusal_of_key(jwt_secret_file=path)


def test_a_secret_and_a_file_at_once_are_refused(tmp_path: Path) -> None:
    assert (
        refusal_of_key(jwt_secret=SECRET, jwt_secret_file=tmp_path / "key")
        == "UNMISSED_JWT_SECRET and UNMISSED_JWT_SECRET_FILE are both set: keep one"
    )


@pytest.mark.parametrize("secret", [SECRET, SECRET * 10])
def test_a_secret_in_place_of_a_file_is_refused_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setenv("UNMISSED_JWT_SECRET_FILE", secret)

    refusal = refusal_of_key()

    assert refusal in (
        "UNMISSED_JWT_SECRET_FILE cannot be read: No such file or directory",
        "UNMISSED_JWT_SECRET_FILE cannot be read: File name too long",
    )


def test_a_directory_is_no_secret(tmp_path: Path) -> None:
    assert refusal_of_key(jwt_secret_file=tmp_path).startswith("UNMISSED_JWT_SECRET_FILE cannot be read: ")


def test_a_file_that_is_not_text_is_refused_without_its_content(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"\xff" + SECRET.encode())

    refusal = refusal_of_key(jwt_secret_file=path)

    assert refusal.startswith("UNMISSED_JWT_SECRET_FILE cannot be read: ")
    assert SECRET not in refusal


def test_a_short_public_key_is_left_to_the_verifier() -> None:
    assert "pem" == Settings.load(jwt_secret="pem", jwt_algorithm="RS256").key()


def test_the_secret_is_in_no_text_of_the_settings() -> None:
    settings = Settings.load(jwt_secret=SECRET)

    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


def test_a_refusal_never_holds_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMISSED_JWT_SECRET", SECRET)

    assert SECRET not in refusal_of(max_messages=0)
    assert SECRET not in refusal_of(max_bytes=1)


def test_settings_do_not_change() -> None:
    settings = Settings.load()

    with pytest.raises(ValueError, match="frozen"):
        settings.max_messages = 5  # type: ignore[misc]  # what is tested


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"jwt_secret": SECRET, "jwt_audience": "chat", "jwt_issuer": "login", "jwt_ignore_audience": True},
        {"jwt_secret": "-----BEGIN PUBLIC KEY-----\nMFkw=\n-----END PUBLIC KEY-----\n", "jwt_algorithm": "ES256"},
        {"jwt_secret_file": Path("/run/secrets/the key, or another")},
        {"allowed_origins": ("https://a.example", "http://localhost:*"), "allow_query_token": True, "docs": False},
        {"max_age": 0.1, "heartbeat_seconds": 1e-05, "token_leeway": 30.0, "publish_seconds": 1e16},
        {"first_number": 7, "max_messages": 5, "max_connections": 10, "max_connections_per_user": 2},
        {"log_url": "redis://alice:s%2Fcret@localhost:6379/1?name=chat"},
    ],
)
def test_another_process_has_the_same_settings_from_their_variables(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, object]
) -> None:
    settings = Settings.load(**values)

    for name, text in settings.environment(Settings.model_fields).items():
        monkeypatch.setenv(name, text)

    assert settings == Settings.load()


def test_the_variables_of_settings_contain_the_secret_and_nothing_that_is_unset() -> None:
    environment = Settings.load(jwt_secret=SECRET).environment(Settings.model_fields)

    assert SECRET == environment["UNMISSED_JWT_SECRET"]
    assert {name for name, value in Settings.load(jwt_secret=SECRET) if value is None} == {
        name for name in Settings.model_fields if f"UNMISSED_{name.upper()}" not in environment
    }


@pytest.mark.parametrize("value", ["", " "])
@pytest.mark.parametrize("name", Settings.model_fields)
def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"UNMISSED_{name.upper()}", value)

    assert Settings.model_fields[name].get_default() == getattr(Settings.load(), name)
    assert Settings.model_fields[name].get_default() == getattr(Settings.load(**{name: value}), name)


@pytest.mark.parametrize("service", ["UNMISSED", "UNMISSED_LOG", "UNMISSED_MAX"])
def test_the_variables_that_kubernetes_sets_for_a_service_are_no_misspelt_ones(service: str) -> None:
    links = [
        "PORT",
        "SERVICE_HOST",
        "SERVICE_PORT",
        "SERVICE_PORT_HTTP",
        "PORT_8000_TCP",
        "PORT_8000_TCP_PROTO",
        "PORT_8000_TCP_PORT",
        "PORT_8000_TCP_ADDR",
        "PORT_53_UDP_ADDR",
    ]
    assert [] == unknown_variables({f"{service}_{link}": "tcp://10.0.0.7:8000" for link in links})
    assert ["UNMISSED_PORTS"] == unknown_variables({"UNMISSED_PORTS": "8000"})


def test_misspelt_variables_are_found() -> None:
    environment = {"UNMISSED_MAX_MESAGES": "5", "unmissed_secret": "x", "PATH": "/bin", "UNMISSED_MAX_AGE": "5"}

    assert ["UNMISSED_MAX_MESAGES", "unmissed_secret"] == unknown_variables(environment)


def test_variables_of_settings_and_of_the_command_line_are_known() -> None:
    names = [f"UNMISSED_{name.upper()}" for name in Settings.model_fields]

    assert [] == unknown_variables(dict.fromkeys([*names, "UNMISSED_URL", "UNMISSED_TOKEN", "unmissed_max_age"], ""))


def test_the_environment_of_the_process_is_looked_at_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMISSED_MAX_MESAGES", "5")

    assert ["UNMISSED_MAX_MESAGES"] == unknown_variables()


def test_the_key_of_notes_depends_on_the_secret_and_is_not_the_one_that_signs_tokens() -> None:
    keys = [Settings.load(jwt_secret=secret).node_keys() for secret in (SECRET, SECRET, f"another {SECRET}")]

    assert keys[0] == keys[1] != keys[2]
    assert SECRET.encode() not in keys[0]
    assert [1, 1, 1] == [*map(len, keys)]


def test_a_secret_for_nodes_replaces_the_one_of_tokens_and_a_public_key_is_none() -> None:
    of_nodes = Settings.load(node_secret=f"another {SECRET}").node_keys()

    assert of_nodes == Settings.load(jwt_secret=SECRET, node_secret=f"another {SECRET}").node_keys()
    assert of_nodes == Settings.load(jwt_algorithm="ES256", node_secret=f"another {SECRET}").node_keys()
    assert () == Settings.load(jwt_secret="a public key", jwt_algorithm="ES256").node_keys()
    assert () == Settings.load().node_keys()


def test_the_key_of_notes_comes_from_a_file_that_has_the_secret(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")

    assert (
        Settings.load(jwt_secret=SECRET).node_keys() == Settings.load(jwt_secret_file=tmp_path / "secret").node_keys()
    )


def test_a_secret_for_nodes_that_is_too_short_is_refused_with_the_fix() -> None:
    with pytest.raises(ConfigurationError, match=r"UNMISSED_NODE_SECRET has 5 bytes .* openssl rand -base64 48"):
        Settings.load(node_secret="short").node_keys()  # it is refused


PREVIOUS = f"previous {SECRET}"


def test_a_previous_secret_is_accepted_and_signs_nothing() -> None:
    settings = Settings.load(jwt_secret=SECRET, jwt_previous_secret=PREVIOUS)

    assert (SECRET, PREVIOUS) == settings.keys()
    assert SECRET == settings.key()


def test_a_previous_secret_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "previous").write_text(f"{PREVIOUS}\n")

    assert (SECRET, PREVIOUS) == Settings.load(jwt_secret=SECRET, jwt_previous_secret_file=tmp_path / "previous").keys()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"jwt_previous_secret": "short"}, "UNMISSED_JWT_PREVIOUS_SECRET has 5 bytes .* openssl rand"),
        (
            {"jwt_previous_secret": PREVIOUS, "jwt_previous_secret_file": "/none"},
            "UNMISSED_JWT_PREVIOUS_SECRET and UNMISSED_JWT_PREVIOUS_SECRET_FILE are both set: keep one",
        ),
        ({"jwt_previous_secret_file": "/none"}, "UNMISSED_JWT_PREVIOUS_SECRET_FILE cannot be read: No such file"),
    ],
)
def test_a_previous_secret_is_checked_as_the_current_one_is(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        Settings.load(jwt_secret=SECRET, **values).keys()


def test_a_previous_secret_alone_is_no_secret() -> None:
    with pytest.raises(ConfigurationError, match="UNMISSED_JWT_SECRET is not set"):
        Settings.load(jwt_previous_secret=PREVIOUS).keys()


def test_notes_are_accepted_under_both_secrets_and_sent_under_the_current_one() -> None:
    old, new = (Settings.load(jwt_secret=secret).node_keys() for secret in (PREVIOUS, SECRET))
    before = Settings.load(jwt_secret=PREVIOUS, jwt_previous_secret=SECRET).node_keys()
    after = Settings.load(jwt_secret=SECRET, jwt_previous_secret=PREVIOUS).node_keys()

    assert (old + new, new + old) == (before, after)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (
            {"jwks_url": "https://a.test/", "jwks_file": "/keys"},
            "UNMISSED_JWKS_URL and UNMISSED_JWKS_FILE are both set: keep one",
        ),
        ({"jwks_url": "https://a.test/", "jwt_secret": SECRET}, "UNMISSED_JWT_SECRET are both set: keep one"),
        ({"jwks_file": "/keys", "jwt_secret_file": "/key"}, "UNMISSED_JWT_SECRET are both set: keep one"),
        ({"jwks_file": "/keys", "jwt_previous_secret": SECRET}, "UNMISSED_JWT_PREVIOUS_SECRET has no effect"),
        ({"jwks_file": "/keys", "jwt_previous_secret_file": "/key"}, "UNMISSED_JWT_PREVIOUS_SECRET has no effect"),
    ],
)
def test_keys_have_one_source(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        Settings.load(**values).jwks_source()


def test_the_keys_of_a_provider_authenticate_no_notes() -> None:
    assert () == Settings.load(jwks_url="https://a.test/").node_keys()
    assert 1 == len(Settings.load(jwks_url="https://a.test/", node_secret=SECRET).node_keys())


def test_another_process_gets_the_same_settings_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.load(
        jwks_url="https://a.test/", jwt_audience="a,b", jwt_issuer=["c", "d"], scope_claim="scp,roles", topics_claim="x"
    )
    for name, value in settings.environment(Settings.model_fields).items():
        monkeypatch.setenv(name, value)

    assert settings == Settings.load()
