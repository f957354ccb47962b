"""The record of who vouches for the end of a stream: beside the stream, for nodes that start without another one."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from unmissed.core.errors import LogUnavailable
from unmissed.logs.jetstream.address import StreamAddress
from unmissed.logs.jetstream.nats_connection import NatsConnection
from unmissed.logs.jetstream.packets import (
    NO_MESSAGE,
    NO_STREAM,
    OTHER_LAST_NUMBER,
    Packet,
    api_request,
    error_code,
    error_text,
    stored_bytes,
)
from unmissed.logs.jetstream.stream import StreamInfo


@dataclass(frozen=True, slots=True)
class Life:
    """What nodes have recorded about a stream. ``revision`` is 0 if there is no record.

    ``run`` names the run of the server, or of the leader of a cluster, that has stored every message since.
    ``closed`` is the latest number, after the last node has closed and until the next one starts, or None.
    """

    revision: int = 0
    epoch: str = ""
    run: str = ""
    numbering: str = ""
    closed: int | None = None

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> "Life":
        """Read an answer to ``STREAM.MSG.GET``."""
        try:
            content = json.loads(stored_bytes(message))
            return cls(**content | {"revision": message["seq"]})
        except (ValueError, TypeError):
            return cls(revision=message["seq"])

    def is_of(self, stream: StreamInfo, run: str) -> bool:
        """Return whether the server has not restarted since the record: it has everything that it acknowledged."""
        return self.epoch == stream.epoch and self.run == run != ""

    def closed_in_order(self, stream: StreamInfo) -> bool:
        """Return whether the last node has closed when the stream ended as it does now."""
        return (self.epoch, self.closed) == (stream.epoch, stream.latest)


class LifeRecord:
    """The stream that holds the record: one message, which is replaced only by those who have read it."""

    def __init__(self, address: StreamAddress) -> None:
        self._address = address
        self._stream = f"{address.name}-life"
        self._subject = f"{address.name}-life.record"

    async def read(self, connection: NatsConnection) -> Life:
        """Return the record. Create the stream for it if it does not exist."""
        request = api_request(f"STREAM.MSG.GET.{self._stream}", {"last_by_subj": self._subject})
        answer = await connection.ask(request)
        if error_code(answer) == NO_STREAM:
            created = await connection.ask(api_request(f"STREAM.CREATE.{self._stream}", self._settings()))
            if error_code(created) is not None:
                raise LogUnavailable(error_text(created))
            answer = await connection.ask(request)
        if error_code(answer) == NO_MESSAGE:
            return Life()
        if error_code(answer) is not None:
            raise LogUnavailable(error_text(answer))
        return Life.of(answer["message"])

    async def replace(self, connection: NatsConnection, found: Life, **changes: Any) -> bool:
        """Write the record that was found, with changes. Return False if it was replaced since."""
        content = asdict(replace(found, **changes))
        del content["revision"]
        headers = {"Nats-Expected-Last-Subject-Sequence": str(found.revision)}
        answer = await connection.ask(Packet(self._subject, json.dumps(content).encode(), headers))
        if error_code(answer) not in (None, OTHER_LAST_NUMBER):
            raise LogUnavailable(error_text(answer))
        return error_code(answer) is None

    def _settings(self) -> dict[str, Any]:
        return {
            "name": self._stream,
            "description": "Who vouches for the messages of unmissed",
            "subjects": [self._subject],
            "num_replicas": self._address.replicas,
            "storage": "file",
            "max_msgs_per_subject": 1,
        }
