"""Every figure of the database under its own name, with its own labels and in its own unit."""

from datetime import UTC, datetime
from typing import Any

from producers.metrics_database import Figures, of_figures, sums_of
from promptmill.states import JobState
from promptmill.store.totals import ModelTotals, ScheduleTimes, ServedBatch, Totals
from promptmill.store.workers import WorkerRow

AT = datetime(2026, 11, 23, tzinfo=UTC)
MODEL = ("claude-sonnet-5", "true")
TOTALS = Totals(
    models=(
        ModelTotals(
            model="claude-sonnet-5",
            simulated=True,
            total=100,
            succeeded=20,
            errored=3,
            canceled=4,
            expired=5,
            attempts=41,
            unpriced_attempts=2,
            input_tokens=1_001,
            output_tokens=1_002,
            cache_write_tokens=1_003,
            cache_read_tokens=1_004,
            cost_nanos=2_500_000_000,
            reserved_nanos=750_000_000,
        ),
    ),
    out={"queued": 6, "running": 7},
    batches={"active": 8},
    failed_attempts={"overloaded": 9},
)
SERVED = ServedBatch(
    "nightly", "budget", cost_nanos=1_250_000_000, budget_nanos=4_000_000_000, jobs={JobState.PENDING: 55}
)
SCHEDULE = ScheduleTimes("daily", next_due=AT, last_due=AT, last_state="submitted")
CALLS = [each / 10 for each in range(1, 201)]  # 0.1 s to 20 s


def worker() -> WorkerRow:
    return WorkerRow(
        id="w", host="here", pid=7, version="0", endpoint=None, slots=10, running=4,
        started_at=AT, seen_at=AT, stopped_at=None,
    )  # fmt: skip


def shown() -> dict[Any, float]:
    """By name and labels; that no two have the same is part of it."""
    figures = Figures(TOTALS, [SERVED], {"sonnet": CALLS}, [worker()], [SCHEDULE])
    found = [
        ((metric.name, *labels), value) for metric, labels, value in of_figures(figures, sums_of(figures))
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


def test_counters_are_what_the_batches_add_up_to() -> None:
    found = shown()
    assert [found["promptmill_jobs_ended_total", each] for each in ("succeeded", "errored", "canceled")] == [
        20,
        3,
        4,
    ]
    assert found["promptmill_attempts_total", *MODEL] == 41
    assert found["promptmill_attempts_failed_total", "overloaded"] == 9
    kinds = ("input", "output", "cache_write", "cache_read")
    assert [found["promptmill_tokens_total", each, *MODEL] for each in kinds] == [1_001, 1_002, 1_003, 1_004]


def test_money_is_in_dollars() -> None:
    found = shown()
    assert found["promptmill_cost_dollars_total", *MODEL] == 2.5
    assert found["promptmill_reserved_dollars", *MODEL] == 0.75
    assert found["promptmill_batch_cost_dollars", "nightly"] == 1.25
    assert found["promptmill_batch_budget_dollars", "nightly"] == 4.0
    assert found["promptmill_attempts_unpriced", *MODEL] == 2


def test_what_is_left_of_the_jobs_is_pending() -> None:
    found = shown()
    states = ("pending", "queued", "running", "expired")
    assert [found["promptmill_jobs", each] for each in states] == [55, 6, 7, 5]
    assert (found["promptmill_batches", "active"], found["promptmill_batches", "ended"]) == (8, 0)
    assert found["promptmill_batch_paused", "nightly", "budget"] == 1


def test_calls_workers_and_schedules_are_told() -> None:
    found = shown()
    seconds = [found["promptmill_recent_call_seconds", "sonnet", each] for each in ("50", "90", "99")]
    assert seconds == [10.0, 18.0, 19.8]
    assert found["promptmill_worker_slots", "here/7"] == 10
    assert found["promptmill_worker_calls", "here/7"] == 4
    assert found["promptmill_schedule_next_due_timestamp_seconds", "daily"] == AT.timestamp()
