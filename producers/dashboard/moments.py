"""The moments of all batches from one look: what `status --watch` says of one, without asking for each anew.

The one idea: a Pace is kept for every batch that has not ended, so rates and the time left are measured, not guessed.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from producers.pace import Pace
from producers.watch import Moment
from promptmill.states import BatchState, JobState
from promptmill.store.batches import BatchRow
from promptmill.store.stats import BatchStatus
from promptmill.store.workers import WorkerRow


@dataclass(slots=True)
class Moments:
    """Makes a Moment of each batch, again and again."""

    _paces: dict[str, Pace] = field(default_factory=dict)
    _accompanied_at: dict[str, float] = field(default_factory=dict)

    def of(
        self, statuses: Sequence[BatchStatus], alive: Sequence[WorkerRow], monotonic: float | None = None
    ) -> list[Moment]:
        """The moments of these batches; what is not among them is forgotten."""
        now = time.monotonic() if monotonic is None else monotonic
        known = {each.batch.id for each in statuses}
        self._paces = {name: pace for name, pace in self._paces.items() if name in known}
        self._accompanied_at = {name: at for name, at in self._accompanied_at.items() if name in known}
        return [self._of(status, alive, now) for status in statuses]

    def _of(self, status: BatchStatus, alive: Sequence[WorkerRow], now: float) -> Moment:
        batch = status.batch
        serving = [worker for worker in alive if worker.endpoint == batch.endpoint]
        pace = self._paces.setdefault(batch.id, Pace())
        pace.note(now, done=batch.done, tokens=tokens_of(batch))
        if serving or batch.id not in self._accompanied_at:
            self._accompanied_at[batch.id] = now
        moves = batch.state is BatchState.ACTIVE and bool(serving)
        has_pace = moves and batch.done >= status.jobs[JobState.RUNNING]
        return Moment(
            status=status,
            workers=len(serving),
            strangers=tuple(sorted({str(worker.endpoint) for worker in alive} - {batch.endpoint})),
            alone_s=now - self._accompanied_at[batch.id],
            answers_per_s=pace.answers_per_s,
            tokens_per_s=pace.tokens_per_s,
            eta_s=pace.seconds_for(batch.total - batch.done) if has_pace else None,
            bound_by=None,
        )


def tokens_of(batch: BatchRow) -> int:
    """Every token that was read or written for a batch."""
    return batch.input_tokens + batch.output_tokens + batch.cache_read_tokens + batch.cache_write_tokens
