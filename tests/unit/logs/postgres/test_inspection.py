"""The inspection of a database: what it finds on real servers, and what that means."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from engines import PgBouncer, PostgresServer
from unmissed.core.errors import ConfigurationError, LogUnavailable
from unmissed.logs.postgres.database_address import DatabaseAddress
from unmissed.logs.postgres.inspection import DatabaseFacts, inspect_database
from unmissed.logs.postgres.schema import FORMAT

ADDRESS = DatabaseAddress.of("postgresql://127.0.0.1/shop?name=messages")
POOLED = DatabaseAddress.of("postgresql://127.0.0.1/shop?name=messages&notify=false")
FACTS = DatabaseFacts(
    version="15.18",
    encoding="UTF8",
    is_standby=False,
    may_create=True,
    comment=None,
    owns_schema=False,
    isolation="read committed",
    has_fsync=True,
    synchronous_commit="on",
    is_pooled=False,
)
EXISTING: dict[str, Any] = {"comment": f"unmissed log format {FORMAT}", "owns_schema": True, "may_create": False}


@pytest.mark.parametrize(
    ("address", "facts"),
    [
        (ADDRESS, {}),
        (ADDRESS, EXISTING),
        (ADDRESS, {"isolation": "serializable"}),
        (POOLED, {"is_pooled": True}),
    ],
)
def test_a_database_that_a_node_can_use_has_no_problem(address: DatabaseAddress, facts: dict[str, Any]) -> None:
    usable = replace(FACTS, **facts)

    usable.check(address, "log")
    assert [] == [*usable.notes()]


@pytest.mark.parametrize(
    ("address", "facts", "fix"),
    [
        (ADDRESS, {"is_standby": True}, "name the primary, or all servers as host1,host2"),
        (ADDRESS, {"encoding": "SQL_ASCII"}, "create one with ENCODING 'UTF8'"),
        (ADDRESS, {"is_pooled": True}, "add ?notify=false"),
        (POOLED, {"is_pooled": True, "isolation": "serializable"}, "SET default_transaction_isolation"),
        (ADDRESS, {"may_create": False}, "GRANT it CREATE ON DATABASE"),
        (ADDRESS, {**EXISTING, "owns_schema": False}, "belongs to another role"),
        (ADDRESS, {**EXISTING, "comment": ""}, "belongs to another program"),
        (ADDRESS, {**EXISTING, "comment": f"unmissed log format {FORMAT + 1}"}, "update this node"),
        (ADDRESS, {**EXISTING, "comment": f"unmissed outbox format {FORMAT}"}, "is of an outbox, not of a log"),
    ],
)
def test_a_problem_is_one_line_with_its_fix(address: DatabaseAddress, facts: dict[str, Any], fix: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        replace(FACTS, **facts).check(address, "log")

    assert fix in str(refused.value)
    assert 1 == len(str(refused.value).splitlines())


def test_settings_that_lose_data_are_noted() -> None:
    notes = [*replace(FACTS, has_fsync=False, synchronous_commit="off").notes()]

    assert ["fsync = off", "synchronous_commit = off"] == [note.partition(":")[0] for note in notes]


def test_the_description_says_whether_the_schema_exists() -> None:
    found = [replace(FACTS, **facts).describe(ADDRESS) for facts in ({}, EXISTING)]

    assert [
        "PostgreSQL 15.18 at postgresql://127.0.0.1/shop: the schema messages is created by the first node",
        f"PostgreSQL 15.18 at postgresql://127.0.0.1/shop: the schema messages has the format {FORMAT}",
    ] == found


@pytest.fixture
async def database(postgres_server: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres_server.url)
    yield connection
    await connection.close()


@pytest.mark.live
async def test_a_server_is_inspected_without_a_change(
    postgres_server: PostgresServer, database: asyncpg.Connection
) -> None:
    address = DatabaseAddress.of(f"{postgres_server.url}?name=untouched")

    facts = await inspect_database(address)

    assert replace(FACTS, version=facts.version) == facts
    assert database.get_server_version().major == int(facts.version.partition(".")[0])
    assert not await database.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = 'untouched'")


@pytest.mark.live
async def test_the_inspection_knows_the_rights_of_its_role_and_the_owner_of_the_schema(
    postgres_server: PostgresServer, database: asyncpg.Connection
) -> None:
    await database.execute("CREATE ROLE guest LOGIN; CREATE SCHEMA owned; COMMENT ON SCHEMA owned IS 'ours'")
    url = postgres_server.url
    names = ("owned", "missing")

    own, missing = [await inspect_database(DatabaseAddress.of(f"{url}?name={name}")) for name in names]
    guest_url = url.replace("unmissed@", "guest@")
    foreign, _ = [await inspect_database(DatabaseAddress.of(f"{guest_url}?name={name}")) for name in names]

    assert ("ours", True, True) == (own.comment, own.owns_schema, own.may_create)
    assert (None, False, True) == (missing.comment, missing.owns_schema, missing.may_create)
    assert ("ours", False, False) == (foreign.comment, foreign.owns_schema, foreign.may_create)


@pytest.mark.live
async def test_a_pooler_is_found_whatever_the_url_says(postgres_server: PostgresServer, tmp_path: Path) -> None:
    with PgBouncer(tmp_path, postgres_server) as pooler:
        urls = (pooler.url, pooler.url.partition("?")[0])
        found = [await inspect_database(DatabaseAddress.of(url)) for url in urls]

    assert [True, True] == [facts.is_pooled for facts in found]


@pytest.mark.live
async def test_a_database_that_cannot_be_inspected_is_named_without_the_password(
    postgres_server: PostgresServer,
) -> None:
    nobody = DatabaseAddress.of("postgresql://shop:s3cret@127.0.0.1:1/shop")
    no_database = DatabaseAddress.of(postgres_server.url.replace("/postgres", "/nowhere"))

    with pytest.raises(LogUnavailable) as unreachable:
        await inspect_database(nobody)
    with pytest.raises(ConfigurationError, match="nowhere"):
        await inspect_database(no_database)

    assert "127.0.0.1:1/shop" in unreachable.value.reason
    assert "s3cret" not in str(unreachable.value)
