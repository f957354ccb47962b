"""What applications publish in, with the real libraries and a real server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from django.db import connections as django_connections
from django.db import transaction
from sqlalchemy import BigInteger, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from django_database import django_connected
from transaction_database import TransactionDatabase
from unmissed.core.errors import InvalidMessage, InvalidTarget

pytestmark = pytest.mark.live

MESSAGE = {"type": "order", "data": {"id": 42}}


class Base(DeclarativeBase):
    """The tables of an application."""


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    schema: Mapped[str]


@pytest.fixture
async def engine(database: TransactionDatabase) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(sqlalchemy_url(database, "asyncpg"))
    async with engine.begin() as connection:
        # Tests in several processes share the server.
        await connection.execute(text("SELECT pg_advisory_xact_lock(1)"))
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()


def sqlalchemy_url(database: TransactionDatabase, driver: str) -> str:
    return database.url.replace("postgresql:", f"postgresql+{driver}:")


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_an_async_session_publishes_with_its_commit(driver: str, database: TransactionDatabase) -> None:
    engine = create_async_engine(sqlalchemy_url(database, driver))
    async with AsyncSession(engine) as session, session.begin():
        await database.manager.publish_in(session, MESSAGE, topics=["orders.42"], users=["alice"])
        assert [] == await database.drafts()
    async with AsyncSession(engine) as session:
        await database.manager.publish_in(session, {"type": "rolled back"})
        await session.rollback()
    await engine.dispose()

    [draft] = await database.drafts()
    [message] = await database.messages()
    assert ("order", {"id": 42}, ["orders.42"]) == (message.type, message.data, message.topics)
    assert (["alice"], ["orders.42"]) == (draft.audience.users, draft.audience.topics)


async def test_a_session_is_flushed_before_it_publishes(database: TransactionDatabase, engine: AsyncEngine) -> None:
    """The row is locked then: the messages of two transactions have the order of their changes."""
    schema = database.schema
    async with AsyncSession(engine) as session, session.begin():
        order = Order(id=abs(hash(schema)), schema=schema)
        session.add(order)

        await database.manager.publish_in(session, MESSAGE)

        assert not session.new


async def test_a_savepoint_takes_its_messages_back(database: TransactionDatabase, engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session, session.begin():
        await database.manager.publish_in(session, {"type": "outer"})
        inner = await session.begin_nested()
        await database.manager.publish_in(session, {"type": "inner"})
        await inner.rollback()
        async with session.begin_nested():
            await database.manager.publish_in(session, {"type": "kept"})

    assert ["outer", "kept"] == await database.types()


async def test_an_async_connection_publishes(database: TransactionDatabase, engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await database.manager.publish_in(connection, MESSAGE)

    assert ["order"] == await database.types()


@pytest.mark.parametrize("driver", ["psycopg"])
async def test_a_session_and_a_connection_publish(driver: str, database: TransactionDatabase) -> None:
    engine = create_engine(sqlalchemy_url(database, driver))

    def publish() -> None:
        with Session(engine) as session, session.begin():
            database.manager.publish_in_sync(session, {"type": "session"}, key="cart")
        with engine.begin() as connection:
            database.manager.publish_in_sync(connection, {"type": "connection"}, key="cart", deleted=True)
        engine.dispose()

    await asyncio.to_thread(publish)

    first, second = await database.drafts()
    assert first.value is not None
    assert second.value is not None
    assert ("cart", True, False) == (first.value.key, first.value.is_full, second.value.is_full)
    assert ["session", "connection"] == await database.types()


async def test_asyncpg_publishes(database: TransactionDatabase) -> None:
    async with asyncpg.create_pool(database.url, min_size=1, max_size=1) as pool, pool.acquire() as connection:
        async with connection.transaction():
            await database.manager.publish_in(connection, MESSAGE)
        with pytest.raises(InvalidTarget, match=r"async with connection.transaction\(\)"):
            await database.manager.publish_in(connection, MESSAGE)

    assert ["order"] == await database.types()


async def test_psycopg_publishes(database: TransactionDatabase) -> None:
    async with await psycopg.AsyncConnection.connect(database.url) as connection:
        await database.manager.publish_in(connection, {"type": "async"})
    async with await psycopg.AsyncConnection.connect(database.url, autocommit=True) as connection:
        async with connection.transaction():
            await database.manager.publish_in(connection, {"type": "in a transaction"})
        with pytest.raises(InvalidTarget, match=r"use it in .async with connection"):
            await database.manager.publish_in(connection, {"type": "outside"})

    def publish() -> None:
        with psycopg.connect(database.url) as connection:
            database.manager.publish_in_sync(connection, {"type": "sync"})

    await asyncio.to_thread(publish)

    assert ["async", "in a transaction", "sync"] == await database.types()


async def test_django_publishes(database: TransactionDatabase) -> None:
    def publish() -> None:
        with django_connected(database.url) as connection:
            with transaction.atomic():
                database.manager.publish_in_sync(connection, MESSAGE)
            with pytest.raises(InvalidTarget, match=r"with transaction.atomic\(\)"):
                database.manager.publish_in_sync(connection, MESSAGE)
            with transaction.atomic(using="lite"), pytest.raises(InvalidTarget, match="in PostgreSQL, not in sqlite"):
                database.manager.publish_in_sync(django_connections["lite"], MESSAGE)

    await asyncio.to_thread(publish)

    assert ["order"] == await database.types()


async def test_a_session_of_another_database_is_refused(database: TransactionDatabase, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")

    with Session(engine) as session, pytest.raises(InvalidTarget, match="in PostgreSQL, not in sqlite"):
        database.manager.publish_in_sync(session, MESSAGE)
    engine.dispose()


async def test_a_connection_that_commits_each_statement_is_refused(
    database: TransactionDatabase, engine: AsyncEngine
) -> None:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(InvalidTarget, match="AUTOCOMMIT"):
            await database.manager.publish_in(connection, MESSAGE)

    assert [] == await database.drafts()


@pytest.mark.parametrize("target", [None, "session", object(), ConnectionError()])
async def test_another_object_is_refused(target: Any, database: TransactionDatabase) -> None:
    with pytest.raises(InvalidTarget, match="AsyncSession or AsyncConnection"):
        await database.manager.publish_in(target, MESSAGE)
    with pytest.raises(InvalidTarget, match="Session or Connection of SQLAlchemy"):
        database.manager.publish_in_sync(target, MESSAGE)


async def test_a_synchronous_target_names_the_right_call(database: TransactionDatabase) -> None:
    engine = create_engine(sqlalchemy_url(database, "psycopg"))

    with Session(engine) as session, pytest.raises(InvalidTarget, match="Call publish_in_sync for it"):
        await database.manager.publish_in(session, MESSAGE)
    engine.dispose()


async def test_a_refused_message_leaves_the_transaction_as_it_was(
    database: TransactionDatabase, engine: AsyncEngine
) -> None:
    async with AsyncSession(engine) as session, session.begin():
        await database.manager.publish_in(session, {"type": "before"})
        with pytest.raises(InvalidMessage, match="NUL"):
            await database.manager.publish_in(session, {"type": "a", "data": {"deep": ["\0"]}})
        await database.manager.publish_in(session, {"type": "after"})

    assert ["before", "after"] == await database.types()


async def test_the_position_is_that_of_the_snapshot(database: TransactionDatabase, engine: AsyncEngine) -> None:
    schema = database.schema
    await database.connection.execute(f"UPDATE \"{schema}\".life SET epoch = 'e', first_number = 1000")
    repeatable = engine.execution_options(isolation_level="REPEATABLE READ")
    insert = f"INSERT INTO \"{schema}\".messages VALUES (1000, 0, 0, '', NULL, NULL)"
    async with AsyncSession(repeatable) as session:
        before = await database.manager.position_in(session)
        await database.connection.execute(insert)

        assert (999, 999) == (before, await database.manager.position_in(session))
        await session.rollback()
        assert 1000 == await database.manager.position_in(session)

    with psycopg.connect(database.url) as connection:
        assert 1000 == database.manager.position_in_sync(connection)
