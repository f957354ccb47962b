"""The URL of the log."""

import sys
import time

import pytest

from unmissed.core.errors import ConfigurationError
from unmissed.core.retention import Retention
from unmissed.logs.base import Log
from unmissed.logs.memory import MemoryLog
from unmissed.logs.shared_log import SharedLog
from unmissed.logs.sqlite.log import SqliteLog
from unmissed.logs.urls import is_shared, log_from_url


def log_at(url: str) -> Log:
    return log_from_url(url, retention=Retention(), first_number=None, clock=time.monotonic, wall_clock=time.time)


def test_the_memory_log_is_named_memory() -> None:
    assert isinstance(log_at("memory:"), MemoryLog)


@pytest.mark.parametrize(
    "path", ["log.db", "/var/lib/log.db", "/var/lib/log.db?synchronous=normal", "a.db?synchronous=full"]
)
def test_an_sqlite_log_is_named_by_its_path(path: str) -> None:
    assert isinstance(log_at(f"sqlite:{path}"), SqliteLog)


@pytest.mark.parametrize("url", ["sqlite:", "sqlite::memory:", "sqlite:?synchronous=normal"])
def test_an_sqlite_log_needs_a_file(url: str) -> None:
    with pytest.raises(ConfigurationError, match="names no file"):
        log_at(url)


@pytest.mark.parametrize("option", ["synchronous=off", "synchronous", "mode=ro", "synchronous=normal&mode=ro"])
def test_an_unknown_option_is_refused_with_the_valid_ones(option: str) -> None:
    with pytest.raises(ConfigurationError, match=r"synchronous=full\|normal"):
        log_at(f"sqlite:log.db?{option}")


@pytest.mark.parametrize("url", ["", "memory", "memory:x", "mysql://localhost", "sqlite"])
def test_a_url_that_names_no_log_is_refused_with_one_that_does(url: str) -> None:
    with pytest.raises(ConfigurationError, match="use memory:"):
        log_at(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://alice:secret@localhost:6379/1?name=chat_2",
        "rediss://localhost?ssl_ca_certs=/etc/ca.pem&ssl_cert_reqs=none",
        "redis+sentinel://:secret@one:26379,two/mymaster/0?name=chat",
        "nats://localhost",
        "nats://alice:secret@one:4222,two:4222?name=chat&replicas=3&tls=true",
    ],
)
def test_a_shared_log_is_named_by_its_servers_and_opens_later(url: str) -> None:
    assert isinstance(log_at(url), SharedLog)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("memory:", False),
        ("sqlite:redis.db", False),
        ("redis://localhost", True),
        ("rediss://localhost", True),
        ("redis+sentinel://one/mymaster", True),
        ("nats://localhost", True),
    ],
)
def test_logs_on_servers_are_shared_by_several_processes(url: str, *, expected: bool) -> None:
    assert expected is is_shared(url)


def refusal_of(url: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        log_at(url)
    return str(refused.value)


@pytest.mark.parametrize(
    ("url", "valid"),
    [
        ("redis://localhost?replicas=3", "valid are name="),
        ("redis://localhost?name=", "name=[A-Za-z0-9_-]{1,64}"),
        ("redis://localhost?name=a.b", "name=[A-Za-z0-9_-]{1,64}"),
        (f"redis://localhost?name={'x' * 65}", "name=[A-Za-z0-9_-]{1,64}"),
        ("rediss://localhost?ssl_cert_reqs=never", "ssl_cert_reqs=required|optional|none"),
        ("redis://localhost?ssl_ca_certs=/etc/ca.pem", "valid are name="),
        ("redis+sentinel://one/mymaster?ssl_ca_certs=/etc/ca.pem", "valid are name="),
        ("nats://localhost?ssl_ca_certs=/etc/ca.pem", "?name=unmissed&replicas=1&tls=false"),
        ("nats://localhost?name=a.b", "1 to 64 letters, digits, - or _"),
    ],
)
def test_an_unknown_option_or_name_of_a_shared_log_is_refused_with_valid_ones(url: str, valid: str) -> None:
    assert valid in refusal_of(url)


@pytest.mark.parametrize(
    ("url", "form"),
    [
        ("redis:", "write redis://user:password@localhost:6379/0"),
        ("redis:localhost", "write redis://user:password@localhost:6379/0"),
        ("redis://", "write redis://user:password@localhost:6379/0"),
        ("redis://localhost/zero", "write redis://user:password@localhost:6379/0"),
        ("redis://localhost/0#1", "write redis://user:password@localhost:6379/0"),
        ("nats:", "write nats://"),
        ("nats:localhost", "write nats://"),
        ("redis://localhost:port", "write redis://user:password@localhost:6379/0"),
        ("redis+sentinel://one:26379", "write redis+sentinel://host:26379,host:26379/mymaster/0"),
        ("redis+sentinel://one/mymaster/first", "write redis+sentinel://host:26379,host:26379/mymaster/0"),
        ("redis+sentinel://one:port/mymaster", "write redis+sentinel://host:26379,host:26379/mymaster/0"),
        ("redis+sentinel://one,,two/mymaster", "write redis+sentinel://host:26379,host:26379/mymaster/0"),
        ("nats://localhost:port", "write nats://"),
    ],
)
def test_servers_that_cannot_be_read_are_refused_with_the_form(url: str, form: str) -> None:
    assert form in refusal_of(url)


PASSWORDS = [
    "secret",
    "/secret",
    "x/secret",
    "?secret",
    "x?secret=",
    "x?name=secret",
    "#secret",
    "x:secret",
    "x@secret",
]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize(
    "url",
    [
        "redis://alice:{}@localhost:port",
        "redis://:{}@localhost?other=1",
        "redis://alice:{}@localhost?name=a.b",
        "redis://localhost?password={}",
        "redis+sentinel://alice:{}@one,two",
        "redis+sentinel://:{}@one:port/mymaster",
        "nats://alice:{}@localhost:port",
        "nats://alice:{}@localhost?other=1",
        "nats://alice:{}@localhost?name=a.b",
        "nats://{}@localhost?replicas=2",
        "keydb://alice:{}@localhost",
        "keydb:alice:{}@localhost",
    ],
)
def test_no_refusal_contains_the_password(url: str, password: str) -> None:
    try:
        log_at(url.format(password))
    except ConfigurationError as error:
        assert "secret" not in str(error)  # noqa: PT017  # some passwords make another valid URL


@pytest.mark.parametrize("scheme", ["redis", "redis+sentinel"])
def test_a_missing_package_is_named_with_what_to_install(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("unmissed.logs.redis.redis_clients", "unmissed.logs.redis.engine"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)

    refusal = refusal_of(f"{scheme}://:secret@one/master")

    assert refusal.startswith("UNMISSED_LOG_URL needs redis")
    assert refusal.endswith(": pip install 'unmissed[redis]'")


async def test_a_missing_package_for_nats_is_named_when_the_log_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nats.aio.client", None)

    with pytest.raises(ConfigurationError, match=r"needs nats-py: pip install 'unmissed\[nats\]'"):
        await log_at("nats://:secret@localhost").open()
