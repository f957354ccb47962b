"""The live server for tests, when its application does not start."""

import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI

from support import LOGGED
from unmissed import ConnectionManager, Settings
from unmissed.testing import SECRET, LiveServer


@asynccontextmanager
async def broken(_: FastAPI) -> AsyncIterator[None]:
    raise ValueError("broken on purpose")
    yield


def test_an_application_that_fails_to_start_is_reported_at_once(caplog: pytest.LogCaptureFixture) -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    server = LiveServer(FastAPI(lifespan=broken), manager=manager, **LOGGED)
    before, started = threading.active_count(), time.monotonic()

    with pytest.raises(RuntimeError, match="failed to start"):
        server.start()

    assert time.monotonic() - started < 9
    assert before == threading.active_count()
    assert "broken on purpose" in caplog.text


def test_an_application_that_cannot_be_loaded_is_reported_with_its_error() -> None:
    manager = ConnectionManager(Settings.load(jwt_secret=SECRET))
    server = LiveServer(FastAPI(), manager=manager, http="no.such:Class")

    with pytest.raises(RuntimeError, match="failed to start"):
        server.start()


def test_a_server_that_failed_may_be_started_again() -> None:
    settings = Settings.load(jwt_secret=SECRET)
    manager = ConnectionManager(settings)
    attempts: list[int] = []

    @asynccontextmanager
    async def second_time(_: FastAPI) -> AsyncIterator[None]:
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError("broken on purpose")
        async with manager:
            yield

    server = LiveServer(FastAPI(lifespan=second_time), manager=manager, settings=settings, **LOGGED)
    with pytest.raises(RuntimeError, match="failed to start"):
        server.start()

    with server:
        assert manager.ready


def test_what_an_application_has_published_can_be_read_by_type() -> None:
    with LiveServer() as server:
        first = server.publish("order.shipped", {"id": 42}, users=["bob"], topics=["orders.42"])
        second = server.publish("order.paid")

        assert [first, second] == server.published()
        assert [second] == server.published("order.paid")


def test_other_arguments_are_fields_of_the_message() -> None:
    with LiveServer() as server:
        message = server.publish("cart", 1, topics=["users.42"], key="cart", deleted=True, note="empty")

    assert ("cart", True, "empty") == (message.key, message.as_dict()["deleted"], message.as_dict()["note"])


def test_a_repeated_key_publishes_nothing() -> None:
    with LiveServer() as server:
        first = server.publish("order.paid", idempotency_key="order-42")

        assert first == server.publish("order.paid", idempotency_key="order-42")
        assert [first] == server.published()
