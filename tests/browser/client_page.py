"""The client in a page of a browser, as tests use it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

_SCRIPT = """
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


class ClientPage:
    """A page with one stream. Whatever waits raises playwright's TimeoutError when it takes too long."""

    def __init__(self, page: "Page", url: str, *, path: str = "/livez") -> None:
        self.page = page
        page.add_init_script(_SCRIPT)
        page.goto(f"{url}{path}")

    def connect(self, token: str | list[str | None] | None, **options: Any) -> "ClientPage":
        """Open the stream. A list of tokens is what the provider returns, one after another; it fails for None.

        Without a token, cookies authenticate.
        """
        self.page.evaluate("([token, options]) => begin(token, options)", [token, options])
        return self

    def live(self) -> "ClientPage":
        """Wait until the stream is up to date."""
        return self.wait_until("stream.status === 'live'")

    def wait_until(self, condition: str) -> "ClientPage":
        """Wait until a JavaScript expression is true."""
        # Not on animation frames, which hidden pages do not have.
        self.page.wait_for_function(condition, polling=20)
        return self

    def received(self, count: int) -> "ClientPage":
        """Wait until the stream has received so many messages."""
        return self.wait_until(f"seen.messages.length >= {count}")

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        return self.page.evaluate(expression)

    @property
    def numbers(self) -> list[int]:
        """The numbers of the messages in the order in which they came."""
        return [number for number, _, _ in self.evaluate("seen.messages")]

    @property
    def events(self) -> list[list[Any]]:
        """The events of the stream, each with its detail."""
        events: list[list[Any]] = self.evaluate("seen.events")
        return events
