"""A chat room that loses nothing: ``uvicorn unmissed.examples.chat:app``, then open it in two windows."""

import secrets

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from unmissed import ConnectionManager, Identity, Settings, create_router, issue_token

ROOM = "rooms.lobby"
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Chat</title><h1>Chat</h1>
<form><input name="text" aria-label="Message" autocomplete="off"> <button>Send</button></form><p></p>
<script type="module">
const name = prompt("Your name?") || "guest", list = document.querySelector("p"), unanswered = new Map();
let since = 0, socket;
async function open() {
  try {
    const { token } = await (await fetch(`token/${encodeURIComponent(name)}`, { method: "POST" })).json();
    socket = new WebSocket(`${location.origin.replace("http", "ws")}/ws?since=${since}`, ["unmissed.bearer", token]);
  } catch { return setTimeout(open, 1000 * Math.random()); }
  socket.onclose = () => setTimeout(open, 1000 * Math.random());
  socket.onmessage = ({ data }) => {
    const frame = JSON.parse(data);
    since = frame.type === "connected" ? frame.sequence_number : Math.max(since, frame.sequence_number ?? 0);
    if (frame.type === "connected") unanswered.forEach((request) => socket.send(request));
    unanswered.delete(frame.id);  // A repeated request is done once, so it is safe to repeat all without an answer.
    if (frame.type === "said") list.append(`${frame.data.by}: ${frame.data.text}`, document.createElement("br"));
  };
}
document.querySelector("form").onsubmit = (event) => {
  event.preventDefault();
  const id = crypto.randomUUID(), data = event.target.text.value;
  unanswered.set(id, JSON.stringify({ type: "command", id, name: "say", data }));
  if (socket?.readyState === WebSocket.OPEN) socket.send(unanswered.get(id));
  event.target.reset();
};
open();</script></html>"""

manager = ConnectionManager(Settings.load(jwt_secret=secrets.token_urlsafe(32)))
app = FastAPI(lifespan=manager.lifespan)
app.include_router(create_router(manager))


@manager.command("say")
async def say(text: str, identity: Identity) -> None:
    """Publish what somebody says to everybody in the room, with the name from the token."""
    await manager.emit("said", {"by": identity.user_id, "text": text}, topics=[ROOM])


@app.post("/token/{name}")
def token(name: str) -> dict[str, str]:
    """Let anybody in, under any name."""
    return {"token": issue_token(manager.settings.key(), user_id=name, expires_in=3600, topics=[ROOM])}


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    """Show the room."""
    return PAGE
