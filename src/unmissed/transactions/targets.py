"""What applications publish in: sessions of SQLAlchemy, and connections of SQLAlchemy, asyncpg, psycopg and Django.

None of these libraries is imported here: an application that passes one of their objects has imported it.
"""

import sys
from collections.abc import Callable
from typing import Any

from unmissed.core.errors import InvalidTarget
from unmissed.transactions.statements import Statement

_PUBLISHED = "unmissed.publishes"
"""In the ``info`` of a session: the functions to call after its commit."""

_ASYNC = "an AsyncSession or AsyncConnection of SQLAlchemy, or a connection of asyncpg or psycopg"
_SYNC = "a Session or Connection of SQLAlchemy, or a connection of psycopg or Django"
_POSTGRES = "postgresql"

Wake = Callable[[], None]
"""Is called after the commit, if the library of the target reports it."""


async def execute_in(target: Any, statement: Statement, wake: Wake | None) -> Any:
    """Execute a statement in the transaction of an asynchronous target, and return its only value.

    Raises InvalidTarget, before anything is executed, for what is no such target, and for one without a transaction.
    """
    if _is(target, "sqlalchemy.ext.asyncio", "AsyncSession", "async_scoped_session"):
        return await target.run_sync(_execute_in_session, statement, wake)
    if _is(target, "sqlalchemy.ext.asyncio", "AsyncConnection"):
        return await target.run_sync(_execute_in_connection, statement)
    if _is(target, "asyncpg", "Connection") or _is(target, "asyncpg.pool", "PoolConnectionProxy"):
        if not target.is_in_transaction():
            raise _no_transaction("async with connection.transaction():")
        return await target.fetchval(statement.numbered, *statement.arguments.values())
    if _is(target, "psycopg", "AsyncConnection"):
        _check_psycopg(target, "async with connection.transaction():")
        cursor = await target.execute(statement.formatted, [*statement.arguments.values()])
        return (await cursor.fetchone())[0]
    raise InvalidTarget(_ASYNC, target, other="publish_in_sync" if _sync_executor(target) else None)


def execute_in_sync(target: Any, statement: Statement, wake: Wake | None) -> Any:
    """Do the same for a synchronous target, in any thread."""
    execute = _sync_executor(target)
    if execute is None:
        raise InvalidTarget(_SYNC, target)
    return execute(target, statement, wake)


def _sync_executor(target: Any) -> Callable[[Any, Statement, Wake | None], Any] | None:
    if _is(target, "sqlalchemy.orm", "Session", "scoped_session"):
        return _execute_in_session
    if _is(target, "sqlalchemy", "Connection"):
        return lambda connection, statement, _: _execute_in_connection(connection, statement)
    if _is(target, "psycopg", "Connection"):
        return _execute_in_psycopg
    if _is(target, "django.db.backends.base.base", "BaseDatabaseWrapper") or _is(
        target, "django.utils.connection", "ConnectionProxy"
    ):
        return _execute_in_django
    return None


def _is(target: Any, module: str, *names: str) -> bool:
    """Return whether this is an instance of one of the classes of a module, which nobody else has to import."""
    loaded = sys.modules.get(module)
    classes = tuple(found for name in names if isinstance(found := getattr(loaded, name, None), type))
    return isinstance(target, classes)


def _execute_in_session(session: Any, statement: Statement, wake: Wake | None) -> Any:
    """Flush first: rows are locked before the message is written, so that messages have the order of the changes."""
    if _is(session, "sqlalchemy.orm", "scoped_session"):
        session = session()
    connection = session.connection()
    _check_dialect(connection)
    session.flush()
    value = _execute_in_connection(connection, statement)
    if wake is not None:
        _wake_after_commit(session, wake)
    return value


def _execute_in_connection(connection: Any, statement: Statement) -> Any:
    _check_dialect(connection)
    text = sys.modules["sqlalchemy"].text(statement.named)
    return connection.execute(text, dict(statement.arguments)).scalar()


def _check_dialect(connection: Any) -> None:
    if connection.dialect.name != _POSTGRES:
        raise InvalidTarget(f"a transaction in PostgreSQL, not in {connection.dialect.name}", connection)
    if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
        raise _no_transaction("a connection without isolation_level='AUTOCOMMIT'")


def _wake_after_commit(session: Any, wake: Wake) -> None:
    """Call ``wake`` after each commit until the transaction has ended. There is one listener for each session."""
    if _PUBLISHED not in session.info:
        sys.modules["sqlalchemy"].event.listen(session, "after_commit", _committed)
    session.info.setdefault(_PUBLISHED, set()).add(wake)


def _committed(session: Any) -> None:
    # A savepoint that is released counts as a commit, too.
    for wake in session.info[_PUBLISHED]:
        wake()
    if not session.in_nested_transaction():
        session.info[_PUBLISHED].clear()


def _check_psycopg(connection: Any, fix: str) -> None:
    idle = sys.modules["psycopg"].pq.TransactionStatus.IDLE
    if connection.autocommit and connection.info.transaction_status == idle:
        raise _no_transaction(fix)


def _execute_in_psycopg(connection: Any, statement: Statement, _: Wake | None) -> Any:
    _check_psycopg(connection, "with connection.transaction():")
    return connection.execute(statement.formatted, [*statement.arguments.values()]).fetchone()[0]


def _execute_in_django(connection: Any, statement: Statement, wake: Wake | None) -> Any:
    if connection.vendor != _POSTGRES:
        raise InvalidTarget(f"a transaction in PostgreSQL, not in {connection.vendor}", connection)
    if not connection.in_atomic_block:
        raise _no_transaction("with transaction.atomic():")
    with connection.cursor() as cursor:
        cursor.execute(statement.formatted, [*statement.arguments.values()])
        value = cursor.fetchone()[0]
    if wake is not None:
        connection.on_commit(wake)
    return value


def _no_transaction(fix: str) -> InvalidTarget:
    return InvalidTarget(f"a transaction, so that the message exists if it commits: use it in '{fix}'")
