"""Watching a batch: a stream of moments, each with all a person may want to know, until the batch has ended.

Everything is counted in the database. A moment costs a few indexed reads however large the batch is.
"""

import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from producers.bottleneck import Bottleneck
from producers.failed import Failures, failures_of
from producers.pace import Pace
from producers.prediction import Prediction, Terms, predict
from promptmill.budgets import Budget, next_call_of
from promptmill.catalogue import Catalogue, limit_group
from promptmill.errors import ConfigurationError, Unavailable
from promptmill.experience import Experience
from promptmill.logs import get_logger
from promptmill.pricing import PriceBook
from promptmill.settings import Settings
from promptmill.states import BatchState, JobState, PausedBy
from promptmill.store import Connection, answered, batches, notices, stats, workers
from promptmill.store.batches import BatchRow
from promptmill.store.database import Database, database_now
from promptmill.store.stats import BatchStatus, Flow
from promptmill.store.workers import WorkerRow
from promptmill.webhooks import host_of

log = get_logger(__name__)

INTERVAL_S = 0.5
DATABASE_PATIENCE_S = 120.0
"""Seconds for which a database may be away before watching ends."""
PATIENCE_S = 15.0
"""Seconds without a worker before that is worth a word: one that was started with us takes a few to come up."""
MOST_COUNTED = 1_000
"""Waiting jobs up to which those that rest are counted: it is the end of a batch that has people wonder."""

_PRICE_UNKNOWN = Budget(limit=0).why_stopped(None).rpartition("; ")[2]


@dataclass(frozen=True, slots=True)
class Moment:
    """A batch at one moment.

    Attributes:
        status: what the database says.
        workers: worker processes that live and call the endpoint of this batch.
        strangers: the endpoints that other live workers call.
        alone_s: seconds for which no worker has been seen.
        answers_per_s: jobs ended per second, of late.
        tokens_per_s: tokens read and written per second, of late.
        eta_s: seconds that are left at this pace; None while nobody can tell: nothing was answered lately, or not yet
            as many jobs have ended as calls are in flight.
        bound_by: what keeps it from going faster: a limit's dimension, `concurrency`, or None.
        bound_by_default: whether that is a limit nobody has set and no answer has taught.
        resting: how many jobs rest after failures, and seconds until the first goes on; None where nothing rests, or
            where too many jobs wait to count them.
        prediction: how well it was predicted; None in the moments of a stream, but for one that its budget has stopped.
        failures: what went wrong so far; None in the moments of a stream.
        fault: that Redis does not answer, while prompts wait; None where it does.
        told_host: the host that is told of its end; None for nobody, and where no key opens the address.
        told_fault: why that last failed; None where it did not.
    """

    status: BatchStatus
    workers: int
    strangers: tuple[str, ...]
    alone_s: float
    answers_per_s: float
    tokens_per_s: float
    eta_s: float | None
    bound_by: str | None
    bound_by_default: bool = False
    resting: tuple[int, float] | None = None
    prediction: Prediction | None = None
    failures: Failures | None = None
    told_host: str | None = None
    told_fault: str | None = None
    fault: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether every job has ended."""
        return self.status.batch.state is BatchState.ENDED

    @property
    def stopped_by_budget(self) -> bool:
        """Whether its budget is used up and nothing is in flight any more."""
        return self._stopped_by(PausedBy.BUDGET)

    @property
    def lacks_a_price(self) -> bool:
        """Whether its budget stopped it at a call whose price nobody knows."""
        batch = self.status.batch
        return batch.paused_by is PausedBy.BUDGET and (batch.reason or "").endswith(_PRICE_UNKNOWN)

    @property
    def is_held(self) -> bool:
        """Whether workers paused it for want of a key or at a spend limit, and nothing is in flight any more."""
        return self._stopped_by(PausedBy.KEY, PausedBy.SPEND_CAP, PausedBy.ENCRYPTION)

    def _stopped_by(self, *causes: PausedBy) -> bool:
        batch = self.status.batch
        paused = batch.state is BatchState.PAUSED and batch.paused_by in causes
        return paused and not self.status.jobs[JobState.RUNNING]

    @property
    def way_on(self) -> str:
        """The command that lets a paused batch go on."""
        batch = self.status.batch
        name = shlex.quote(batch.name)
        if batch.paused_by is PausedBy.BUDGET and not self.lacks_a_price:
            return f"promptmill set {name} --budget {self.larger_budget}"
        return f"promptmill resume {name}"

    @property
    def remedy(self) -> str | None:
        """What to put right before a paused batch can go on; None where nothing is."""
        batch = self.status.batch
        if batch.paused_by is PausedBy.KEY:
            return (
                "put a valid key into its file, and it goes on by itself; "
                "for one in ANTHROPIC_API_KEY, restart the workers first"
            )
        if batch.paused_by is PausedBy.ENCRYPTION:
            return (
                "put that key into the file that PROMPTMILL_ENCRYPTION_KEYS_FILE names where workers run, "
                "and restart them (it goes on by itself)"
            )
        if self.lacks_a_price:
            return "no larger budget helps: set the price of its model in promptmill.toml and restart the workers"
        if batch.paused_by is PausedBy.SPEND_CAP:
            return "raise the limit in the Claude Console" + (" to go on sooner" if batch.resume_at else "")
        return None

    @property
    def larger_budget(self) -> str:
        """An amount in dollars that leaves room for more."""
        batch = self.status.batch
        limit = batch.budget_nanos or 0
        budget = Budget(limit, batch.cost_nanos, batch.reserved_nanos, batch.unknown_nanos)
        projected = self.prediction.projected_nanos if self.prediction else None
        return budget.larger(next_call=next_call_of(batch.reason), projected=projected)

    @property
    def hint(self) -> str | None:
        """Why nothing moves, and what to do about it; None while something does."""
        batch = self.status.batch
        if batch.state is BatchState.PAUSED:
            return f"{batch.name} is paused ({batch.reason}); {self.what_to_do}"
        return self.what_to_do

    @property
    def what_to_do(self) -> str | None:
        """The same without the reason of a pause, which the state says."""
        batch = self.status.batch
        if batch.state is BatchState.ADMITTING:
            return "if its submit was broken off, type the same command again"
        if batch.state is BatchState.PAUSED:
            remedy = self.remedy
            return f"{remedy}, then: {self.way_on}" if remedy else f"go on with: {self.way_on}"
        if batch.state is BatchState.ACTIVE and self.workers:
            return self.fault
        if batch.state is not BatchState.ACTIVE or self.alone_s < PATIENCE_S:
            return None
        if self.strangers:
            theirs = ", ".join(self.strangers)
            return f"the running workers call {theirs}, and {batch.name} is for {batch.endpoint}"
        return "no worker is running; start one with: promptmill up"


def look(database: Database, batch_id: str, bottleneck: Bottleneck, settings: Settings) -> Moment:
    """One moment, without a past: its pace is told by its newest tries. With its prediction and its failures.

    Raises:
        NotFound: there is no such batch.
    """
    seen = _see(database, batch_id)
    with database.read() as connection:
        flow = stats.flow(connection, seen.status, database_now(connection))
        failures = failures_of(connection, seen.status.batch)
    moment = _moment(seen, _pace_of(seen, flow), bottleneck, alone_s=PATIENCE_S)
    return replace(moment, prediction=_predict(database, seen.status.batch, settings), failures=failures)


def _pace_of(seen: "_Seen", flow: Flow) -> Pace:
    """As if it had been watched for so long; an answer takes the tokens that one took on average."""
    done = seen.status.batch.done
    pace = Pace()
    pace.note(0.0, done=0, tokens=0)
    pace.note(flow.seconds, done=flow.answers, tokens=seen.tokens * flow.answers // done if done else 0)
    return pace


def watch(
    database: Database, batch_id: str, settings: Settings, *, every_s: float = INTERVAL_S
) -> Iterator[Moment]:
    """Moments of a batch, one every `every_s` seconds; the last is the one in which it has ended.

    Raises:
        NotFound: there is no such batch.
    """
    pace = Pace()
    accompanied_at = time.monotonic()
    with Bottleneck(settings) as bottleneck:
        while True:
            seen, now = _see_patiently(database, batch_id), time.monotonic()
            pace.note(now, done=seen.status.batch.done, tokens=seen.tokens)
            accompanied_at = now if seen.serving else accompanied_at
            moment = _moment(seen, pace, bottleneck, alone_s=now - accompanied_at)
            if moment.stopped_by_budget:
                moment = replace(moment, prediction=_predict(database, seen.status.batch, settings))
            yield moment
            if moment.has_ended:
                return
            time.sleep(every_s)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one look at the database shows."""

    status: BatchStatus
    serving: list[WorkerRow]
    strangers: tuple[str, ...]
    resting: tuple[int, float] | None
    told_host: str | None = None
    told_fault: str | None = None

    @property
    def tokens(self) -> int:
        batch = self.status.batch
        return batch.input_tokens + batch.output_tokens + batch.cache_read_tokens + batch.cache_write_tokens


def _see_patiently(database: Database, batch_id: str) -> _Seen:
    """One look, as soon as the database can be asked: it may restart under a batch that runs for hours."""
    deadline = time.monotonic() + DATABASE_PATIENCE_S
    while True:
        try:
            return _see(database, batch_id)
        except Unavailable as error:
            if time.monotonic() > deadline:
                raise
            log.warning("database_unavailable", error=str(error))
            time.sleep(INTERVAL_S)


def _see(database: Database, batch_id: str) -> _Seen:
    with database.read() as connection:
        now = database_now(connection)
        status = stats.status(connection, batch_id, now)
        alive = workers.live(connection, now)
        resting = _resting(connection, status, now)
        told = batches.told_address(connection, batch_id) if status.batch.is_told else None
        told_fault = notices.last_fault(connection, batch_id) if status.batch.is_told else None
    endpoint = status.batch.endpoint
    return _Seen(
        status=status,
        serving=[worker for worker in alive if worker.endpoint == endpoint],
        strangers=tuple(sorted({str(worker.endpoint) for worker in alive} - {endpoint})),
        resting=resting,
        told_host=host_of(told) if told else None,
        told_fault=told_fault,
    )


def _resting(connection: Connection, status: BatchStatus, now: datetime) -> tuple[int, float] | None:
    if not 0 < status.jobs[JobState.PENDING] <= MOST_COUNTED:
        return None
    found = stats.resting(connection, status.batch.id, now)
    if found is None:
        return None
    return found.jobs, max(0.0, (found.until - now).total_seconds())


def _predict(database: Database, batch: BatchRow, settings: Settings) -> Prediction:
    """By what is known of the model that most of its prompts ask for, at the terms that they share."""
    group = Catalogue(settings.models).group_of(batch.model)
    with database.read() as connection:
        try:
            shared = batches.shared_of(connection, batch.id)
        except ConfigurationError:  # its key is lost; all else about it can be said
            shared = {}
        terms = Terms(shared.get("speed"), shared.get("inference_geo"))
        known = _known(connection, batch, limit_group(group, terms.speed))
        if batch.succeeded and terms.speed is None and not known.basis.batch:
            known = _known(connection, batch, limit_group(group, "fast"))
            terms = terms._replace(speed="fast") if known.basis.batch else terms
    return predict(batch, known, PriceBook(settings.prices), terms=terms)


def _known(connection: Connection, batch: BatchRow, group: str) -> Experience:
    kind = answered.Kind(group, batch.simulated, batch.template)
    now = database_now(connection)
    above = answered.experience_above(connection, kind, now, but=batch.id)
    return answered.experience_of(connection, batch.id, kind, above, now)


def _moment(seen: _Seen, pace: Pace, bottleneck: Bottleneck, *, alone_s: float) -> Moment:
    batch = seen.status.batch
    moves = batch.state is BatchState.ACTIVE and bool(seen.serving)
    # The answers of the first calls say how long calls take, and little of how many a second will end.
    has_pace = moves and batch.done >= seen.status.jobs[JobState.RUNNING]
    bound_by = _bound_by(seen, bottleneck) if moves else None
    return Moment(
        status=seen.status,
        workers=len(seen.serving),
        strangers=seen.strangers,
        alone_s=0.0 if seen.serving else alone_s,
        answers_per_s=pace.answers_per_s,
        tokens_per_s=pace.tokens_per_s,
        eta_s=pace.seconds_for(batch.total - batch.done) if has_pace else None,
        bound_by=bound_by,
        bound_by_default=bottleneck.is_default(bound_by),
        resting=seen.resting if moves else None,
        told_host=seen.told_host,
        told_fault=seen.told_fault,
        fault=bottleneck.fault if moves else None,
    )


def _bound_by(seen: _Seen, bottleneck: Bottleneck) -> str | None:
    jobs = seen.status.jobs
    return bottleneck.of(
        seen.status.batch,
        waiting=jobs[JobState.PENDING] + jobs[JobState.QUEUED] - (seen.resting[0] if seen.resting else 0),
        running=jobs[JobState.RUNNING],
        slots=sum(worker.slots for worker in seen.serving),
    )
