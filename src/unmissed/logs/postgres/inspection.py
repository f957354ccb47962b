"""Whether a database can hold a log or an outbox: facts that are read without a change, and what they mean."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from unmissed.core.errors import ConfigurationError
from unmissed.logs.postgres.database import Database
from unmissed.logs.postgres.database_address import DatabaseAddress
from unmissed.logs.postgres.schema import FORMAT, SchemaKind, is_usable

_FACTS = """
SELECT current_setting('server_version') AS version, current_setting('server_encoding') AS encoding,
    pg_is_in_recovery() AS is_standby, has_database_privilege(current_database(), 'CREATE') AS may_create,
    CASE WHEN n.oid IS NOT NULL THEN coalesce(obj_description(n.oid, 'pg_namespace'), '') END AS comment,
    coalesce(pg_has_role(n.nspowner, 'USAGE'), false) AS owns_schema,
    current_setting('default_transaction_isolation') AS isolation,
    current_setting('fsync')::boolean AS has_fsync, current_setting('synchronous_commit') AS synchronous_commit,
    pg_backend_pid() <> $2 AS is_pooled
FROM (SELECT) AS one LEFT JOIN pg_namespace AS n ON nspname = $1
"""


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What a server says about itself, about our role, and about the schema."""

    version: str
    encoding: str
    is_standby: bool
    may_create: bool
    """Whether our role may create a schema."""
    comment: str | None
    """What the schema says about itself; None if there is no schema."""
    owns_schema: bool
    """Whether our role owns the schema, or is a member of the role that does."""
    isolation: str
    has_fsync: bool
    synchronous_commit: str
    is_pooled: bool
    """Whether something between us and the server, such as PgBouncer, chooses the connection to it."""

    def check(self, address: DatabaseAddress, kind: SchemaKind) -> None:
        """Raise ConfigurationError, with what to do, unless a node can use this database."""
        if problem := next(self._problems(address, kind), None):
            raise ConfigurationError(f"{address.setting}: {problem}")

    def _problems(self, address: DatabaseAddress, kind: SchemaKind) -> Iterator[str]:
        if self.is_standby:
            yield "this server is a standby, which only reads: name the primary, or all servers as host1,host2"
        if self.encoding != "UTF8":
            yield f"the database has the encoding {self.encoding}: create one with ENCODING 'UTF8'"
        if self.is_pooled and address.notify:
            yield "the connection leads through a pooler, such as PgBouncer: add ?notify=false, or name the server"
        # Connections of its own are set up by each node.
        if self.isolation != "read committed" and not address.notify:
            fix = "ALTER ROLE ... SET default_transaction_isolation = 'read committed'"
            yield f"transactions are {self.isolation}: {fix}"
        name = address.schema
        if not is_usable(self.comment, name, kind):
            if not self.may_create:
                yield "the role may not create the schema: GRANT it CREATE ON DATABASE, or see 'unmissed schema'"
        elif not self.owns_schema:
            yield f"the schema {name} belongs to another role: use that one, or a member of it"

    def notes(self) -> Iterator[str]:
        """Yield what an operator should know although it works."""
        if not self.has_fsync:
            yield "fsync = off: a loss of power may destroy the database"
        if self.synchronous_commit == "off":
            yield "synchronous_commit = off: a crash may undo what your transactions have committed a moment ago"

    def describe(self, address: DatabaseAddress) -> str:
        """Return one line about what a node finds."""
        schema = "is created by the first node" if self.comment is None else f"has the format {FORMAT}"
        return f"PostgreSQL {self.version} at {address.label}: the schema {address.schema} {schema}"


async def inspect_database(address: DatabaseAddress) -> DatabaseFacts:
    """Return the facts, from a transaction that only reads.

    Raises LogUnavailable, and ConfigurationError for a login that is refused or a server that is too old.
    """
    # Whether there is a pooler is not known: without notifications, nothing is done that one cannot pass on.
    database = Database(replace(address, notify=False))
    database.open()
    try:
        async with database.connection("read") as connection, connection.transaction(readonly=True):
            # A pooler has a process id of its own invention.
            return DatabaseFacts(**await connection.fetchrow(_FACTS, address.schema, connection.get_server_pid()))
    finally:
        await database.close()
