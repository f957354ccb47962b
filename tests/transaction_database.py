"""A database in which tests publish, with the schema of a log whose messages no node moves."""

from dataclasses import dataclass
from typing import Any

from engines import PostgresServer
from unmissed.core.messages import Draft, Message
from unmissed.logs.codec import decode_draft
from unmissed.manager import ConnectionManager


@dataclass(frozen=True, slots=True)
class TransactionDatabase:
    """A schema of its own, in the server that all tests share, and a connection that sees what is committed."""

    server: PostgresServer
    schema: str
    manager: ConnectionManager
    """One that does not run."""
    connection: Any

    @property
    def url(self) -> str:
        """The URL of the database, without options."""
        return self.server.url

    async def drafts(self) -> list[Draft]:
        """Return what committed transactions have published, in order."""
        rows = await self.connection.fetch(f'SELECT draft FROM "{self.schema}".outbox ORDER BY id')
        return [decode_draft(row["draft"]) for row in rows]

    async def messages(self) -> list[Message]:
        """Return the same as messages, with some number."""
        return [draft.stamp(1, timestamp="", now=0.0) for draft in await self.drafts()]

    async def types(self) -> list[str]:
        """Return the types of these messages."""
        return [message.type for message in await self.messages()]
