"""What is executed in a transaction: SQL accepts what Python accepts, and the same message comes of it."""

import asyncio
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transaction_database import TransactionDatabase
from unmissed.core.errors import InvalidMessage, MessageTooLarge
from unmissed.core.messages import Draft
from unmissed.logs.codec import decode_draft
from unmissed.transactions.statements import Statement, publish_statement

MAX_BYTES = 65_536


def statement(message: Mapping[str, Any], schema: str = "unmissed", **options: Any) -> Statement:
    return publish_statement(schema, message, options, max_bytes=MAX_BYTES)  # type: ignore[arg-type]  # also unknown ones


def test_a_statement_has_the_style_of_each_driver() -> None:
    found = statement({"type": "order", "data": 1}, schema="my-log", topics=["t"])

    assert found.numbered.startswith('SELECT "my-log".publish($1::text, $2::text::jsonb, $3::text[]')
    assert found.formatted.startswith('SELECT "my-log".publish(%s::text, %s::text::jsonb')
    assert found.named.startswith('SELECT "my-log".publish(CAST(:type AS text), CAST(CAST(:data AS text) AS jsonb)')


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"type": ""}, "type must be a non-empty string"),
        ({"type": "gap"}, "reserved"),
        ({"type": "a", "ephemeral": True}, "publish it after the commit"),
        ({"type": "a", "data": "\0"}, "NUL"),
        ({"type": "a\0"}, "NUL"),
        ({"type": "a", "data": {"\0": 1}}, "NUL"),
        ({"type": "a", "users": ["\0"]}, "NUL"),
        ({"type": "a", "data": [10**400]}, "larger than 1.8e308"),
        ({"type": "a", "data": float("inf")}, "cannot be sent as JSON"),
    ],
)
def test_what_sql_would_refuse_is_refused_before(message: dict[str, Any], error: str) -> None:
    with pytest.raises(InvalidMessage, match=error):
        statement(message)


def test_the_size_is_that_in_the_database() -> None:
    """There, JSON has spaces, and numbers have all their digits."""
    with pytest.raises(MessageTooLarge):
        statement({"type": "a", "data": [1e300] * 300})
    with pytest.raises(MessageTooLarge):
        statement({"type": "a", "data": [1] * (MAX_BYTES // 2 - 20)})


@pytest.mark.parametrize("option", ["idempotency_key", "ephemeral", "topic"])
def test_an_unknown_option_is_refused(option: str) -> None:
    with pytest.raises(TypeError, match=f"'{option}' is no option of publishing in a transaction: choose from append"):
        statement({"type": "a"}, **{option: "x"})


NAMES = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=5)
TEXTS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**30), 10**30)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)
MESSAGES = st.fixed_dictionaries(
    {"type": TEXTS.filter(bool).map(lambda name: f"{name}.")},
    optional={
        "data": VALUES,
        "topics": st.lists(NAMES, min_size=1, max_size=4),
        "users": st.lists(TEXTS.filter(bool), min_size=1, max_size=4),
        "source": VALUES,
        "traceparent": TEXTS,
    },
) | st.fixed_dictionaries(
    {"type": NAMES.map(lambda name: f"{name}."), "key": TEXTS.filter(bool), "data": VALUES},
    optional={"topics": st.lists(NAMES, min_size=1, max_size=2), "append": st.just(value=True)},
)


@pytest.mark.live
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(MESSAGES, min_size=1, max_size=20))
def test_sql_makes_the_same_message(messages: list[dict[str, Any]], database_url: tuple[str, str]) -> None:
    url, schema = database_url
    expected = [Draft.of(message, max_bytes=MAX_BYTES) for message in messages]

    found = asyncio.run(published(url, schema, messages))

    assert [draft.audience for draft in expected] == [draft.audience for draft in found]
    assert [draft.audience.first for draft in expected] == [draft.audience.first for draft in found]
    assert [draft.value for draft in expected] == [draft.value for draft in found]
    assert [content(draft) for draft in expected] == [content(draft) for draft in found]


def content(draft: Draft) -> Any:
    """Return what a client receives; numbers as PostgreSQL keeps them, without a sign of zero."""
    return json.loads(draft.head + draft.tail, parse_float=Decimal, parse_int=Decimal)


async def published(url: str, schema: str, messages: list[dict[str, Any]]) -> list[Draft]:
    connection = await asyncpg.connect(url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(f'DELETE FROM "{schema}".outbox')
    for message in messages:
        found = statement(message, schema=schema)
        await connection.execute(found.numbered, *found.arguments.values())
    rows = await connection.fetch(f'SELECT draft FROM "{schema}".outbox ORDER BY id')
    await transaction.rollback()
    await connection.close()
    return [decode_draft(row["draft"]) for row in rows]


@pytest.fixture
def database_url(database: TransactionDatabase) -> tuple[str, str]:
    return database.url, database.schema


REFUSED = {
    "NULL": "type must be",
    "''": "type must be",
    "'gap'": "reserved",
    "'presence'": "reserved",
    "'a', '1e400'": "larger than 1.8e308",
    "'a', '-1e400'": "larger than 1.8e308",
    "'a', (repeat('[', 100) || repeat(']', 100))::jsonb": "deeper than 100 levels",
    "'a', to_jsonb(repeat('x', 70000))": "70022 bytes as jsonb, with its audience, and the limit is 65536",
    "'a', topics => '{}'": "lists of at least one name",
    "'a', users => '{}'": "lists of at least one name",
    "'a', topics => ARRAY['\u00e4']": "ASCII letters",
    "'a', topics => ARRAY['a b']": "ASCII letters",
    "'a', topics => ARRAY[repeat('a', 201)]": "1 to 200",
    "'a', topics => ARRAY[NULL]": "ASCII letters",
    "'a', topics => array_fill('t'::text, ARRAY[1001])": "at most 1000",
    "'a', users => ARRAY['']": "non-empty strings",
    "'a', users => ARRAY['u', NULL]": "non-empty strings",
    "'a', key => ''": "1 to 200 bytes",
    "'a', key => repeat('\u00e4', 101)": "1 to 200 bytes",
    "'a', append => true": "add one",
    "'a', deleted => true": "add one",
    "'a', key => 'k', append => true, deleted => true": "leave one out",
    "'a', fields => '[]'": "fields are an object",
    "'a', fields => '{\"timestamp\": 1}'": "assigned by the server",
    "'a', fields => '{\"users\": [\"u\"]}'": "leave it out of fields",
    "'a', fields => '{\"ephemeral\": true}'": "not ephemeral",
    "'a', fields => '{\"n\": 1e400}'": "larger than 1.8e308",
}


@pytest.mark.live
@pytest.mark.parametrize("arguments", REFUSED)
async def test_sql_refuses_what_no_client_could_be_sent(arguments: str, database: TransactionDatabase) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match=REFUSED[arguments]):
        await database.connection.execute(f'SELECT "{database.schema}".publish({arguments})')

    assert [] == await database.drafts()


@pytest.mark.live
async def test_sql_accepts_what_is_just_allowed(database: TransactionDatabase) -> None:
    publish = f'SELECT "{database.schema}".publish'

    await database.connection.execute(f"{publish}('a', (repeat('[', 99) || repeat(']', 99))::jsonb)")
    await database.connection.execute(f"{publish}('a', to_jsonb(repeat('[', 1000)))")
    await database.connection.execute(f"{publish}('a', '1.7976931348623157e308')")
    await database.connection.execute(f"{publish}('a', to_jsonb(repeat('x', {MAX_BYTES - 22})))")
    await database.connection.execute(f"{publish}('a', fields => '{{}}')")

    assert ["a"] * 5 == await database.types()
