"""The server for comparison: the connection manager of FastAPI's WebSocket tutorial, with a publish route."""

import json

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect

app = FastAPI()
connections: list[WebSocket] = []


@app.websocket("/ws")
async def connect(websocket: WebSocket) -> None:
    """Keep a client in the list until it disconnects."""
    await websocket.accept()
    connections.append(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        connections.remove(websocket)


@app.post("/websocket/messages")
async def publish(request: Request) -> None:
    """Send a message, or an array of messages, to the clients one after the other."""
    body = await request.json()
    for message in body if isinstance(body, list) else [body]:
        text = json.dumps(message)
        for connection in list(connections):  # noqa: PERF101  # it changes during the iteration
            await connection.send_text(text)
