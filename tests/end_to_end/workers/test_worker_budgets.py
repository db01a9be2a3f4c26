"""Worker processes and a budget: it is kept, whoever is killed, and what is set aside is never given away twice."""

from collections.abc import Callable
from typing import Any

import pytest

from promptmill.clock import SystemClock
from promptmill.states import JobState, PausedBy
from promptmill.store import ledger, terms
from promptmill.store.terms import NewTerms
from promptmill.testing import a_batch, a_prompt, simulated_claude

Start = Callable[..., Any]
pytestmark = pytest.mark.timeout(180)

JOBS = 150
MILLI_DOLLAR = 1_000_000
BUDGET = 60 * MILLI_DOLLAR
"""A call of the test batches costs a milli-dollar: 100 tokens out, which is also the most it may write."""


def stopped_by_budget(mill: Any, batch_id: str) -> bool:
    row = mill.status(batch_id).batch
    return row.paused_by is PausedBy.BUDGET


def set_budget(mill: Any, batch_id: str, nanos: int | None) -> None:
    with mill.database.begin() as connection:
        terms.change(connection, batch_id, NewTerms(budget_nanos=nanos), SystemClock().now())


def test_a_budget_stops_a_batch_before_it_is_overshot_and_a_larger_one_lets_it_go_on(
    start_mill: Start, database_url: str
) -> None:
    with simulated_claude(first_token_s=0.1, mean_output_tokens=1_000) as claude:
        mill = start_mill(database_url, claude, PROMPTMILL_CONCURRENCY="20")
        batch = a_batch(mill.database, JOBS, budget_nanos=BUDGET, estimate_nanos=JOBS * MILLI_DOLLAR)
        mill.start_worker()
        mill.wait_until(lambda: stopped_by_budget(mill, batch.id), timeout=60)
        status = mill.status(batch.id)
        billed = claude.ledger()["billed"]["cost_nanos"]
        assert status.batch.cost_nanos == billed
        assert BUDGET - 2 * MILLI_DOLLAR < billed <= BUDGET
        assert (status.jobs[JobState.RUNNING], status.batch.reserved_nanos) == (0, 0)
        assert "budget of $0.06" in str(status.batch.reason)

        set_budget(mill, batch.id, None)

        status = mill.wait_for_end(batch.id)
        assert claude.ledger()["answered"] == {"1": JOBS}
    assert status.jobs[JobState.SUCCEEDED] == JOBS


def test_workers_killed_with_9_cost_no_more_than_the_budget(
    start_mill: Start, postgres_first_url: str
) -> None:
    held = {"kind": "hold", "times": 5}
    with simulated_claude(first_token_s=0.5, mean_output_tokens=1_000, faults=[held]) as claude:
        mill = start_mill(postgres_first_url, claude, quick=True, PROMPTMILL_CONCURRENCY="5")
        batch = a_batch(mill.database, JOBS, budget_nanos=BUDGET, estimate_nanos=JOBS * MILLI_DOLLAR)
        first = mill.start_worker()
        mill.wait_until(lambda: claude.ledger()["in_flight"] == 5, timeout=60)  # they end with their worker
        victims = [first, *(mill.start_worker() for _ in range(2))]
        for answers, victim in zip((5, 15, 25), victims, strict=True):
            mill.wait_until(lambda n=answers: mill.status(batch.id).jobs[JobState.SUCCEEDED] >= n, timeout=60)
            victim.kill()
            mill.start_worker()
        mill.wait_until(lambda: stopped_by_budget(mill, batch.id), timeout=90)
        row = mill.status(batch.id).batch
        billed = claude.ledger()["billed"]["cost_nanos"]
        with mill.database.read() as connection:
            attempts = ledger.attempts_of(connection, batch_id=batch.id)
    lost = [each for each in attempts if each.outcome == ledger.LOST]
    assert len(lost) >= 5
    assert row.unknown_nanos == sum(each.reserved_nanos or 0 for each in lost)
    assert row.cost_nanos <= billed <= row.cost_nanos + row.unknown_nanos <= BUDGET
    assert row.cost_nanos + row.unknown_nanos > BUDGET - 2 * MILLI_DOLLAR


def test_a_job_whose_price_nobody_knows_stops_a_batch_with_a_budget(
    start_mill: Start, sqlite_url: str
) -> None:
    with simulated_claude() as claude:
        mill = start_mill(sqlite_url, claude)
        unpriced = [a_prompt(model="claude-nobody-7")]
        batch = a_batch(mill.database, unpriced, budget_nanos=BUDGET)
        mill.start_worker()
        mill.wait_until(lambda: stopped_by_budget(mill, batch.id), timeout=60)
        assert "the price of the next call is unknown" in str(mill.status(batch.id).batch.reason)
        assert claude.ledger()["requests"] == 0
