"""The schema of a log or of an outbox in PostgreSQL: its SQL, and its creation at the first use."""

from collections.abc import Sequence
from importlib import resources
from typing import Any, Literal

from unmissed.core.errors import ConfigurationError
from unmissed.core.server_frames import RESERVED_TYPES

FORMAT = 1
"""The version of the tables and functions. It grows with each change of them."""

SchemaKind = Literal["log", "outbox"]

_FILES: dict[SchemaKind, Sequence[str]] = {
    "log": ("outbox", "lease", "tables", "life", "numbering", "nodes", "upkeep", "rights"),
    "outbox": ("outbox", "lease", "relay", "rights"),
}
_ARTICLES: dict[SchemaKind, str] = {"log": "a log", "outbox": "an outbox"}
_LOCK = 8_087_521_465
"""The key of the advisory lock under which schemas are created: one at a time, in each database."""


def quoted(name: str) -> str:
    """Return an identifier in quotes."""
    return '"{}"'.format(name.replace('"', '""'))


def schema_sql(name: str, kind: SchemaKind) -> str:
    """Return the SQL that creates a schema: all of it, for one transaction."""
    head = f"CREATE SCHEMA {{schema}};\nCOMMENT ON SCHEMA {{schema}} IS 'unmissed {kind} format {FORMAT}';\n"
    folder = resources.files(__package__).joinpath("sql")
    files = (folder.joinpath(f"{file}.sql").read_text() for file in _FILES[kind])
    reserved = ", ".join(f"'{each}'" for each in sorted(RESERVED_TYPES))
    return "\n".join([head, *files]).replace("{schema}", quoted(name)).replace("{reserved}", reserved)


async def create_schema(connection: Any, name: str, kind: SchemaKind) -> None:
    """Create the schema unless it exists, over a connection of asyncpg.

    Raises ConfigurationError for a schema of another version, of another kind, or of another program.
    """
    if is_usable(await _comment(connection, name), name, kind):
        return
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
        # Another node may have created it since.
        if not is_usable(await _comment(connection, name), name, kind):
            await connection.execute(schema_sql(name, kind))


async def _comment(connection: Any, name: str) -> str | None:
    """Return the comment of a schema, "" if it has none, and None if there is no such schema."""
    query = "SELECT coalesce(obj_description(oid, 'pg_namespace'), '') FROM pg_namespace WHERE nspname = $1"
    comment: str | None = await connection.fetchval(query, name)
    return comment


def is_usable(comment: str | None, name: str, kind: SchemaKind) -> bool:
    """Return whether the schema with this comment can be used. Without a comment, there is no such schema.

    Raises ConfigurationError as ``create_schema`` does.
    """
    if comment is None:
        return False
    match comment.split():
        case ["unmissed", ("log" | "outbox") as found, "format", version] if version.isdecimal():
            if found != kind:
                other = f"{_ARTICLES[found]}, not of {_ARTICLES[kind]}"
                raise ConfigurationError(f"the schema {name!r} is of {other}: choose another with ?name= in the URL")
            if int(version) != FORMAT:
                raise ConfigurationError(_other_version(name, int(version)))
            return True
        case _:
            raise ConfigurationError(
                f"the schema {name!r} belongs to another program: choose another with ?name= in the URL"
            )


def _other_version(name: str, version: int) -> str:
    if version > FORMAT:
        return f"the schema {name!r} is of a newer version of unmissed (format {version}): update this node"
    return (
        f"the schema {name!r} is of an older version of unmissed (format {version}): stop all nodes, and run "
        f'DROP SCHEMA "{name}" CASCADE, which loses what is retained'
    )
