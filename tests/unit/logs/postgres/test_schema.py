"""The schema: who may do what in it, and who creates it."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from engines import PostgresServer
from unmissed.core.errors import ConfigurationError
from unmissed.logs.postgres.schema import SchemaKind, create_schema, schema_sql

pytestmark = pytest.mark.live


@pytest.fixture
async def owner(postgres_server: PostgresServer) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(postgres_server.url)
    yield connection
    await connection.close()


@pytest.fixture
def name() -> str:
    return f"log-{secrets.token_hex(8)}"


@pytest.fixture
async def clerk(owner: Any, name: str, postgres_server: PostgresServer) -> AsyncIterator[Any]:
    """Return a connection of a role that may publish, as the documentation says."""
    await create_schema(owner, name, "log")
    role = f"clerk-{name}"
    await owner.execute(f'CREATE ROLE "{role}" LOGIN')
    await owner.execute(f'GRANT USAGE ON SCHEMA "{name}" TO "{role}"')
    await owner.execute(f'GRANT EXECUTE ON FUNCTION "{name}".publish TO "{role}"')
    connection = await asyncpg.connect(postgres_server.url, user=role)
    yield connection
    await connection.close()


async def test_a_role_that_may_publish_can(clerk: Any, owner: Any, name: str) -> None:
    await clerk.execute(f"SELECT \"{name}\".publish('order', '1', ARRAY['t'], ARRAY['u'], 'k')")

    assert 1 == await owner.fetchval(f'SELECT count(*) FROM "{name}".outbox')


async def test_a_role_that_may_publish_can_do_nothing_else(clerk: Any, owner: Any, name: str) -> None:
    kinds = {
        "tables": "SELECT relname FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind = 'r'",
        "functions": "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = $1::regnamespace",
    }
    tables = [row[0] for row in await owner.fetch(kinds["tables"], f'"{name}"')]
    functions = [row[0] for row in await owner.fetch(kinds["functions"], f'"{name}"')]
    rights = "SELECT bool_or(has_table_privilege($1, right_name)) FROM unnest($2::text[]) AS right_name"
    all_rights = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"]

    readable = [each for each in tables if await clerk.fetchval(rights, f'"{name}".{each}', all_rights)]
    executable = [
        each for each in functions if await clerk.fetchval("SELECT has_function_privilege($1, 'EXECUTE')", each)
    ]

    assert len(tables) > 8
    assert [] == readable
    assert [True] == [".publish(" in each for each in executable]
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await clerk.execute(f'CREATE TABLE "{name}".mine (id int)')


async def test_objects_in_the_path_of_a_publisher_are_not_used(clerk: Any, owner: Any, name: str) -> None:
    """They would run with the rights of the owner."""
    await clerk.execute("CREATE TEMPORARY TABLE limits (one boolean, max_message_bytes int)")
    await clerk.execute("CREATE FUNCTION pg_temp.octet_length(text) RETURNS int LANGUAGE sql AS 'SELECT 1/0'")
    await clerk.execute("SET search_path = pg_temp, pg_catalog")

    await clerk.execute(f"SELECT \"{name}\".publish('order', topics => ARRAY['a', 'b'], key => 'k')")

    assert 1 == await owner.fetchval(f'SELECT count(*) FROM "{name}".outbox')


async def test_a_role_may_read_the_position(clerk: Any, owner: Any, name: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await clerk.fetchval(f'SELECT "{name}".position()')
    await owner.execute(f'GRANT EXECUTE ON FUNCTION "{name}".position TO PUBLIC')

    assert 0 == await clerk.fetchval(f'SELECT "{name}".position()')


async def test_a_migration_creates_the_schema(owner: Any, name: str) -> None:
    async with owner.transaction():
        await owner.execute(schema_sql(name, "log"))

    await create_schema(owner, name, "log")
    with pytest.raises(ConfigurationError, match="is of a log, not of an outbox"):
        await create_schema(owner, name, "outbox")


async def test_nodes_that_start_together_create_one_schema(name: str, postgres_server: PostgresServer) -> None:
    connections = [await asyncpg.connect(postgres_server.url) for _ in range(5)]

    await asyncio.gather(*(create_schema(connection, name, "outbox") for connection in connections))

    tables = await connections[0].fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = $1", name)
    assert 4 == tables
    for connection in connections:
        await connection.close()


@pytest.mark.parametrize("kind", ["log", "outbox"])
async def test_a_name_is_used_as_it_is(kind: SchemaKind, owner: Any) -> None:
    name = f"Shop-{secrets.token_hex(4)}_1"

    await create_schema(owner, name, kind)

    assert await owner.fetchval("SELECT true FROM pg_namespace WHERE nspname = $1", name)
