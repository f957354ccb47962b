"""The client in a page of a browser, as tests use it."""

import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from playwright.sync_api import Page

SCRIPT = """
globalThis.begin = async (token, { url, stored, snapshots, ...options }) => {
  const { connect } = await import("/websocket/client.js");
  const seen = { messages: [], events: [], statuses: [], pauses: [], codes: [], errors: [], snapshots: 0, tokens: 0 };
  const provider = async () => {
    const next = Array.isArray(token) ? token[Math.min(seen.tokens, token.length - 1)] : token;
    seen.tokens++;
    if (next === null) throw new Error("the login is away");
    return next;
  };
  addEventListener("error", (event) => seen.errors.push(event.message));
  const stream = connect(url ?? location.origin, {
    token: token === null ? undefined : provider,
    storage: stored ? sessionStorage : undefined,
    snapshot: snapshots && (async () => (seen.snapshots++, snapshots.number)),
    ...options,
  });
  stream.on("*", ({ sequence_number, recovered, data }) => seen.messages.push([sequence_number, recovered, data]));
  for (const type of ["gap", "reset", "unauthorized", "refused"]) {
    stream.addEventListener(type, ({ detail }) => seen.events.push([type, detail]));
  }
  stream.addEventListener("status", ({ detail }) => {
    seen.statuses.push(detail.status);
    if (detail.status !== "waiting") return;
    seen.pauses.push(detail.milliseconds);
    seen.codes.push(detail.code);
  });
  Object.assign(globalThis, { stream, seen });
};
"""


class StreamPage(ABC):
    """A page with one stream, in any browser. Whatever waits raises an error when it takes too long."""

    @abstractmethod
    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression. A promise is awaited."""

    @abstractmethod
    def wait_until(self, condition: str) -> Self:
        """Wait until a JavaScript expression is true."""

    def connect(self, token: str | list[str | None] | None, **options: Any) -> Self:
        """Open the stream. A list of tokens is what the provider returns, one after another; it fails for None.

        Without a token, cookies authenticate.
        """
        self.evaluate(f"begin({json.dumps(token)}, {json.dumps(options)})")
        return self

    def live(self) -> Self:
        """Wait until the stream is up to date."""
        return self.wait_until("stream.status === 'live'")

    def received(self, count: int) -> Self:
        """Wait until the stream has received so many messages."""
        return self.wait_until(f"seen.messages.length >= {count}")

    @property
    def numbers(self) -> list[int]:
        """The numbers of the messages in the order in which they came."""
        numbers: list[int] = self.evaluate("seen.messages.map(([number]) => number)")
        return numbers

    @property
    def flags(self) -> list[tuple[int, bool]]:
        """The numbers, and whether each message is a recovered one."""
        return [
            (number, recovered) for number, recovered in self.evaluate("seen.messages.map((each) => each.slice(0, 2))")
        ]

    @property
    def events(self) -> list[list[Any]]:
        """The events of the stream, each with its detail."""
        events: list[list[Any]] = self.evaluate("seen.events")
        return events


class ClientPage(StreamPage):
    """A page of playwright."""

    def __init__(self, page: "Page", url: str, *, path: str = "/livez") -> None:
        self.page = page
        page.add_init_script(SCRIPT)
        page.goto(f"{url}{path}")

    def evaluate(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def wait_until(self, condition: str) -> Self:
        # Not on animation frames, which hidden pages do not have.
        self.page.wait_for_function(condition, polling=20)
        return self
