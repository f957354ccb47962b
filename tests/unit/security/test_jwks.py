"""The keys of a provider: when they are loaded, and what happens while it is away. No network, and a clock by hand."""

import asyncio
import logging
from pathlib import Path

import pytest

from identity_provider import jwk_of, set_of
from support import until
from unmissed.core.errors import ConfigurationError, InvalidToken, ProviderUnavailable
from unmissed.security.jwks import MAX_UNKNOWN, Jwks, LoadTiming
from unmissed.security.jwks_sources import MAX_SET_BYTES
from unmissed.testing import ManualClock

NEVER = LoadTiming(refresh=1e6, retry=1e6)


class Source:
    """A JWK Set that a test changes. It counts how often it was loaded."""

    def __init__(self, *keys: object) -> None:
        self.answer: bytes | Exception = set_of(*keys)
        self.loads = 0
        self.answering = asyncio.Event()
        self.answering.set()
        self.removed = 0
        self.clock = ManualClock()

    async def load(self) -> bytes:
        self.loads += 1
        await self.answering.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def note_removed(self) -> None:
        self.removed += 1

    def jwks(self, *, timing: LoadTiming = NEVER) -> Jwks:
        return Jwks("https://login.test/keys", self.load, removed=self.note_removed, timing=timing, clock=self.clock)


async def found_by(jwks: Jwks, key_id: str | None) -> list[str | None]:
    keys = jwks.find(key_id)
    return [key.id for key in (await jwks.look_up(key_id) if keys is None else keys)]


async def test_the_keys_are_loaded_once_at_the_start() -> None:
    source = Source(jwk_of("first"), jwk_of("second"))

    async with source.jwks().kept_fresh():
        pass

    assert 1 == source.loads


async def test_a_known_key_is_found_without_a_load() -> None:
    source = Source(jwk_of("first"), jwk_of("second"))
    jwks = source.jwks()
    async with jwks.kept_fresh():
        assert ["second"] == [key.id for key in jwks.find("second") or []]

    assert 1 == source.loads


async def test_an_unknown_key_is_found_after_another_load() -> None:
    source = Source(jwk_of("first"))
    jwks = source.jwks()
    async with jwks.kept_fresh():
        source.answer = set_of(jwk_of("second"), jwk_of("first"))

        assert ["second"] == await found_by(jwks, "second")

    assert 2 == source.loads


async def test_a_flood_of_unknown_keys_leads_to_one_load_a_minute() -> None:
    source = Source(jwk_of("first"), jwk_of("second"))
    jwks = source.jwks()
    async with jwks.kept_fresh():
        for number in range(1_000):
            with pytest.raises(InvalidToken if number == 0 else ProviderUnavailable):
                await jwks.look_up(f"unknown-{number}")
        source.clock.advance(59.9)
        with pytest.raises(ProviderUnavailable, match="the token's key is not known yet: retry shortly"):
            await jwks.look_up("another")
        assert 2 == source.loads
        source.clock.advance(0.1)
        with pytest.raises(InvalidToken):
            await jwks.look_up("another")

    assert 3 == source.loads


async def test_many_requests_at_once_share_one_load() -> None:
    source = Source(jwk_of("first"))
    jwks = source.jwks()
    async with jwks.kept_fresh():
        source.answering.clear()
        source.answer = set_of(jwk_of("first"), jwk_of("second"))
        asking = [asyncio.create_task(found_by(jwks, "second")) for _ in range(500)]
        await until(lambda: source.loads == 2)
        source.answering.set()

        assert [["second"]] * 500 == await asyncio.gather(*asking)

    assert 2 == source.loads


async def test_a_request_that_is_cancelled_does_not_cancel_the_load_of_the_others() -> None:
    source = Source(jwk_of("first"))
    jwks = source.jwks()
    async with jwks.kept_fresh():
        source.answering.clear()
        source.answer = set_of(jwk_of("second"))
        leaving, staying = (asyncio.create_task(found_by(jwks, "second")) for _ in range(2))
        await until(lambda: source.loads == 2)
        leaving.cancel()
        await asyncio.wait([leaving])
        source.answering.set()

        assert ["second"] == await staying


async def test_an_unknown_key_is_refused_for_certain_only_after_a_load_without_it() -> None:
    """A client stops after a refusal, and comes back if it is only asked to."""
    source = Source(jwk_of("first"), jwk_of("second"))
    jwks = source.jwks()
    async with jwks.kept_fresh():
        for refusal in (InvalidToken, InvalidToken):
            with pytest.raises(refusal):
                await jwks.look_up("old")
        with pytest.raises(ProviderUnavailable):
            await jwks.look_up("new")

    assert 2 == source.loads


async def test_a_key_that_was_unknown_may_appear_a_minute_later() -> None:
    source = Source(jwk_of("first"), jwk_of("second"))
    jwks = source.jwks()
    async with jwks.kept_fresh():
        with pytest.raises(InvalidToken):
            await jwks.look_up("third")
        source.answer = set_of(jwk_of("third"))
        source.clock.advance(60)

        assert ["third"] == await found_by(jwks, "third")


async def test_the_ids_that_are_remembered_as_unknown_are_bounded() -> None:
    source = Source(jwk_of("first"), jwk_of("second"))
    jwks = source.jwks(timing=LoadTiming(refresh=1e6, unknown=0.0))
    async with jwks.kept_fresh():
        for number in range(MAX_UNKNOWN + 10):
            with pytest.raises(InvalidToken):
                await jwks.look_up(f"unknown-{number}")

    assert MAX_UNKNOWN + 11 == source.loads


@pytest.mark.parametrize(
    "answer",
    [
        OSError("connection refused"),
        RuntimeError("a bug"),
        b"",
        b"<html>maintenance</html>",
        b"[" * 100_000,
        b'{"keys": []}',
        set_of({"kty": "oct", "k": "c2VjcmV0"}),
        "é".encode("utf-16"),
    ],
    ids=lambda answer: str(answer)[:20],
)
async def test_the_keys_stay_while_the_provider_is_away_or_sends_rubbish(answer: bytes | Exception) -> None:
    source = Source(jwk_of("first"), jwk_of("second"))
    jwks = source.jwks()
    async with jwks.kept_fresh():
        source.answer = answer
        with pytest.raises(ProviderUnavailable):
            await jwks.look_up("third")

        assert ["first"] == await found_by(jwks, "first")
        assert None is jwks.problem
    assert 0 == source.removed


async def test_a_provider_that_is_slow_is_given_up_and_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    source = Source(jwk_of("first"))
    source.answering.clear()
    jwks = source.jwks(timing=LoadTiming(load=0.01, retry=0.01))
    async with jwks.kept_fresh():
        assert "the keys of the identity provider are not available: retry shortly" == jwks.problem
        await until(lambda: source.loads > 2)
        source.answering.set()
        await until(lambda: jwks.problem is None)

        assert ["first"] == await found_by(jwks, "first")
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert ["no answer within 0.01 seconds"] == [record.getMessage().rpartition(": ")[2] for record in errors]
    assert "the keys at https://login.test/keys can be loaded again" in caplog.text


async def test_the_keys_are_loaded_again_from_time_to_time() -> None:
    source = Source(jwk_of("first"))
    jwks = source.jwks(timing=LoadTiming(refresh=0.001))
    async with jwks.kept_fresh():
        source.answer = set_of(jwk_of("second"))
        await until(lambda: source.removed)

        assert ["second"] == await found_by(jwks, "second")


async def test_a_removed_key_is_reported_and_an_added_one_is_not() -> None:
    source = Source(jwk_of("first"))
    jwks = source.jwks()
    await jwks.load()
    source.answer = set_of(jwk_of("first"), jwk_of("second"))
    await jwks.load()
    assert 0 == source.removed

    source.answer = set_of(jwk_of("second"))
    await jwks.load()

    assert 1 == source.removed


async def test_another_key_with_the_same_id_replaces_the_first() -> None:
    source = Source(jwk_of("first"))
    jwks = source.jwks()
    await jwks.load()
    source.answer = set_of(jwk_of("second", kid="first"))
    await jwks.load()

    assert 1 == source.removed


async def test_a_token_without_an_id_is_for_the_only_key() -> None:
    one, unnamed = Source(jwk_of("first")).jwks(), Source(jwk_of("first", kid=None)).jwks()
    several = Source(jwk_of("first"), jwk_of("second", kid=None)).jwks()
    for jwks in (one, unnamed, several):
        await jwks.load()

    assert ["first"] == await found_by(one, None)
    assert [None] == await found_by(unnamed, None) == await found_by(unnamed, "any")
    with pytest.raises(InvalidToken, match="no kid, and the identity provider has several keys"):
        await found_by(several, None)


async def test_keys_with_one_id_are_all_tried() -> None:
    jwks = Source(jwk_of("first"), jwk_of("second", kid="first")).jwks()
    await jwks.load()

    assert ["first", "first"] == await found_by(jwks, "first")


async def test_without_an_application_that_runs_it_keys_are_loaded_for_the_first_token() -> None:
    source = Source(jwk_of("first"))
    jwks = source.jwks()
    # Otherwise the application would never be ready, and no token would come.
    assert None is jwks.problem

    assert ["first"] == await found_by(jwks, "first")


async def test_without_an_application_that_runs_it_old_keys_are_loaded_again_beside_a_token() -> None:
    source = Source(jwk_of("first"))
    jwks = source.jwks(timing=LoadTiming(refresh=600.0, retry=30.0))
    await jwks.load()
    source.answer = OSError("away")
    source.clock.advance(600.0)
    jwks.refresh_if_old()
    assert ["first"] == await found_by(jwks, "first")
    await until(lambda: source.loads == 2)
    source.answer = set_of(jwk_of("second"))
    source.clock.advance(29.0)
    jwks.refresh_if_old()
    assert 2 == source.loads

    source.clock.advance(1.0)
    jwks.refresh_if_old()
    await until(lambda: source.removed)

    assert ["second"] == await found_by(jwks, "second")
    assert 3 == source.loads


async def test_running_it_twice_loads_once() -> None:
    source = Source(jwk_of("first"))
    jwks = source.jwks()
    async with jwks.kept_fresh(), jwks.kept_fresh():
        pass

    assert 1 == source.loads


async def test_what_is_ignored_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    source = Source(jwk_of("first"), jwk_of("second", use="enc"), jwk_of("third", alg="PS256"))
    jwks = source.jwks()
    for _ in range(3):
        await jwks.load()

    [message] = caplog.messages
    assert "ignoring keys at https://login.test/keys: key 2: it is not for signatures; key 3: " in message


async def test_a_line_says_what_was_loaded() -> None:
    jwks = Source(jwk_of("first"), jwk_of("curve", "ES256", kid=None)).jwks()

    assert "2 keys at https://login.test/keys: first (RS256), without kid (ES256)" == await jwks.load()


async def test_a_file_is_read_again_when_a_key_is_unknown(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(set_of(jwk_of("first")))
    jwks = Jwks.at(file, algorithms=["RS256"], removed=lambda: None)
    async with jwks.kept_fresh():
        file.write_bytes(set_of(jwk_of("first"), jwk_of("second")))

        assert ["second"] == await found_by(jwks, "second")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"", "Expecting value"),
        (b"[]", "not a JWK Set"),
        (b" " * (MAX_SET_BYTES + 1), f"more than {MAX_SET_BYTES} bytes"),
        (set_of(jwk_of("first", use="enc")), "no key that can be used: key 1: it is not for signatures"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_configuration_error(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / "jwks.json").write_bytes(content)

    with pytest.raises(ConfigurationError, match=f"UNMISSED_JWKS_FILE cannot be used: .*{reason}"):
        Jwks.at(tmp_path / "jwks.json", algorithms=["RS256"], removed=lambda: None)


@pytest.mark.parametrize(
    "url",
    [
        "http://login.example.com/jwks.json",
        "http://127.0.0.1.evil.example/jwks.json",
        "http://[::2]/jwks.json",
        "ftp://login.example.com/jwks.json",
        "login.example.com/jwks.json",
        "https:///jwks.json",
        "jwks.json",
    ],
)
def test_a_url_that_others_on_the_way_could_answer_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match="UNMISSED_JWKS_URL must be an https:// URL"):
        Jwks.at(url, algorithms=["RS256"], removed=lambda: None)


@pytest.mark.parametrize(
    "url", ["https://me:secret@login.example.com/", "https://login.example.com:port/", "https://["]
)
def test_a_url_with_a_login_or_an_invalid_host_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match="UNMISSED_JWKS_URL") as refused:
        Jwks.at(url, algorithms=["RS256"], removed=lambda: None)

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["https://login.example.com/k?a=b", "http://localhost:1/", "http://[::1]:1/k"])
def test_http_is_for_this_machine(url: str) -> None:
    assert Jwks.at(url, algorithms=["RS256"], removed=lambda: None)


@pytest.mark.parametrize("algorithm", ["HS256", "none", "PS256", "EdDSA"])
def test_an_algorithm_that_no_key_of_a_provider_is_for_is_a_configuration_error(algorithm: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{algorithm} is not an algorithm .* use RS256"):
        Jwks.at("https://login.example.com/", algorithms=[algorithm], removed=lambda: None)
