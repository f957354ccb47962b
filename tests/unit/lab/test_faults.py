"""The faults of networks and processes, drawn by a seed."""

import random
from itertools import islice

from unmissed.lab.faults import NetworkFault, PlannedFault, ProcessFault, drawn, planned


def plan_of(seed: int, *, seconds: float = 60.0, nodes: int = 2, engines: int = 3) -> list[PlannedFault]:
    return [*islice(planned(random.Random(seed), seconds=seconds, nodes=nodes, engines=engines), 100)]


def test_the_same_seed_gives_the_same_plan() -> None:
    assert plan_of(7) == plan_of(7) != plan_of(8)


def test_a_plan_has_faults_of_everything_that_was_started() -> None:
    plan = plan_of(7)

    assert {*ProcessFault} == {each.fault for each in plan}
    assert {0, 1, 2} == {each.target for each in plan if each.fault is ProcessFault.KILL_ENGINE}
    assert {0, 1} == {each.target for each in plan if each.fault is not ProcessFault.KILL_ENGINE}


def test_a_node_is_killed_however_short_the_run_is() -> None:
    first = plan_of(7, seconds=2.0)[0]

    assert ProcessFault.KILL is first.fault
    assert 0 < first.pause < 2.0


def test_an_engine_is_killed_second() -> None:
    assert ProcessFault.KILL_ENGINE is plan_of(7, seconds=2.0)[1].fault


def test_without_an_engine_none_is_killed() -> None:
    assert ProcessFault.KILL_ENGINE not in {each.fault for each in plan_of(7, engines=0)}


def test_the_same_seed_draws_the_same_fates_and_every_fault() -> None:
    first, second = ([drawn(random.Random(seed)) for seed in range(200)] for _ in range(2))

    assert first == second
    assert {None, *NetworkFault} == {each and each.fault for each in first}
