"""Clients of event streams: one over a good HTTP client, and the events in the raw bytes of a response."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import httpx

from unmissed.core.rest import EVENTS_PATH
from unmissed.testing import LiveServer


@dataclass(frozen=True)
class Event:
    """An event: its id, if it has one, and the frame in its data."""

    id: str | None
    frame: dict[str, Any]

    @property
    def type(self) -> str:
        return str(self.frame["type"])


def parsed(lines: Iterator[str]) -> Iterator[Event]:
    """Yield the events in these lines, apart from comments."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            assert name not in fields
            fields[name] = value
        elif fields:
            assert set(fields) <= {"id", "data"}
            yield Event(fields.get("id"), json.loads(fields["data"]))
            fields = {}


class EventClient:
    """A client that waits for one event at a time: ``with EventClient(server) as client:``."""

    def __init__(
        self, server: LiveServer, query: str = "", *, user_id: str = "alice", headers: dict[str, str] | None = None
    ) -> None:
        self._http = httpx.Client(timeout=20)
        given = server.headers(user_id) if headers is None else headers
        self._stream = self._http.stream("GET", f"{server.url}{EVENTS_PATH}{query}", headers=given)

    def __enter__(self) -> Self:
        self.response = self._stream.__enter__()
        self._events = parsed(self.response.iter_lines())
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.__exit__(None, None, None)
        self._http.close()

    def events(self, count: int) -> list[Event]:
        """Return the next events that are not heartbeats: the first heartbeat comes at a random moment."""
        return [next(event for event in self._events if event.type != "heartbeat") for _ in range(count)]

    def with_heartbeats(self, count: int) -> list[Event]:
        """Return the next events."""
        return [next(self._events) for _ in range(count)]

    def rest(self) -> list[Event]:
        """Return everything until the end of the stream that is not a heartbeat."""
        return [event for event in self._events if event.type != "heartbeat"]

    def problem(self) -> tuple[int, str]:
        """Return status and detail of a refusal."""
        self.response.read()
        assert "application/problem+json" == self.response.headers["content-type"]
        return self.response.status_code, self.response.json()["detail"]
