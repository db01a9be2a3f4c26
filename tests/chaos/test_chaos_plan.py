"""The plan of a chaos run is told by its seed, and holds what was asked for."""

from collections import Counter

import pytest

from tests.chaos.plan import Act, make_plan


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_the_same_seed_makes_the_same_plan(database: str) -> None:
    assert str(make_plan(7, 10, database)) == str(make_plan(7, 10, database))
    assert str(make_plan(7, 10, database)) != str(make_plan(8, 10, database))


def test_ten_minutes_hold_what_the_issue_asks_for() -> None:
    plan = make_plan(1, 10, "postgres")
    counts = Counter(event.act for event in plan.events)
    assert counts == {
        Act.KILL_WORKER: 50,
        Act.RESTART_REDIS: 10,
        Act.FLUSH_REDIS: 3,
        Act.CUT_DATABASE: 5,
    }
    assert plan.jobs == 20_000
    assert plan.outage["until_s"] - plan.outage["from_s"] == pytest.approx(30)
    assert all(0 < event.at_s < 600 for event in plan.events)
