"""``/websocket/state``: the values by key over REST, page by page, as they were at one number."""

import httpx
import pytest

from support import nth, nths
from unmissed import ConnectionManager
from unmissed.api import models
from unmissed.core.window import PAGE_BYTES

PATH = "/websocket/state"


def numbers(response: httpx.Response) -> list[int]:
    return [each["sequence_number"] for each in response.json()["values"]]


async def test_the_values_that_a_user_sees_are_cut_at_the_latest_number(
    manager: ConnectionManager, client: httpx.AsyncClient
) -> None:
    await manager.publish({"type": "cart", "key": "cart", "data": 1}, users=["alice"])
    await manager.publish({"type": "cart", "key": "cart", "data": 2}, users=["bob"])
    await manager.publish({"type": "chat"})
    await manager.publish({"type": "theme", "key": "theme", "data": "dark"})

    response = await client.get(PATH)

    assert 200 == response.status_code
    assert "no-store" == response.headers["cache-control"]
    assert (nths(1, 4), nth(4), False) == (
        numbers(response),
        response.json()["sequence_number"],
        response.json()["has_more"],
    )
    assert response.json() == models.StateBody.model_validate_json(response.content).model_dump(exclude_none=True)


async def test_what_is_newer_than_the_state_follows_its_number(
    manager: ConnectionManager, client: httpx.AsyncClient
) -> None:
    await manager.publish({"type": "a", "key": "a"})
    state = (await client.get(PATH)).json()
    await manager.publish({"type": "b", "key": "b"})

    page = (await client.get("/websocket/messages", params={"since": state["sequence_number"]})).json()

    assert ("complete", nths(2)) == (page["outcome"], [each["sequence_number"] for each in page["messages"]])


async def test_the_pages_of_a_large_state_join_to_one_that_is_cut_at_the_first_number(
    manager: ConnectionManager, client: httpx.AsyncClient
) -> None:
    count = 40
    for n in range(count):
        await manager.publish({"type": "m", "key": f"key-{n}", "data": "x" * (PAGE_BYTES // 17)})

    response = await client.get(PATH)
    found, pages = numbers(response), 1
    await manager.publish({"type": "m", "key": "later"})
    while response.json()["has_more"]:
        assert len(response.content) <= PAGE_BYTES * 1.1
        query = {"after": found[-1], "through": response.json()["sequence_number"]}
        response = await client.get(PATH, params=query)
        found += numbers(response)
        pages += 1

    assert (nths(*range(1, count + 1)), nth(count), 3) == (found, response.json()["sequence_number"], pages)


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("after=x&through=1", "after must be one whole number"),
        ("topics=a,,b", "topic"),
    ],
)
async def test_a_bad_query_is_a_422_that_names_the_fix(
    manager: ConnectionManager, client: httpx.AsyncClient, query: str, detail: str
) -> None:
    await manager.publish({"type": "a", "key": "a"})

    response = await client.get(f"{PATH}?{query}")

    assert 422 == response.status_code
    assert detail in response.json()["detail"]


async def test_a_page_without_through_is_cut_where_it_begins(
    manager: ConnectionManager, client: httpx.AsyncClient
) -> None:
    for key in "abc":
        await manager.publish({"type": "a", "key": key})

    cut = (await client.get(f"{PATH}?after={nth(2)}")).json()
    first = (await client.get(f"{PATH}?through={nth(2)}")).json()

    assert ([], nth(2)) == (cut["values"], cut["sequence_number"])
    assert (nths(1, 2), nth(2)) == ([each["sequence_number"] for each in first["values"]], first["sequence_number"])


@pytest.mark.parametrize("through", [nth(5), nth(0) - 1])
async def test_the_next_page_of_another_epoch_is_a_conflict(
    manager: ConnectionManager, client: httpx.AsyncClient, through: int
) -> None:
    await manager.publish({"type": "a", "key": "a"})

    response = await client.get(f"{PATH}?after=0&through={through}")

    assert 409 == response.status_code
    assert "ask for the state again" in response.json()["detail"]


async def test_the_state_of_a_topic_needs_the_topic(client: httpx.AsyncClient) -> None:
    assert 403 == (await client.get(f"{PATH}?topics=secret")).status_code


async def test_a_state_needs_a_token(client: httpx.AsyncClient) -> None:
    assert 401 == (await client.get(PATH, headers={"Authorization": ""})).status_code
