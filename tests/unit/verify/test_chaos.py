"""The plan of a run."""

import random
from itertools import islice

from unmissed.verify.chaos import Blow, Strike, planned


def plan(seed: int, *, seconds: float = 60.0, nodes: int = 2, engines: int = 3) -> list[Strike]:
    return [*islice(planned(random.Random(seed), seconds=seconds, nodes=nodes, engines=engines), 100)]


def test_the_same_seed_gives_the_same_plan() -> None:
    assert plan(7) == plan(7) != plan(8)


def test_a_plan_strikes_everything_that_was_started() -> None:
    strikes = plan(7)

    assert {*Blow} == {strike.blow for strike in strikes}
    assert {0, 1, 2} == {strike.target for strike in strikes if strike.blow is Blow.KILL_ENGINE}
    assert {0, 1} == {strike.target for strike in strikes if strike.blow is not Blow.KILL_ENGINE}


def test_a_node_is_killed_however_short_the_run_is() -> None:
    first = plan(7, seconds=2.0)[0]

    assert Blow.KILL is first.blow
    assert 0 < first.pause < 2.0


def test_an_engine_is_killed_second() -> None:
    assert Blow.KILL_ENGINE is plan(7, seconds=2.0)[1].blow


def test_without_an_engine_no_engine_is_struck() -> None:
    assert Blow.KILL_ENGINE not in {strike.blow for strike in plan(7, engines=0)}
