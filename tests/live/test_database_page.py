"""The examples of messages in transactions, in a database of PostgreSQL."""

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from django_database import django_connected
from engines import PostgresServer
from pages import DOCS, blocks, executed
from unmissed.testing import SECRET

pytestmark = pytest.mark.live


@pytest.fixture
async def shop(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncpg.Connection]:
    """Return a connection to a database for this test alone: the SQL of the examples names the schema."""
    name = f"shop_{secrets.token_hex(4)}"
    administrator = await asyncpg.connect(postgres_server.url)
    await administrator.execute(f"CREATE DATABASE {name}")
    await administrator.close()
    url = f"{postgres_server.url.rpartition('/')[0]}/{name}"
    monkeypatch.setenv("UNMISSED_JWT_SECRET", SECRET)
    monkeypatch.setenv("UNMISSED_LOG_URL", url)
    monkeypatch.setenv("DATABASE_URL", url.replace("postgresql:", "postgresql+asyncpg:"))
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


async def test_the_order_of_the_readme_is_published_when_it_is_committed(shop: asyncpg.Connection) -> None:
    example = executed("README.md")
    await shop.execute("CREATE TABLE orders (item TEXT)")
    engine = create_async_engine(os.environ["DATABASE_URL"])

    async with example["manager"] as manager, AsyncSession(engine) as session:
        await example["place"](session, "tea")
        await manager.emit("end")
        *_, order, _ = manager.window
    await engine.dispose()

    assert ("order", {"item": "tea"}) == (order.type, order.data)


async def test_every_example_publishes_in_its_transaction(shop: asyncpg.Connection) -> None:
    example = executed("database.md")
    url = os.environ["UNMISSED_LOG_URL"]
    async with example["engine"].begin() as connection:
        await connection.run_sync(example["Base"].metadata.create_all)
    await shop.execute("CREATE ROLE shop_web")

    async with example["manager"] as manager:
        for block in blocks("sql", DOCS["database.md"]):
            await shop.execute(block)
        order = await example["place"]("tea")
        async with asyncpg.create_pool(url, min_size=1) as pool:
            await example["ship"](pool, order)
        async with await psycopg.AsyncConnection.connect(url) as database:
            await example["cancel"](database, order)
        await asyncio.to_thread(pay, example, url, order)
        reordered = await asyncio.to_thread(reorder, example, url)
        end = await manager.emit("end")
        state = await example["orders"]()
        messages = [*manager.window]
    await example["test_an_order_is_announced"]()
    await example["engine"].dispose()

    published = [message for message in messages if message.type != "order"]
    of_rows = [message for message in messages if message.type == "order"]
    types = ["sale", "placed", "cart", "placed", "shipped", "cancelled", "paid", "placed", "end"]
    assert types == [message.type for message in published]
    assert [order] * 4 + [reordered] == [message.data["id"] for message in published[3:-1]]
    assert {str(order): "paid", str(reordered): "placed"} == {row.value.key: row.data["status"] for row in of_rows}
    assert end.sequence_number == state["sequence_number"]
    assert [(order, "paid"), (reordered, "placed")] == [(row["id"], row["status"]) for row in state["orders"]]


def pay(example: dict[str, Any], url: str, order: int) -> None:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with Session(engine) as session:
        example["pay"](session, order)
    engine.dispose()


def reorder(example: dict[str, Any], url: str) -> int:
    """Call the view of Django with a request whose user has orders, and return the new one."""
    with django_connected(url) as connection:

        def create(item: str) -> SimpleNamespace:
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO orders (item, status) VALUES (%s, 'placed') RETURNING id", [item])
                return SimpleNamespace(pk=cursor.fetchone()[0])

        user = SimpleNamespace(orders=SimpleNamespace(create=create))
        response = example["reorder"](SimpleNamespace(user=user, POST={"item": "tea"}))
    return int(json.loads(response.content)["id"])
