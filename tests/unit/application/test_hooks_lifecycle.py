"""The log line at the end of each connection."""

import logging

import pytest

from support import connect, managed, nth
from unmissed import Identity
from unmissed.testing import ManualClock


async def test_each_end_is_one_line_with_its_facts(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="unmissed")
    async with managed(clock) as manager:
        socket, connection = connect(manager, Identity("al\nice"), client="192.0.2.7")
        await manager.emit("a")
        clock.advance(1.5)
        socket.drop(4000, "bye token=hunter2")

    [record] = [record for record in caplog.records if record.getMessage().startswith("connection ended")]
    assert (
        f"connection ended: connection_id={connection.id!r} user_id='al\\nice' client='192.0.2.7' code=4000 "
        f"reason='bye token=[redacted]' seconds=1.5 position={nth(1)} behind=0"
    ) == record.getMessage()
    assert ("al\nice", 4000, 1.5) == (record.user_id, record.code, record.seconds)  # type: ignore[attr-defined]  # extra


async def test_the_code_of_the_server_is_a_number_as_that_of_a_client(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="unmissed")
    async with managed(clock) as manager:
        connect(manager)

    [record] = [record for record in caplog.records if record.getMessage().startswith("connection ended")]
    assert " code=1012 reason='the server is shutting down" in record.getMessage()
    assert int is type(record.code)  # type: ignore[attr-defined]  # extra


async def test_nothing_is_formatted_for_a_level_that_is_off(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="unmissed")
    async with managed(clock) as manager:
        connect(manager)[0].drop()

    assert [] == caplog.records
