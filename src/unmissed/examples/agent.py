"""An agent whose answer streams into the page, and survives a refresh: ``uvicorn unmissed.examples.agent:app``."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, PlainTextResponse

from unmissed import ConnectionManager, Settings, create_router, issue_token

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Agent</title><h1>Agent</h1>
<form><input name="question" aria-label="Question" required> <button>Ask</button></form><p aria-live="polite"></p>
<script type="module">
import { connect } from "./websocket/client.js";
const answer = document.querySelector("p"), text = async (path, options) => (await fetch(path, options)).text();
function watch(run) {
  const stream = connect(location.href.replace(/[?#].*|$/, ""), {
    token: () => text(`runs/${run}/token`, { method: "POST" }),
    async snapshot() {  // On the first load, on a refresh, and if messages were lost.
      const state = JSON.parse(await text(`runs/${run}`));
      answer.textContent = state.text;
      return state.sequence_number;
    },
  });
  stream.on("written", ({ data }) => answer.append(data));
}
document.querySelector("form").onsubmit = async (event) => {
  event.preventDefault();
  location.hash = await text("runs", { method: "POST", body: event.target.question.value });
  location.reload();
};
if (location.hash) watch(location.hash.slice(1));</script></html>"""


@dataclass
class Run:
    """What the agent has written so far, and the number after which messages have the rest."""

    sequence_number: int
    text: str = ""


manager = ConnectionManager(Settings.load(jwt_secret=secrets.token_urlsafe(32)))
app = FastAPI(lifespan=manager.lifespan)
app.include_router(create_router(manager))
runs: dict[str, Run] = {}
tasks: set[asyncio.Task[None]] = set()


async def think(question: str) -> AsyncIterator[str]:
    """Yield an answer part by part, as the client of a language model does."""
    for word in f"You asked: {question} Refresh this page, or cut its network, while these words arrive.".split():
        await asyncio.sleep(0.2)
        yield f"{word} "


async def write(topic: str, run: Run, question: str) -> None:
    """Publish each part of an answer, and store the text for pages that load later."""
    async for part in think(question):
        message = await manager.emit("written", part, topics=[topic])
        run.text, run.sequence_number = run.text + part, message.sequence_number


@app.post("/runs", response_class=PlainTextResponse)
async def start(request: Request) -> str:
    """Start a run that goes on without its page, and return its id, which cannot be guessed."""
    run_id = secrets.token_urlsafe(16)
    runs[run_id] = Run(manager.window.latest)
    task = asyncio.create_task(write(f"runs.{run_id}", runs[run_id], (await request.body()).decode()))
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return run_id


def found(run_id: str) -> Run:
    """Return a run. Raises HTTPException if none has this id."""
    if run_id not in runs:
        raise HTTPException(404, "there is no such run")
    return runs[run_id]


@app.get("/runs/{run_id}")
async def state(run: Annotated[Run, Depends(found)]) -> Run:
    """Return the answer so far, and the number after which the page continues."""
    return run


@app.post("/runs/{run_id}/token", response_class=PlainTextResponse, dependencies=[Depends(found)])
async def token(run_id: str) -> str:
    """Issue a token to follow a run: its id is the secret."""
    return issue_token(manager.settings.key(), user_id=run_id, expires_in=3600, topics=[f"runs.{run_id}"])


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    """Show the page."""
    return PAGE
