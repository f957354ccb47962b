"""A database with the schema of a log."""

import secrets
from collections.abc import AsyncIterator

import asyncpg
import pytest

from engines import PostgresServer
from transaction_database import TransactionDatabase
from unmissed import ConnectionManager, Settings
from unmissed.logs.postgres.schema import create_schema
from unmissed.testing import SECRET


@pytest.fixture
async def database(postgres_server: PostgresServer) -> AsyncIterator[TransactionDatabase]:
    """Return a new schema."""
    connection = await asyncpg.connect(postgres_server.url)
    schema = f"log-{secrets.token_hex(8)}"
    await create_schema(connection, schema, "log")
    settings = Settings.load(jwt_secret=SECRET, log_url=f"{postgres_server.url}?name={schema}")
    yield TransactionDatabase(postgres_server, schema, ConnectionManager(settings), connection)
    await connection.close()
