"""The outbox of a manager: which database it is in, and what wakes a node."""

import asyncio
import secrets
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from engines import PostgresServer
from support import until
from transaction_database import TransactionDatabase
from unmissed import ConfigurationError, ConnectionManager, Settings
from unmissed.testing import SECRET

MESSAGE = {"type": "order", "data": 42}


def manager_with(**settings: str) -> ConnectionManager:
    return ConnectionManager(Settings.load(jwt_secret=SECRET, **settings))


@pytest.mark.parametrize("log_url", ["memory:", "sqlite:shop.db", "redis://localhost", "nats://localhost"])
async def test_another_log_needs_an_outbox(log_url: str) -> None:
    manager = manager_with(log_url=log_url)

    with pytest.raises(ConfigurationError, match=r"UNMISSED_LOG_URL=postgresql://.*UNMISSED_OUTBOX_URL=postgresql://"):
        await manager.publish_in(object(), MESSAGE)
    with pytest.raises(ConfigurationError, match="position_in needs the log"):
        await manager.position_in(object())


def test_a_log_in_postgresql_has_its_outbox() -> None:
    with pytest.raises(ConfigurationError, match=r"UNMISSED_OUTBOX_URL: .*leave this one out"):
        manager_with(log_url="postgresql://db/shop", outbox_url="postgresql://db/shop")


def test_an_outbox_is_in_postgresql() -> None:
    with pytest.raises(ConfigurationError, match="UNMISSED_OUTBOX_URL cannot be read"):
        manager_with(outbox_url="mysql://db/shop")


@pytest.mark.live
async def test_a_commit_wakes_the_node(database: TransactionDatabase) -> None:
    manager = manager_with(log_url=f"{database.url}?name={database.schema}&poll=9999")
    engine = create_async_engine(database.url.replace("postgresql:", "postgresql+asyncpg:"))

    async with manager:
        for number in range(3):
            async with AsyncSession(engine) as session, session.begin():
                await manager.publish_in(session, {"type": "order", "data": number})
            # After seconds, the node would look by itself.
            await until(lambda: number + 1 == len(manager.window))  # noqa: B023  # called in this round
        assert [0, 1, 2] == [message.data for message in manager.window]
    await engine.dispose()


@pytest.mark.live
async def test_an_outbox_feeds_a_log_in_memory(postgres_server: PostgresServer) -> None:
    manager = manager_with(outbox_url=f"{postgres_server.url}?name=outbox-{secrets.token_hex(8)}&poll=9999")
    engine = create_engine(postgres_server.url.replace("postgresql:", "postgresql+psycopg:"))

    def publish() -> None:
        with Session(engine) as session, session.begin():
            manager.publish_in_sync(session, {"type": "order", "data": 1}, users=["alice"])

    async with manager:
        await asyncio.to_thread(publish)
        await until(lambda: len(manager.window))
        [message] = manager.window
        assert (1, ["alice"]) == (message.data, message.users)
        assert manager.running.detailed_problem is None
    engine.dispose()


@pytest.mark.live
async def test_an_outbox_that_is_away_is_a_problem_of_the_node(tmp_path: Path) -> None:
    with PostgresServer(tmp_path) as server:
        async with manager_with(outbox_url=server.url) as manager:
            server.kill()
            await until(lambda: manager.running.problem)
            assert "127.0.0.1" in str(manager.running.detailed_problem)
            # Nothing else is affected.
            await manager.emit("order", 1)

            server.start()
            await until(lambda: manager.running.problem is None)


@pytest.mark.live
async def test_a_transaction_publishes_before_a_node_has_started(database: TransactionDatabase) -> None:
    """Also in a process that only publishes."""
    async with database.connection.transaction():
        await database.manager.publish_in(database.connection, MESSAGE)

    async with database.manager as manager:
        await until(lambda: len(manager.window))
        assert ["order"] == [message.type for message in manager.window]
