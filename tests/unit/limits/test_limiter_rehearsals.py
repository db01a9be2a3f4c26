"""What the table of bars does not rehearse: short runs, limits that change on the way, permits of the dead."""

from dataclasses import replace

import pytest

from bench.rehearsal.bars import CONFIGURED, rehearse
from bench.rehearsal.scene import Scene
from promptmill.dimensions import Amounts
from promptmill.limits import Ceilings


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("limits", [Amounts(600, 0, 0), Amounts(0, 90_000, 0), Amounts(0, 0, 72_000)])
def test_a_short_run_takes_little_more_than_the_limits_ask_for(processes: int, limits: Amounts) -> None:
    outcome = rehearse(
        Scene(
            load="short",
            seconds=165,
            limits=Amounts(*(limit or 10_000_000 for limit in limits)),
            ceilings=Ceilings(*limits),
            processes=processes,
            slots=96 // processes,
        )
    )
    assert outcome.refusals == 0
    assert outcome.makespan <= 1.10 * outcome.least + outcome.latency


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_a_limit_that_changes_is_followed(factor: float) -> None:
    scene = Scene(seconds=300)
    changed = Amounts(*(limit * factor for limit in scene.limits))
    outcome = rehearse(replace(scene, change=(100, changed)))
    assert outcome.refusals == 0
    assert outcome.answered_once


def test_the_permits_of_dead_processes_are_given_up() -> None:
    outcome = rehearse(Scene(load="requests", seconds=150, dying=(60, 8)))
    assert outcome.refusals == 0
    assert outcome.open_permits == 0


@pytest.mark.parametrize("load", ["requests", "input", "output", "balanced"])
def test_a_configured_limit_is_not_exceeded_with_all_slots_waiting(load: str) -> None:
    outcome = rehearse(Scene(load=load, seconds=300, ceilings=CONFIGURED, dispatched=False))
    assert outcome.refusals == 0
    assert outcome.utilisation <= 1.03  # what is counted in a span may have been granted before it
    assert outcome.open_permits == 0
