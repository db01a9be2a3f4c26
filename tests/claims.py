"""Claims as a worker makes them, for tests that begin jobs without one."""

from datetime import datetime

from promptmill.ids import new_id
from promptmill.store.jobs import QueuedJob
from promptmill.store.leases import Claim


def a_claim(
    queued: QueuedJob, at: datetime, *, reserved_nanos: int | None = None, simulated: bool = True
) -> Claim:
    """The claim of a worker that opens an attempt at a queued job at that moment."""
    return Claim(
        job_id=queued.job_id,
        dispatch=queued.dispatch,
        attempt_id=new_id("attempt"),
        key_label="k",
        account="a",
        model=queued.model,
        reserved_nanos=reserved_nanos,
        simulated=simulated,
        opened_at=at,
    )
