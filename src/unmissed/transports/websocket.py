"""The portable WebSocket."""

from unmissed.core.wire import CloseCode
from unmissed.delivery.chunks import Chunk
from unmissed.transports.asgi import AsgiSocket


class AsgiWebSocket(AsgiSocket):
    """A WebSocket over ASGI, already accepted."""

    async def _read(self) -> None:
        while True:
            await self._readable.wait()
            event = await self._receive()
            if event["type"] != "websocket.receive":
                self._closed_with = event.get("code") or CloseCode.LOST, event.get("reason") or ""
                return
            self.receive_progress += 1
            text = event.get("text")
            if self._listener is not None:
                self._listener.socket_received(event["bytes"] if text is None else text)

    async def _send_chunk(self, chunk: Chunk) -> None:
        for text in chunk.texts:
            await self._send({"type": "websocket.send", "text": text})
            self.write_progress += 1

    async def _send_close(self, code: int, reason: str) -> None:
        await self._send({"type": "websocket.close", "code": code, "reason": reason})
