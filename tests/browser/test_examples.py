"""The pages of the examples in a real browser."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

from browser.chromium import launched
from support import SOCKETS
from unmissed.examples import agent, chat
from unmissed.testing import LiveServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def chromium(chromium_path: str) -> Iterator["Browser"]:
    with launched(chromium_path) as browser:
        yield browser


@pytest.fixture
def page(chromium: "Browser") -> Iterator["Page"]:
    with chromium.new_context() as context:
        context.set_default_timeout(60_000)
        yield context.new_page()


def test_the_answer_of_the_agent_survives_a_refresh(page: "Page", monkeypatch: pytest.MonkeyPatch) -> None:
    """The model writes on while nobody is there, and waits only before its last words."""
    refreshed = asyncio.Event()

    async def think(question: str) -> AsyncIterator[str]:
        yield f"{question} One "
        await refreshed.wait()
        yield "two "
        yield "three."

    monkeypatch.setattr(agent, "think", think)
    with LiveServer(agent.app, manager=agent.manager, **SOCKETS["native"]) as server:
        page.goto(server.url)
        page.get_by_label("Question").fill("Count?")
        page.get_by_role("button", name="Ask").click()
        page.get_by_text("Count? One").wait_for()
        page.goto("about:blank")
        server.call(refreshed.set)
        page.go_back()

        answer = page.get_by_text("Count? One two three.", exact=True)
        answer.wait_for()
        assert 1 == answer.count()


@pytest.mark.long
def test_a_page_of_the_agent_that_loads_an_old_answer_from_a_cache_completes_it(
    page: "Page", monkeypatch: pytest.MonkeyPatch
) -> None:
    async def think(question: str) -> AsyncIterator[str]:
        for part in (f"{question} One ", "two ", "three."):
            yield part

    cached: dict[str, str] = {}

    def from_cache(route: "Route") -> None:
        url = route.request.url
        cached[url] = cached.get(url) or route.fetch().text()
        route.fulfill(body=cached[url], content_type="application/json")

    monkeypatch.setattr(agent, "think", think)
    page.route(re.compile(r"/runs/[^/]+$"), from_cache)
    with LiveServer(agent.app, manager=agent.manager, **SOCKETS["native"]) as server:
        page.goto(server.url)
        page.get_by_label("Question").fill("Count?")
        page.get_by_role("button", name="Ask").click()
        page.get_by_text("Count? One two three.", exact=True).wait_for()
        [(url, state)] = cached.items()
        # Three messages were published, one for each part.
        cached[url] = json.dumps(
            {**json.loads(state), "text": "Count? One ", "sequence_number": server.manager.window.latest - 2}
        )

        page.reload()

        answer = page.get_by_text("Count? One two three.", exact=True)
        answer.wait_for()
        assert 1 == answer.count()


@pytest.mark.long
def test_the_chat_has_members_that_come_and_go_typing_and_history(
    chromium: "Browser", monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = chat.manager.settings.model_copy(update={"presence_grace_seconds": 0.1})
    monkeypatch.setattr(chat.manager, "settings", settings)
    with LiveServer(chat.app, manager=chat.manager, **SOCKETS["native"]) as server, chromium.new_context() as context:
        pages = [context.new_page(), context.new_page()]
        for page, name in zip(pages, ("alice", "bob"), strict=True):
            page.add_init_script(f"globalThis.prompt = () => '{name}'")
            page.goto(server.url)
            page.get_by_label("Message").fill(f"I am {name}")
            page.get_by_role("button", name="Send").click()
        alice, bob = pages

        for page in pages:
            page.get_by_text("In the room: alice, bob").wait_for()
            page.get_by_text("bob: I am bob").wait_for()
            assert "alice: I am alicebob: I am bob" == page.locator("#messages").text_content()
        alice.get_by_label("Message").press_sequentially("he")
        bob.get_by_text("alice is typing...").wait_for()
        assert "" == alice.get_by_role("status").text_content()
        alice.get_by_role("button", name="Send").click()
        bob.get_by_text("alice: he").wait_for()
        assert "" == bob.get_by_role("status").text_content()
        bob.close()
        alice.get_by_text("In the room: alice", exact=True).wait_for()
        assert {"said", "presence"} == {message.type for message in server.published()}
