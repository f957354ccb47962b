"""The log browser of operators."""

from typing import Any

import httpx
import pytest

from support import nth, nths
from unit.api.conftest import headers
from unmissed import ConnectionManager, Settings, create_app
from unmissed.testing import SECRET, ManualClock

PATH = "/websocket/log"


@pytest.fixture
def admin(client: httpx.AsyncClient) -> httpx.AsyncClient:
    client.headers.update(headers("ops", scope="admin"))
    return client


def numbers(page: dict[str, Any]) -> list[int]:
    return [each["message"]["sequence_number"] for each in page["messages"]]


async def test_messages_are_shown_whoever_they_are_for(admin: httpx.AsyncClient, manager: ConnectionManager) -> None:
    message = await manager.publish({"type": "chat", "data": {"text": "Gr\u00f6\u00dfe"}, "trace": 7})
    await manager.emit("order", users=["bob", "alice"], topics=["orders.42", "news"])

    page = (await admin.get(PATH)).json()

    addressed, everyone = page["messages"]
    assert {
        "message": message.as_dict(),
        "everyone": True,
        "topics": [],
        "users": [],
        "bytes": len(message.payload),
    } == everyone
    assert (False, ["news", "orders.42"], ["alice", "bob"]) == tuple(
        addressed[name] for name in ("everyone", "topics", "users")
    )
    assert "users" not in addressed["message"]
    assert (2, None, manager.window.epoch, nth(1), nth(2)) == tuple(
        page[name] for name in ("examined", "next", "epoch", "oldest", "latest")
    )


async def test_pages_lead_from_the_newest_to_the_oldest(admin: httpx.AsyncClient, manager: ConnectionManager) -> None:
    for _ in range(505):
        await manager.emit("a")
    seen, before = list[int](), None

    while not seen or before is not None:
        page = (await admin.get(PATH, params={"limit": 99} | ({"before": before} if before else {}))).json()
        seen += numbers(page)
        before = page["next"]

    assert [nth(n) for n in range(505, 5, -1)] == seen


async def test_a_page_without_a_match_leads_on(clock: ManualClock) -> None:
    app = create_app(Settings.load(jwt_secret=SECRET, max_messages=10_000), clock=clock)
    sent = headers("ops", scope="admin")
    transport = httpx.ASGITransport(app)
    async with (
        app.state.manager as manager,
        httpx.AsyncClient(transport=transport, base_url="http://test", headers=sent) as admin,
    ):
        await manager.emit("rare")
        for _ in range(5):
            await manager.publish_batch([{"type": "a"}] * 500)

        first = (await admin.get(PATH, params={"type": "rare"})).json()
        second = (await admin.get(PATH, params={"type": "rare", "before": first["next"]})).json()

    assert ([], 2_000, nth(502)) == (numbers(first), first["examined"], first["next"])
    assert (nths(1), 501, None) == (numbers(second), second["examined"], second["next"])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"type": "order"}, (3, 2)),
        ({"topic": "orders.42"}, (2,)),
        ({"user": "bob"}, (3,)),
        ({"search": "HELLO"}, (3, 1)),
        ({"search": "hello", "type": "order"}, (3,)),
        ({"before": nth(3), "type": "order"}, (2,)),
        ({"limit": 1}, (3,)),
        ({"search": ""}, (3, 2, 1)),
        ({"type": ""}, ()),
        ({"before": 0}, ()),
    ],
)
async def test_messages_are_filtered(
    admin: httpx.AsyncClient, manager: ConnectionManager, query: dict[str, Any], expected: tuple[int, ...]
) -> None:
    await manager.emit("chat", "Hello")
    await manager.emit("order", 42, topics=["orders.42"])
    await manager.emit("order", "hello", users=["bob"])

    assert nths(*expected) == numbers((await admin.get(PATH, params=query)).json())


@pytest.mark.parametrize(
    "query",
    [
        "before=-1",
        "before=01",
        "before=abc",
        "before=1&before=2",
        "before=",
        "limit=0",
        "limit=1001",
        "topic=a b",
        "type=a&type=b",
    ],
)
async def test_a_bad_query_is_refused(admin: httpx.AsyncClient, query: str) -> None:
    response = await admin.get(f"{PATH}?{query}")

    assert 422 == response.status_code
    assert query.partition("=")[0] in response.json()["detail"]


@pytest.mark.parametrize("scope", ["", "messages:publish"])
async def test_only_operators_see_the_messages_of_others(
    client: httpx.AsyncClient, manager: ConnectionManager, scope: str
) -> None:
    await manager.emit("secret", users=["bob"])

    forbidden = await client.get(PATH, headers=headers(scope=scope))
    del client.headers["Authorization"]
    unknown = await client.get(PATH)

    assert (403, 401) == (forbidden.status_code, unknown.status_code)
    assert "browsing the log needs a token with the scope admin" == forbidden.json()["detail"]
    assert "secret" not in forbidden.text + unknown.text


async def test_the_answer_is_not_stored(admin: httpx.AsyncClient) -> None:
    response = await admin.get(PATH)

    assert ("application/json", "no-store") == (response.headers["content-type"], response.headers["cache-control"])
