"""Watching a batch: a stream of moments, each with all a person may want to know, until the batch has ended.

Everything is counted in the database. A moment costs a few indexed reads however large the batch is.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from producers.bottleneck import Bottleneck
from producers.pace import Pace
from promptmill.settings import Settings
from promptmill.states import BatchState, JobState
from promptmill.store import stats, workers
from promptmill.store.database import Database, database_now
from promptmill.store.stats import BatchStatus

INTERVAL_S = 0.5


@dataclass(frozen=True, slots=True)
class Moment:
    """A batch at one moment.

    Attributes:
        status: what the database says.
        workers: worker processes that live and call the endpoint of this batch.
        strangers: the endpoints that other live workers call.
        answers_per_s: jobs ended per second, of late.
        tokens_per_s: tokens read and written per second, of late.
        eta_s: seconds that are left at this pace; None while nobody can tell.
        bound_by: what keeps it from going faster: a limit's dimension, `concurrency`, or None.
    """

    status: BatchStatus
    workers: int
    strangers: tuple[str, ...]
    answers_per_s: float
    tokens_per_s: float
    eta_s: float | None
    bound_by: str | None

    @property
    def has_ended(self) -> bool:
        """Whether every job has ended."""
        return self.status.batch.state is BatchState.ENDED

    @property
    def hint(self) -> str | None:
        """Why nothing moves, and what to do about it; None while something does."""
        batch = self.status.batch
        if batch.state is BatchState.PAUSED:
            return f"{batch.name} is paused ({batch.reason}); go on with: promptmill resume {batch.name}"
        if batch.state is not BatchState.ACTIVE or self.workers:
            return None
        if self.strangers:
            theirs = ", ".join(self.strangers)
            return f"the running workers call {theirs}, and {batch.name} is for {batch.endpoint}"
        return "no worker is running; start one with: promptmill up"


def look(database: Database, batch_id: str, bottleneck: Bottleneck) -> Moment:
    """One moment, without a past: its pace is the mean since the first call.

    Raises:
        NotFound: there is no such batch.
    """
    return _moment(database, batch_id, bottleneck, None)


def watch(
    database: Database, batch_id: str, settings: Settings, *, every_s: float = INTERVAL_S
) -> Iterator[Moment]:
    """Moments of a batch, one every `every_s` seconds; the last is the one in which it has ended.

    Raises:
        NotFound: there is no such batch.
    """
    pace = Pace()
    with Bottleneck(settings, database) as bottleneck:
        while True:
            moment = _moment(database, batch_id, bottleneck, pace)
            yield moment
            if moment.has_ended:
                return
            time.sleep(every_s)


def _moment(database: Database, batch_id: str, bottleneck: Bottleneck, pace: Pace | None) -> Moment:
    with database.read() as connection:
        now = database_now(connection)
        status = stats.status(connection, batch_id, now)
        alive = workers.live(connection, now)
    batch = status.batch
    tokens = batch.input_tokens + batch.output_tokens + batch.cache_read_tokens + batch.cache_write_tokens
    if pace is None:
        pace = Pace()
        pace.note(0.0, done=0, tokens=0)
        pace.note(status.elapsed_s, done=batch.done, tokens=tokens)
    else:
        pace.note(time.monotonic(), done=batch.done, tokens=tokens)
    serving = [worker for worker in alive if worker.endpoint == batch.endpoint]
    moves = batch.state is BatchState.ACTIVE and bool(serving)
    running = status.jobs[JobState.RUNNING]
    return Moment(
        status=status,
        workers=len(serving),
        strangers=tuple(sorted({str(worker.endpoint) for worker in alive} - {batch.endpoint})),
        answers_per_s=pace.answers_per_s,
        tokens_per_s=pace.tokens_per_s,
        eta_s=pace.seconds_for(batch.total - batch.done) if moves else None,
        bound_by=bottleneck.of(batch, running=running, slots=sum(w.slots for w in serving))
        if moves
        else None,
    )
