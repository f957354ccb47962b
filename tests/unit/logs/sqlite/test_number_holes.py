"""Holes in the numbers of a file: joined, and bounded."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from support import nth
from unmissed.logs.sqlite.number_holes import HOLES_SCHEMA, Hole, store_hole, stored_holes


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(HOLES_SCHEMA)
        yield connection


def test_holes_are_kept_in_order(connection: sqlite3.Connection) -> None:
    holes = [Hole(nth(5), nth(9), lost=False), Hole(nth(20), nth(40), lost=True)]
    for hole in holes:
        store_hole(connection, hole)

    assert holes == stored_holes(connection)


@pytest.mark.parametrize("lost", [(True, False), (False, True), (False, False)])
def test_a_hole_that_follows_another_one_joins_it(connection: sqlite3.Connection, lost: tuple[bool, bool]) -> None:
    store_hole(connection, Hole(nth(5), nth(9), lost=lost[0]))
    store_hole(connection, Hole(nth(9), nth(15), lost=lost[1]))

    assert [Hole(nth(5), nth(15), lost=any(lost))] == stored_holes(connection)


def test_of_too_many_holes_the_oldest_count_as_lost(connection: sqlite3.Connection) -> None:
    for number in range(0, 100, 10):
        store_hole(connection, Hole(nth(number), nth(number + 5), lost=False), most=3)

    assert [
        Hole(nth(60), nth(65), lost=True),
        *(Hole(nth(number), nth(number + 5), lost=False) for number in (70, 80, 90)),
    ] == stored_holes(connection)
