"""The portable event stream."""

from unmissed.core.event_stream import last_event
from unmissed.delivery.chunks import Chunk
from unmissed.delivery.socket import MAX_BYTES_DISCARDED
from unmissed.transports.asgi import AsgiSocket


class AsgiEventStream(AsgiSocket):
    """The body of an HTTP response over ASGI, whose head was sent."""

    async def _read(self) -> None:
        discarded = 0
        while discarded <= MAX_BYTES_DISCARDED:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                return
            discarded += len(event.get("body", b""))

    async def _send_chunk(self, chunk: Chunk) -> None:
        await self._send({"type": "http.response.body", "body": chunk.events, "more_body": True})
        self.write_progress += 1

    async def _send_close(self, code: int, reason: str) -> None:
        await self._send({"type": "http.response.body", "body": last_event(code, reason), "more_body": False})
        # Not every server reports the end of a response as a disconnect.
        self.abort()
