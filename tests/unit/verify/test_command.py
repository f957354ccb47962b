"""Which log may be lost by what a run does."""

import pytest

from unmissed.verify.cluster import Setup
from unmissed.verify.command import may_lose_its_log

CHAOS, CALM = {"chaos": True, "foreign": False}, {"chaos": False, "foreign": False}
ELSEWHERE = {"chaos": True, "foreign": True}


@pytest.mark.parametrize(
    ("setup", "circumstances"),
    [
        (Setup("memory"), CHAOS),
        (Setup("memory"), ELSEWHERE),
        (Setup("redis", engine_persistence=False), CHAOS),
    ],
)
def test_a_log_in_memory_may_be_lost_with_its_process(setup: Setup, circumstances: dict[str, bool]) -> None:
    assert may_lose_its_log(setup, **circumstances)


@pytest.mark.parametrize(
    ("setup", "circumstances"),
    [
        (Setup("memory"), CALM),
        (Setup("redis", engine_persistence=False), CALM),
        (Setup("sqlite"), CHAOS),
        (Setup("redis"), ELSEWHERE),
        (Setup("nats", engine_nodes=3), CHAOS),
    ],
)
def test_another_log_may_not_be_lost(setup: Setup, circumstances: dict[str, bool]) -> None:
    assert not may_lose_its_log(setup, **circumstances)
