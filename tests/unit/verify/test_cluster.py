"""What can be started."""

import pytest

from unmissed.core.errors import ConfigurationError
from unmissed.verify.cluster import Setup


def refusal(setup: Setup) -> str | None:
    try:
        setup.check()
    except ConfigurationError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "setup",
    [
        Setup(),
        Setup("sqlite"),
        Setup("redis", nodes=3),
        Setup("redis", engine_persistence=False),
        Setup("nats", nodes=3, engine_nodes=3),
    ],
)
def test_a_combination_that_exists_is_accepted(setup: Setup) -> None:
    assert None is refusal(setup)


@pytest.mark.parametrize(
    ("setup", "reason"),
    [
        (Setup("memory", nodes=2), "--nodes 2 needs a log that nodes share"),
        (Setup("sqlite", nodes=2), "--nodes 2 needs a log that nodes share"),
        (Setup("redis", engine_nodes=3), "--engine-nodes 3 needs --log nats"),
        (Setup("nats", engine_nodes=2), "--engine-nodes is 1 or 3"),
        (Setup("nats", engine_persistence=False), "--no-engine-persistence needs --log redis"),
    ],
)
def test_another_combination_is_refused(setup: Setup, reason: str) -> None:
    assert reason in str(refusal(setup))
