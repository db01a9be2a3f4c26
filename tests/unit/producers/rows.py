"""The row of a batch as a value, for tests of words and figures that need no database."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from promptmill.states import BatchState, Lane
from promptmill.store.batches import BatchRow

NOW = datetime(2026, 11, 22, tzinfo=UTC)
EMPTY = BatchRow(
    id="batch_1", name="sums", state=BatchState.ACTIVE, reason=None, lane=Lane.REALTIME, model="claude-haiku-5-5",
    endpoint="simulated", simulated=True, priority=1.0, tags={}, options={}, deadline=None,
    total=0, succeeded=0, errored=0, canceled=0, expired=0,
    input_tokens=0, output_tokens=0, cache_write_tokens=0, cache_read_tokens=0,
    attempts=0, unpriced_attempts=0, cost_nanos=0, reserved_nanos=0, estimate_nanos=None, budget_nanos=None,
    created_at=NOW, sealed_at=NOW, started_at=NOW, ended_at=None,
)  # fmt: skip


def batch_row(**fields: Any) -> BatchRow:
    """An active batch of the simulated Claude that nothing was counted of; `fields` stand over its own."""
    return replace(EMPTY, **fields)
