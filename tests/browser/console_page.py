"""The console in a browser, as tests use it."""

from typing import TYPE_CHECKING, Any, Literal

from unmissed.testing import LiveServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

PATH = "/websocket/console/"
SCOPES = "admin messages:publish"
SCHEMES: list[Literal["dark", "light"]] = ["dark", "light"]
VIEWS = ("recovery", "connections", "topics", "log", "publish", "history", "server")
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 375, "height": 812}


def token_for(server: LiveServer, scope: str = SCOPES) -> str:
    """Return a token for the console, by default with all rights."""
    return server.token("dev", scope=scope, topics=["*"])


class ConsolePage:
    """One open console. Whatever waits raises playwright's TimeoutError when it takes too long."""

    def __init__(self, page: "Page", url: str) -> None:
        self.page = page
        self.url = url
        self.errors: list[str] = []
        """What the browser reported: exceptions, blocked resources, failed requests."""
        self.requested: set[str] = set()
        # It goes on by itself, until a test lets it jump.
        page.clock.install()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: self.requested.add(request.url))

    def open(self, token: str) -> "ConsolePage":
        """Open the address that the server prints, and wait until the page is connected."""
        self.page.goto(f"{self.url}{PATH}#token={token}")
        return self.wait_for("live")

    def press(self, name: str) -> None:
        """Press the button with this name."""
        self.page.get_by_role("button", name=name).click()

    def view(self, name: str) -> "ConsolePage":
        """Show a view, by its link, and wait until its figures are there."""
        self.page.locator(f"nav a[href='#{name}']").click()
        shown = self.page.locator(f"[data-view={name}]:not([hidden])")
        shown.wait_for()
        fresh = shown.locator("[data-freshness=fresh]").or_(shown.and_(self.page.locator("[data-freshness=fresh]")))
        if name != "publish":
            fresh.first.wait_for()
        return self

    def names(self, table: str) -> list[str]:
        """Return what the first cells of a table say."""
        names: list[str] = self.page.locator(f"#{table}-rows th").all_inner_texts()
        return names

    def end_drop(self) -> None:
        """Let the rest of a drop pass at once."""
        self.wait_for("waiting")
        self.page.clock.fast_forward(5_000)
        self.wait_for("live")

    def wait_for(self, status: str) -> "ConsolePage":
        """Wait for a status of the connection."""
        self.page.locator(f"#state[data-status={status}]").wait_for()
        return self

    def wait_until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true. It may use ``count(id)``, the number that an element shows."""
        count = "const count = (id) => Number(document.getElementById(id).textContent.replaceAll(',', ''))"
        self.page.wait_for_function(f"() => {{ {count}; return {condition}; }}")

    def counters(self) -> dict[str, int]:
        """Return what the page counted."""
        names = ("received", "missed", "recovered", "lost", "duplicates")
        return {name: int(self.text(f"#{name}").replace(",", "")) for name in names}

    def text(self, selector: str) -> str:
        """Return the text of an element."""
        return self.page.locator(selector).inner_text()

    def rows(self, selector: str = ".message") -> list[str]:
        """Return the texts of the rows of the list, newest first, each on one line."""
        texts = "rows => rows.map((row) => [...row.children].map((each) => each.textContent).join(' '))"
        rows: list[str] = self.page.locator(f"#messages {selector}").evaluate_all(texts)
        return rows

    def colours(self) -> set[str]:
        """Return the colours that are shown, each with the element and the property that have it."""
        colours: list[str] = self.page.evaluate(
            """[...document.querySelectorAll("body, body *")]
                .filter((each) => each.checkVisibility())
                .flatMap((each) => [
                    `text of ${each.localName}: ${getComputedStyle(each).color}`,
                    `background of ${each.localName}: ${getComputedStyle(each).backgroundColor}`,
                ])
                .filter((colour) => !colour.endsWith("rgba(0, 0, 0, 0)"))"""
        )
        return {*colours}

    def violations(self, axe: str) -> list[tuple[str, str]]:
        """Return the findings of axe-core, whose source is given."""
        self.page.evaluate("(source) => { globalThis.axe || (0, eval)(source); }", axe)
        findings: list[dict[str, Any]] = self.page.evaluate("async () => (await axe.run()).violations")
        return [(each["id"], str([node["target"] for node in each["nodes"]])) for each in findings]
