"""The small lines over time: what was compared, and what is not taken for a pace."""

from dataclasses import replace
from datetime import UTC, datetime

from producers.dashboard.history import EVERY_S, KEPT, History
from promptmill.states import BatchState, Lane
from promptmill.store.batches import BatchRow

DOLLAR = 1_000_000_000


def row(**fields: object) -> BatchRow:
    empty = dict.fromkeys(
        ("total", "succeeded", "errored", "canceled", "expired", "input_tokens", "output_tokens"), 0
    ) | dict.fromkeys(
        ("cache_write_tokens", "cache_read_tokens", "attempts", "unpriced_attempts", "cost_nanos"), 0
    )
    return replace(
        BatchRow(
            id="batch_1",
            name="one",
            state=BatchState.ACTIVE,
            reason=None,
            lane=Lane.REALTIME,
            model="claude-haiku-5-5",
            endpoint="simulated",
            simulated=True,
            priority=1.0,
            tags={},
            options={},
            deadline=None,
            reserved_nanos=0,
            estimate_nanos=None,
            budget_nanos=None,
            created_at=datetime(2026, 11, 23, tzinfo=UTC),
            sealed_at=None,
            started_at=None,
            ended_at=None,
            **empty,  # type: ignore[arg-type]  # all are counters
        ),
        **fields,
    )


def test_two_looks_make_a_pace_and_what_it_costs() -> None:
    history = History()
    history.note([row(succeeded=10, cost_nanos=DOLLAR)], at=1000.0)
    history.note([row(succeeded=30, cost_nanos=2 * DOLLAR)], at=1010.0)

    assert history.document() == {
        "every_s": EVERY_S,
        "at": [1010.0],
        "answers_per_s": [2.0],
        "usd_per_h": [360.0],
    }


def test_a_look_too_soon_makes_no_sample() -> None:
    history = History()
    history.note([row()], at=1000.0)

    assert not history.note([row(succeeded=5)], at=1001.0)
    assert history.note([row(succeeded=10)], at=1005.0)
    assert [each.answers_per_s for each in history.samples] == [2.0]


def test_a_batch_that_comes_or_goes_is_no_step() -> None:
    history = History()
    history.note([row(succeeded=5)], at=0.0)
    history.note([row(succeeded=5), row(id="batch_2", succeeded=1_000)], at=5.0)
    history.note([row(id="batch_2", succeeded=1_000)], at=10.0)

    assert [each.answers_per_s for each in history.samples] == [0.0, 0.0]


def test_what_a_retry_takes_back_is_no_negative_pace() -> None:
    history = History()
    history.note([row(errored=50)], at=0.0)
    history.note([row(errored=0)], at=5.0)

    assert history.samples[0].answers_per_s == 0.0


def test_a_clock_that_is_set_back_loses_one_sample_and_goes_on() -> None:
    history = History()
    for at in (1000.0, 1005.0, 500.0, 505.0):
        history.note([row()], at=at)

    assert [each.at for each in history.samples] == [1005.0, 505.0]


def test_a_quarter_of_an_hour_is_kept() -> None:
    history = History()
    for step in range(2 * KEPT):
        history.note([row()], at=step * EVERY_S)

    assert len(history.samples) == KEPT
