"""A chat room with members, typing and history: ``uvicorn unmissed.examples.chat:app``, then open it in two windows."""

import secrets

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, PlainTextResponse

from unmissed import ConnectionManager, Identity, Settings, create_router, issue_token

ROOM = "rooms.lobby"
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Chat</title><h1>Chat</h1>
<p id="members" aria-label="Members"></p><p id="messages"></p><p id="typing" role="status"></p>
<form><input name="text" aria-label="Message" autocomplete="off"> <button>Send</button></form>
<script type="module">
import { connect } from "./websocket/client.js";
const name = prompt("Your name?") || "guest", room = "rooms.lobby", shown = (id) => document.getElementById(id);
const form = document.querySelector("form"), typists = new Map();
const stream = connect(location.href.replace(/[?#].*|$/, ""), {
  token: async () => (await fetch(`token/${encodeURIComponent(name)}`, { method: "POST" })).text(),
  topics: [room],
  since: 0,
});

stream.on("said", ({ data }) => {
  shown("messages").append(`${data.by}: ${data.text}`, document.createElement("br"));
  stopTyping(data.by);
});

const members = stream.members(room);  // Who is in the room now. The map changes when members come and go.
members.subscribe(() => { shown("members").textContent = `In the room: ${[...members.keys()].sort().join(", ")}`; });

function showTyping() {
  shown("typing").textContent = [...typists.keys()].map((user) => `${user} is typing...`).join(" ");
}
function stopTyping(user) {
  clearTimeout(typists.get(user));
  typists.delete(user);
  showTyping();
}
stream.on("typing", ({ data }) => {
  if (data === name) return;
  clearTimeout(typists.get(data));
  typists.set(data, setTimeout(stopTyping, 3000, data));
  showTyping();
});
let announced = 0;
form.oninput = () => {
  if (Date.now() - announced < 1000) return;
  announced = Date.now();
  stream.command("typing").catch(() => {});
};
form.onsubmit = (event) => {
  event.preventDefault();
  stream.command("say", form.text.value);  // Executed once, however often the network fails.
  form.reset();
};</script></html>"""

manager = ConnectionManager(
    Settings.load(jwt_secret=secrets.token_urlsafe(32), retention="rooms.*=100/7d", presence="rooms.*")
)
app = FastAPI(lifespan=manager.lifespan)
app.include_router(create_router(manager))


@manager.command("say")
async def say(text: str, identity: Identity) -> None:
    """Publish what a client says to the room, with the name from its token."""
    await manager.emit("said", {"by": identity.user_id, "text": text}, topics=[ROOM])


@manager.command("typing")
async def typing(identity: Identity) -> None:
    """Pass on that a client is typing, to those who are connected now: it is not stored."""
    await manager.emit("typing", identity.user_id, topics=[ROOM], ephemeral=True)


@app.post("/token/{name}", response_class=PlainTextResponse)
def token(name: str) -> str:
    """Issue a token for any name, without a password."""
    return issue_token(manager.settings.key(), user_id=name, expires_in=3600, topics=[ROOM])


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    """Show the room."""
    return PAGE
