"""The figures for Prometheus."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from support import BOB, FIRST, connect, nth, until
from unmissed import ConnectionManager, Identity, LogUnavailable, Settings, create_app, issue_token
from unmissed.testing import SECRET, ManualClock

_COUNTS = ("messages_published_total", "messages_evicted_total", "log_messages")


def bearer(scope: str = "admin") -> dict[str, str]:
    return {"Authorization": f"Bearer {issue_token(SECRET, user_id='ops', expires_in=60, scope=scope)}"}


async def figures(client: httpx.AsyncClient) -> dict[str, float]:
    """Return each sample by its name and labels, without the node."""
    response = await client.get("/metrics", headers=bearer())
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        " ".join(
            [
                sample.name.removeprefix("unmissed_"),
                *(value for name, value in sorted(sample.labels.items(), reverse=True) if name != "node"),
            ]
        ): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


async def test_messages_and_connections_are_counted(
    client: httpx.AsyncClient, manager: ConnectionManager, clock: ManualClock
) -> None:
    slow, _ = connect(manager, BOB)
    connect(manager)
    slow.pause()
    for _ in range(510):
        await manager.emit("a", users=["alice", "bob"])
    await until(lambda: manager.running.measures.delivered == 510)
    clock.advance(7)

    found = await figures(client)

    assert {
        "messages_published_total": 510,
        "messages_delivered_total": 510,
        "messages_evicted_total": 10,
        "gaps_total": 0,
        "stalls_total": 0,
        "connections": 2,
        "connections_behind": 1,
        "lag_messages": 510,
        "log_messages": 500,
        "log_bytes": manager.window.size,
        "log_reach_seconds": 7,
        "publish_to_write_seconds_count": 510,
        "publish_to_write_seconds_bucket +Inf": 510,
    }.items() <= found.items()
    assert 1 <= found["flush_seconds_count"] <= 510
    slow.resume()
    after = await figures(client)
    assert (1, 1_010) == (after["gaps_total"], after["messages_delivered_total"])


async def test_what_each_rule_keeps_is_measured() -> None:
    app = create_app(Settings.load(jwt_secret=SECRET, retention="rooms.*=10/7d"))
    transport: Any = httpx.ASGITransport(app)
    async with app.state.manager as manager, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for _ in range(12):
            await manager.publish({"type": "chat"}, topics=["rooms.1"])
            await manager.publish({"type": "cart", "key": "cart"}, topics=["rooms.2"])
        await manager.publish({"type": "news"})

        found = await figures(client)

    assert {
        "rule_messages rooms.*": 11,
        "rule_values rooms.*": 1,
        "rule_topics rooms.*": 1,
        "rule_messages (none)": 1,
        "rule_values (none)": 0,
        "messages_evicted_total": 2,
        "messages_replaced_total": 11,
        "log_messages": 12,
    }.items() <= found.items()
    assert found["log_bytes"] == found["rule_bytes rooms.*"] + found["rule_bytes (none)"]


async def test_recoveries_and_ends_are_counted_without_labels_that_clients_choose(
    client: httpx.AsyncClient, manager: ConnectionManager, clock: ManualClock
) -> None:
    connect(manager, since=0)[0].drop(4_999, "alice")
    connect(manager, since=nth(7))[0].drop()
    connect(manager)[0].drop(1_000)
    stalled, _ = connect(manager)
    stalled.pause()
    clock.advance(1_000)
    manager.running.check()
    clock.advance(1_000)
    manager.running.check()
    for since in (0, 0, 7):
        await client.get("/websocket/messages", params={"since": since})
    await client.get("/websocket/messages", headers={"Authorization": "Bearer x.y.z"})
    await client.get("/websocket/messages", params={"since": "abc"})

    found = await figures(client)

    assert {
        "refusals_total 4401": 1,
        "refusals_total 4400": 1,
        "recoveries_total websocket complete": 1,
        "recoveries_total websocket reset": 1,
        "recoveries_total rest complete": 2,
        "recoveries_total rest reset": 1,
        "closes_total other": 1,
        "closes_total 1006": 2,
        "closes_total 1000": 1,
        "stalls_total": 1,
    }.items() <= found.items()
    assert not [name for name in found if "alice" in name or "4999" in name]


async def test_a_recovery_with_lost_messages_is_counted_as_a_gap(
    client: httpx.AsyncClient, manager: ConnectionManager
) -> None:
    for _ in range(501):
        await manager.emit("a")
    connect(manager, since=0)
    await client.get("/websocket/messages", params={"since": 0})

    found = await figures(client)

    assert {"recoveries_total websocket gap": 1, "recoveries_total rest gap": 1}.items() <= found.items()


async def test_messages_are_counted_from_zero_whatever_their_first_number() -> None:
    app = create_app(Settings.load(jwt_secret=SECRET, first_number=FIRST, max_messages=2))
    transport: Any = httpx.ASGITransport(app)
    async with app.state.manager as manager, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for _ in range(3):
            await manager.emit("a")

        found = await figures(client)

    assert {"messages_published_total": 3, "messages_evicted_total": 1, "log_messages": 2}.items() <= found.items()


async def test_only_what_this_process_has_published_and_evicted_is_counted(tmp_path: Path) -> None:
    """Neither what an earlier process has published, nor the repetition of a publish."""
    settings = Settings.load(jwt_secret=SECRET, log_url=f"sqlite:{tmp_path}/log.db", max_messages=3)
    async with ConnectionManager(settings) as manager:
        for _ in range(5):
            await manager.emit("a")
        await manager.publish_batch([{"type": "a"}], idempotency_key="key")
    app = create_app(settings)
    transport: Any = httpx.ASGITransport(app)

    async with app.state.manager as manager, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        before = await figures(client)
        await manager.publish_batch([{"type": "a"}], idempotency_key="key")
        await manager.publish_batch([{"type": "a"}, {"type": "b"}])
        after = await figures(client)

    assert (0, 0, 3) == tuple(before[name] for name in _COUNTS)
    assert (2, 2, 3) == tuple(after[name] for name in _COUNTS)


async def test_the_wait_of_each_message_is_observed(
    client: httpx.AsyncClient, manager: ConnectionManager, clock: ManualClock
) -> None:
    connect(manager)
    await manager.emit("written at once")
    await manager.emit("written after the pause")
    clock.advance(0.3)
    await until(lambda: manager.running.measures.delivered == 2)

    found = await figures(client)

    wait = "publish_to_write_seconds"
    assert [1, 2, 2] == [found[f"{wait}_bucket {bound}"] for bound in ("0.25", "0.5", "+Inf")]
    assert 2 == found[f"{wait}_count"]
    assert pytest.approx(0.3) == found[f"{wait}_sum"]


async def test_no_label_has_a_value_that_clients_choose(client: httpx.AsyncClient, manager: ConnectionManager) -> None:
    identity = Identity("user-1", topics=frozenset({"topic-1"}))
    connect(manager, identity, since=0, client="address-1")
    connect(manager, identity)[0].drop(4_999, "reason-1")
    await manager.emit("type-1", topics=["topic-1"])

    families = [*text_string_to_metric_families((await client.get("/metrics", headers=bearer())).text)]

    labels = [label for family in families for sample in family.samples for label in sample.labels.items()]
    assert {"node", "transport", "outcome", "code", "le", "rule"} == {name for name, _ in labels}
    values = {value for name, value in labels if name != "le"}
    assert {manager.running.node_id, "websocket", "complete", "other", "(none)"} == values


async def test_a_token_is_required(client: httpx.AsyncClient) -> None:
    del client.headers["Authorization"]

    assert 401 == (await client.get("/metrics")).status_code


async def nodes_of(client: httpx.AsyncClient, query: str) -> set[str]:
    text = (await client.get(f"/metrics{query}", headers=bearer())).text
    return {sample.labels["node"] for family in text_string_to_metric_families(text) for sample in family.samples}


async def test_one_answer_may_have_the_figures_of_all_nodes(
    client: httpx.AsyncClient, manager: ConnectionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind one port with several workers, of which each scrape reaches one."""
    here = manager.running.node_id
    other = asdict(manager.running.cluster.overview.measures_here()[here])

    async def ask(kind: str, content: object) -> dict[str, Any]:
        assert ("measures", None) == (kind, content)
        return {"there": other}

    monkeypatch.setattr(manager.running.cluster.nodes, "ask", ask)

    assert {here, "there"} == await nodes_of(client, "?nodes=all")
    assert {here} == await nodes_of(client, "?nodes=own") == await nodes_of(client, "")


async def test_a_node_alone_answers_while_the_engine_is_away(
    client: httpx.AsyncClient, manager: ConnectionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask(*_: object) -> dict[str, Any]:
        raise LogUnavailable("the engine is away")

    monkeypatch.setattr(manager.running.cluster.nodes, "ask", ask)

    assert {manager.running.node_id} == await nodes_of(client, "?nodes=all")


@pytest.mark.parametrize("query", ["?nodes=some", "?nodes=", "?nodes=all&nodes=own"])
async def test_a_bad_query_is_refused(client: httpx.AsyncClient, query: str) -> None:
    assert 422 == (await client.get(f"/metrics{query}", headers=bearer())).status_code


async def test_a_scope_of_its_own_reads_metrics_and_nothing_else(client: httpx.AsyncClient) -> None:
    sent = bearer("metrics:read")
    paths = ("/metrics", "/metrics?nodes=all", "/websocket/status", "/websocket/log", "/websocket/history")

    assert [200, 200, 403, 403, 403] == [(await client.get(path, headers=sent)).status_code for path in paths]
    refused = (await client.get("/metrics", headers=bearer("messages:publish"))).json()["detail"]
    assert "reading metrics needs a token with the scope metrics:read" == refused


@pytest.mark.parametrize(("scope", "status"), [("", 403), ("messages:publish", 403), ("other admin", 200)])
async def test_operators_need_the_scope(client: httpx.AsyncClient, scope: str, status: int) -> None:
    assert status == (await client.get("/metrics", headers=bearer(scope))).status_code


async def test_without_the_package_the_answer_names_the_extra(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client.exposition", None)

    response = await client.get("/metrics", headers=bearer())

    assert (501, "metrics need an extra package: pip install 'unmissed[metrics]'") == (
        response.status_code,
        response.json()["detail"],
    )
