"""Writers in a real database: what they record is what was committed."""

import asyncio
import json
import random
import secrets

import asyncpg
import pytest

from engines import PostgresServer
from unmissed.lab.verify.database_writers import DatabaseWriter, Transaction, TransactionKind, Transactions
from unmissed.lab.verify.facts import Recorder, Written
from unmissed.logs.postgres.schema import create_schema

pytestmark = pytest.mark.live

WRITE = "INSERT INTO unmissed_verify VALUES ($1, true)"


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    """Return the URL of a log that does not exist yet."""
    return f"{postgres_server.url}?name={secrets.token_hex(8)}"


def unknown() -> Transaction:
    """Return a transaction with a message that was asked to commit, and has not answered."""
    own = secrets.token_hex(8)
    message = Written(0.0, 0.0, f"{own}-0", "content", own, 0, committed=True)
    return Transaction(own, TransactionKind.PLAIN, [message], committed=None)


async def connect(url: str) -> "asyncpg.Connection[asyncpg.Record]":
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(url.partition("?")[0])
    return connection


def outcomes(recorder: Recorder) -> dict[str, bool]:
    """Return whether each transaction was committed."""
    return {fact.transaction: fact.committed for fact in recorder.facts if isinstance(fact, Written)}


async def test_a_row_decides_about_an_unknown_outcome(url: str) -> None:
    recorder, kept, lost = Recorder(), unknown(), unknown()
    transactions = Transactions(url, recorder=recorder)
    await transactions.create_table()
    connection = await connect(url)
    await connection.execute(WRITE, kept.id)
    transactions.take(kept)
    transactions.take(lost)
    assert {} == outcomes(recorder)

    await transactions.settle()

    assert {kept.id: True, lost.id: False} == outcomes(recorder)
    assert (2, 1) == (recorder.counts["transactions"], recorder.counts["committed"])
    # It is final: a COMMIT that is still on its way finds the row.
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute(WRITE, lost.id)
    await connection.close()


async def test_a_transaction_that_is_still_open_is_waited_for(url: str) -> None:
    recorder, late = Recorder(), unknown()
    transactions = Transactions(url, recorder=recorder)
    await transactions.create_table()
    transactions.take(late)
    connection, observer = await connect(url), await connect(url)
    await connection.execute("BEGIN")
    await connection.execute(WRITE, late.id)

    settling = asyncio.create_task(transactions.settle())
    while not await observer.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        await asyncio.sleep(0.01)
    await connection.execute("COMMIT")
    await settling

    assert {late.id: True} == outcomes(recorder)
    await connection.close()
    await observer.close()


async def test_a_prepared_transaction_is_finished(url: str) -> None:
    recorder, prepared = Recorder(), unknown()
    transactions = Transactions(url, recorder=recorder)
    await transactions.create_table()
    transactions.take(prepared)
    connection = await connect(url)
    await connection.execute("BEGIN")
    await connection.execute(WRITE, prepared.id)
    await connection.execute(f"PREPARE TRANSACTION '{prepared.id}'")

    await transactions.settle()

    assert {prepared.id: True} == outcomes(recorder)
    assert 0 == await connection.fetchval("SELECT count(*) FROM pg_prepared_xacts")
    await connection.close()


async def test_a_savepoint_that_was_rolled_back_is_no_part_of_a_commit(url: str) -> None:
    recorder, transaction = Recorder(), unknown()
    inner = Written(0.0, 0.0, "inner", "content", transaction.id, 1, committed=False)
    transaction.messages.append(inner)
    transaction.committed = True

    Transactions(url, recorder=recorder).take(transaction)

    assert [True, False] == [fact.committed for fact in recorder.facts if isinstance(fact, Written)]


async def test_a_writer_records_as_committed_what_the_database_has(url: str) -> None:
    recorder, schema = Recorder(), url.partition("name=")[2]
    transactions = Transactions(url, recorder=recorder)
    await transactions.create_table()
    connection = await connect(url)
    await create_schema(connection, schema, "log")
    writer = DatabaseWriter(
        secrets.token_hex(8), transactions, topics=["news"], rate=1e4, chance=random.Random(7), recorder=recorder
    )

    writing = asyncio.create_task(writer.run())
    while recorder.counts["transactions"] < 15:
        await asyncio.sleep(0.01)
    writer.stop()
    await writing
    await transactions.settle()

    written = [fact for fact in recorder.facts if isinstance(fact, Written)]
    stored = [row["draft"] for row in await connection.fetch(f'SELECT draft FROM "{schema}".outbox')]
    bodies = [json.loads(b"".join(draft.split(b"\n")[1:])) for draft in stored]
    committed = sorted(fact.message_id for fact in written if fact.committed)
    assert committed == sorted(body["data"]["id"] for body in bodies)
    assert {True, False} == {fact.committed for fact in written}
    assert {(), ("news",)} == {tuple(body.get("topics", ())) for body in bodies}
    await connection.close()
