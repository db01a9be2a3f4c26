"""How many calls a budget can still pay for, so that no job goes out only to be sent back.

A guess that is good enough: what a call may cost is decided when it begins (`store.leases.begin`), under the lock.
"""

from collections.abc import Iterable, Mapping

from promptmill.budgets import Budget
from promptmill.states import JobState
from promptmill.store import Connection, stats
from promptmill.store.batches import BatchRow


def affordable_calls(connection: Connection, batches: Iterable[BatchRow]) -> dict[str, int]:
    """How many more ids may go out of the batches that have a budget, by batch."""
    return {
        row.id: _calls_left(row, row.budget_nanos, stats.out_of(connection, row.id))
        for row in batches
        if row.budget_nanos is not None
    }


def _calls_left(row: BatchRow, limit: int, out: Mapping[JobState, int]) -> int:
    budget = Budget(limit, row.cost_nanos, row.reserved_nanos, row.unknown_nanos)
    typical = _typical_cost(row, out.get(JobState.RUNNING, 0))
    return max(0, budget.calls(typical) - out.get(JobState.QUEUED, 0))


def _typical_cost(row: BatchRow, running: int) -> float | None:
    """Nano-dollars that a call of the batch sets aside: what those in flight did, else what answers did cost."""
    if running and row.reserved_nanos:
        return row.reserved_nanos / running
    if row.succeeded and row.cost_nanos:
        return row.cost_nanos / row.succeeded
    return row.estimate_nanos / row.total if row.estimate_nanos and row.total else None
