"""A chat room that loses no message: ``uvicorn unmissed.examples.chat:app``, then open it in two windows."""

import secrets

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, PlainTextResponse

from unmissed import ConnectionManager, Identity, Settings, create_router, issue_token

ROOM = "rooms.lobby"
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Chat</title><h1>Chat</h1>
<form><input name="text" aria-label="Message" autocomplete="off"> <button>Send</button></form><p></p>
<script type="module">
import { connect } from "./websocket/client.js";
const name = prompt("Your name?") || "guest", list = document.querySelector("p");
const stream = connect(location.href.replace(/[?#].*|$/, ""), {
  token: async () => (await fetch(`token/${encodeURIComponent(name)}`, { method: "POST" })).text(),
  since: 0,
});
stream.on("said", ({ data }) => list.append(`${data.by}: ${data.text}`, document.createElement("br")));
document.querySelector("form").onsubmit = (event) => {
  event.preventDefault();
  stream.command("say", event.target.text.value);  // Executed once, however often the network fails.
  event.target.reset();
};</script></html>"""

manager = ConnectionManager(Settings.load(jwt_secret=secrets.token_urlsafe(32)))
app = FastAPI(lifespan=manager.lifespan)
app.include_router(create_router(manager))


@manager.command("say")
async def say(text: str, identity: Identity) -> None:
    """Publish what a client says to the room, with the name from its token."""
    await manager.emit("said", {"by": identity.user_id, "text": text}, topics=[ROOM])


@app.post("/token/{name}", response_class=PlainTextResponse)
def token(name: str) -> str:
    """Issue a token for any name, without a password."""
    return issue_token(manager.settings.key(), user_id=name, expires_in=3600, topics=[ROOM])


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    """Show the room."""
    return PAGE
