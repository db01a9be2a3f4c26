"""The main scenarios of limiter.md, section 9, in virtual time: full use of the limit and not one refusal."""

from collections.abc import Callable
from typing import Any

import pytest

from promptmill.dimensions import Amounts
from promptmill.limits import Ceilings
from promptmill.simulator.limits import Tenant

CONFIGURED = Ceilings(1000, 450_000, 90_000)
Rehearse = Callable[..., Any]


@pytest.mark.parametrize(
    ("load", "utilisation", "ratio"),
    [("requests", 0.995, 1.06), ("input", 0.99, 1.0), ("output", 0.99, 1.0), ("balanced", 0.99, 1.0)],
)
def test_limits_learned_from_headers_are_used_up(
    rehearse: Rehearse, load: str, utilisation: float, ratio: float
) -> None:
    outcome = rehearse(load=load)
    assert outcome.refusals == 0
    assert outcome.utilisation >= utilisation
    assert outcome.ratio <= ratio
    assert outcome.open_permits == 0


@pytest.mark.parametrize("load", ["requests", "input", "output", "balanced"])
def test_configured_limits_are_used_up_and_not_exceeded(rehearse: Rehearse, load: str) -> None:
    outcome = rehearse(load=load, ceilings=CONFIGURED)
    assert outcome.refusals == 0
    assert 0.985 <= outcome.utilisation <= 1.03  # what is counted in a span may have been granted before it
    assert outcome.last_start <= outcome.least + 15
    assert outcome.open_permits == 0


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("limits", [Amounts(600, 0, 0), Amounts(0, 90_000, 0), Amounts(0, 0, 72_000)])
def test_a_short_run_takes_little_more_than_the_limits_ask_for(
    rehearse: Rehearse, processes: int, limits: Amounts
) -> None:
    outcome = rehearse(
        load="short",
        seconds=165,
        limits=Amounts(*(limit or 10_000_000 for limit in limits)),
        ceilings=Ceilings(*limits),
        processes=processes,
        slots=96 // processes,
    )
    assert outcome.refusals == 0
    assert outcome.makespan <= 1.10 * outcome.least + outcome.latency


def test_small_buckets_are_not_overdrawn(rehearse: Rehearse) -> None:
    outcome = rehearse(burst=5, ceilings=CONFIGURED)
    assert outcome.refusals == 0
    assert outcome.utilisation >= 0.95


@pytest.mark.parametrize("guess", [0.3, 3.0])
def test_wrong_estimates_cost_nothing_in_the_end(rehearse: Rehearse, guess: float) -> None:
    outcome = rehearse(guess=guess)
    assert outcome.refusals == 0
    assert outcome.utilisation >= 0.99


def test_what_another_program_takes_is_left_to_it(rehearse: Rehearse) -> None:
    outcome = rehearse(tenant=Tenant(0.3, begins=150))
    assert outcome.refusals == 0
    assert outcome.utilisation >= 0.99


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_a_limit_that_changes_is_followed(rehearse: Rehearse, factor: float) -> None:
    changed = Amounts(1000 * factor, 450_000 * factor, 90_000 * factor)
    outcome = rehearse(change=(100, changed))
    assert outcome.refusals == 0


def test_the_permits_of_dead_processes_are_given_up(rehearse: Rehearse) -> None:
    outcome = rehearse(load="requests", seconds=150, dying=(60, 4))
    assert outcome.refusals == 0
    assert outcome.open_permits == 0


def test_a_lost_record_makes_no_burst(rehearse: Rehearse) -> None:
    outcome = rehearse(ceilings=CONFIGURED, forget_at=150)
    assert outcome.refusals == 0
    assert outcome.last_start <= outcome.least + 33
