"""What the rows of a batch add up to, counted anew and without a look at the kept counters.

The one idea: two passes over the jobs of the batch, each grouped in the database into a few dozen sums, so a
million jobs cost seconds and no memory. What the sums must be equal to is said in `producers.audit_checks`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta

from sqlalchemy import Connection, Row, and_, bindparam, case, func, literal, select, text

from promptmill.retries import TRUNCATED
from promptmill.states import JobState
from promptmill.store.guards import is_in
from promptmill.store.ledger import OPEN, SUCCEEDED
from promptmill.store.recounting import bounded, failed, stop_reasons
from promptmill.store.rowsets import Rowset
from promptmill.store.tables import ANSWERED, attempt, job, reply
from promptmill.store.tallies import FAILED_JOBS, OUTCOME, STOP_REASON, rows_of
from promptmill.store.workers import FRESH_FOR, live


@dataclass(slots=True)
class Sums:
    """What some attempts add up to; the names are those of the counters of a batch.

    `reserved_nanos` is what was set aside for them, `priced` how many have a known cost.
    """

    attempts: int = 0
    priced: int = 0
    cost_nanos: int = 0
    reserved_nanos: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_write_tokens: int = 0
    cache_read_tokens: int = 0

    def add(self, other: "Sums") -> None:
        """Add those of other attempts."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


@dataclass(slots=True, kw_only=True)
class Counted:
    """A batch counted from its rows.

    Attributes:
        jobs: by state; every state has a count.
        replies: by the state of their job.
        replies_without_attempt: replies whose attempt is not there, is of another job, or did not succeed.
        replies_cost_nanos: what the attempts of the replies cost.
        replies_cut: of the replies, those that were cut off and kept while a longer one is, or was, asked for; by state.
        replies_cut_nanos: what their attempts cost.
        attempts_of_jobs: the sum of what each job says of the number of its attempts.
        open: attempts that are not closed; what was set aside for them is reserved.
        closed: all others, by outcome, with what those of known cost add up to.
        unknown: closed attempts of unknown cost, by outcome; `reserved_nanos` is what was set aside for them.
        without_end: open attempts that nobody will close: their job does not run under their token.
        running_without_attempt: running jobs that have no open attempt.
        running_without_worker: running jobs whose worker is not alive.
        answered_again: jobs with more than one answer that was paid, and the answers beyond the first.
        claimed_again: attempts whose request id another attempt of the batch has, but for one of each id.
        answers_without_cost: answers whose cost is not known, by the model that served them and the price list.
        told_outcomes, told_stop_reasons: what `batch_count` says, which is kept and not counted.
        told_failed, failed: jobs that ended badly by what they failed of, as kept and as counted.
        stop_reasons: of the answers that ended otherwise than by being complete, those that were kept included. Where
            a batch has more words than are kept, this and `failed` have the others under `other`, as what is told.
    """

    jobs: dict[JobState, int] = field(default_factory=lambda: dict.fromkeys(JobState, 0))
    replies: Counter[JobState] = field(default_factory=Counter)
    replies_without_attempt: int = 0
    replies_cost_nanos: int = 0
    replies_cut: Counter[JobState] = field(default_factory=Counter)
    replies_cut_nanos: int = 0
    attempts_of_jobs: int = 0
    open: Sums = field(default_factory=Sums)
    closed: dict[str, Sums] = field(default_factory=dict)
    unknown: dict[str, Sums] = field(default_factory=dict)
    without_end: int = 0
    running_without_attempt: int = 0
    running_without_worker: int = 0
    answered_again: tuple[int, int] = (0, 0)
    claimed_again: int = 0
    answers_without_cost: dict[tuple[str, str | None], int] = field(default_factory=dict)
    told_outcomes: dict[str, int] = field(default_factory=dict)
    told_stop_reasons: dict[str, int] = field(default_factory=dict)
    stop_reasons: Counter[str] = field(default_factory=Counter)
    told_failed: dict[str, int] = field(default_factory=dict)
    failed: Counter[str] = field(default_factory=Counter)

    @property
    def all_closed(self) -> Sums:
        """All closed attempts together."""
        return _together(self.closed.values())

    @property
    def all_unknown(self) -> Sums:
        """All closed attempts of unknown cost together."""
        return _together(self.unknown.values())


def count(conn: Connection, batch_id: str, now: datetime, fresh_for: timedelta = FRESH_FOR) -> Counted:
    """Count the rows of a batch; `conn` must see one moment of the database (`Database.read`).

    Args:
        conn: a transaction that reads.
        batch_id: which batch; one that is not there has no rows.
        now: the database's time.
        fresh_for: how old a heartbeat may be for its worker to be alive.
    """
    counted = Counted()
    for row in conn.execute(_JOBS, {"of_batch": batch_id}):
        _add_jobs(counted, row)
    in_hand = 0
    for row in conn.execute(_ATTEMPTS, {"of_batch": batch_id}):
        in_hand += _add_attempts(counted, row)
    counted.running_without_attempt = counted.jobs[JobState.RUNNING] - in_hand
    alive = {each.id for each in live(conn, now, fresh_for)}
    for worker_id, number in conn.execute(_RUNNING, {"of_batch": batch_id}):
        counted.running_without_worker += 0 if worker_id in alive else number
    counted.answered_again = _pair(conn.execute(_ANSWERED_AGAIN, {"of_batch": batch_id}).one())
    counted.claimed_again = int(conn.scalar(_CLAIMED_AGAIN, {"of_batch": batch_id}) or 0)
    counted.told_outcomes = _some(rows_of(conn, batch_id, OUTCOME))
    told = rows_of(conn, batch_id, STOP_REASON)
    counted.told_stop_reasons = _some(told)
    counted.stop_reasons = bounded(STOP_REASON, stop_reasons(conn, batch_id), told)
    told = rows_of(conn, batch_id, FAILED_JOBS)
    counted.told_failed = _some(told)
    counted.failed = bounded(FAILED_JOBS, failed(conn, batch_id), told)
    if SUCCEEDED in counted.unknown:
        for model, prices, number in conn.execute(_WITHOUT_COST, {"of_batch": batch_id}):
            counted.answers_without_cost[model, prices] = number
    return counted


def queued_among(conn: Connection, job_ids: Iterable[str]) -> int:
    """How many of these ids are of jobs that are `queued`."""
    query = select(func.count()).where(_IDS.among(conn.dialect.name, job.c.id), is_in(JobState.QUEUED))
    return conn.scalar(query, _IDS.parameters((each,) for each in job_ids)) or 0


_IDS = Rowset(job.c.id)
_IN_BATCH = job.c.batch_id == bindparam("of_batch")
_HAS_REPLY = case((reply.c.job_id.is_not(None), 1), else_=0)
_ANSWERED = attempt.c.outcome.in_([SUCCEEDED, TRUNCATED])
_HAS_ATTEMPT = case((and_(attempt.c.job_id == job.c.id, _ANSWERED), 1), else_=0)
_IS_CUT = case((and_(attempt.c.job_id == job.c.id, attempt.c.outcome == TRUNCATED), 1), else_=0)
_JOBS = (
    select(
        job.c.state,
        _HAS_REPLY.label("has_reply"),
        _HAS_ATTEMPT.label("has_attempt"),
        _IS_CUT.label("is_cut"),
        func.count().label("jobs"),
        func.sum(job.c.attempts).label("attempts"),
        func.sum(attempt.c.cost_nanos).label("cost_nanos"),
    )
    .select_from(job)
    .outerjoin(reply, reply.c.job_id == job.c.id)
    .outerjoin(attempt, attempt.c.id == reply.c.attempt_id)
    .where(_IN_BATCH)
    .group_by(job.c.state, _HAS_REPLY, _HAS_ATTEMPT, _IS_CUT)
)
_IN_HAND = case((and_(job.c.state == JobState.RUNNING, job.c.token == attempt.c.token), 1), else_=0)
_PRICED = case((attempt.c.cost_nanos.is_not(None), 1), else_=0)
_ATTEMPTS = (
    select(
        attempt.c.outcome,
        _IN_HAND.label("in_hand"),
        _PRICED.label("is_priced"),
        func.count().label("attempts"),
        func.sum(_PRICED).label("priced"),
        func.sum(attempt.c.cost_nanos).label("cost_nanos"),
        func.sum(attempt.c.reserved_nanos).label("reserved_nanos"),
        func.sum(attempt.c.input_tokens).label("input_tokens"),
        func.sum(attempt.c.output_tokens).label("output_tokens"),
        func.sum(attempt.c.cache_write_5m_tokens + attempt.c.cache_write_1h_tokens).label(
            "cache_write_tokens"
        ),
        func.sum(attempt.c.cache_read_tokens).label("cache_read_tokens"),
    )
    .join_from(job, attempt, and_(attempt.c.job_id == job.c.id, attempt.c.batch_id == job.c.batch_id))
    .where(_IN_BATCH)
    .group_by(attempt.c.outcome, _IN_HAND, _PRICED)
)
_RUNNING = (
    select(job.c.worker_id, func.count())
    .where(_IN_BATCH, job.c.state == literal(JobState.RUNNING))
    .group_by(job.c.worker_id)
)
_AGAIN = (
    select((func.count() - 1).label("beyond_first"))
    .join_from(job, attempt, attempt.c.job_id == job.c.id)
    .where(_IN_BATCH, job.c.attempts > 1, attempt.c.outcome == SUCCEEDED)
    .group_by(job.c.id)
    .having(func.count() > 1)
    .subquery()
)
_ANSWERED_AGAIN = select(func.count(), func.sum(_AGAIN.c.beyond_first))

_CLAIMED = (
    select(
        (func.count() - 1).label("beyond_first")
    )  # sorted: a quarter of the time of a count of distinct ids
    .join_from(job, attempt, attempt.c.job_id == job.c.id)
    .where(_IN_BATCH, attempt.c.request_id.is_not(None))
    .group_by(attempt.c.request_id)
    .having(func.count() > 1)
    .subquery()
)
_CLAIMED_AGAIN = select(func.sum(_CLAIMED.c.beyond_first))
_SERVED_BY = func.coalesce(reply.c.model, attempt.c.model)
_WITHOUT_COST = (
    select(_SERVED_BY, attempt.c.price_version, func.count())
    .select_from(attempt)
    .outerjoin(reply, reply.c.attempt_id == attempt.c.id)
    .where(attempt.c.batch_id == bindparam("of_batch"), text(ANSWERED), attempt.c.cost_nanos.is_(None))
    .group_by(_SERVED_BY, attempt.c.price_version)
)


def _add_jobs(counted: Counted, row: Row[tuple[object, ...]]) -> None:
    state = JobState(row.state)
    counted.jobs[state] += row.jobs
    counted.attempts_of_jobs += int(row.attempts)
    if row.has_reply:
        counted.replies[state] += row.jobs
        counted.replies_without_attempt += 0 if row.has_attempt else row.jobs
        counted.replies_cost_nanos += int(row.cost_nanos or 0)
        if row.is_cut:
            counted.replies_cut[state] += row.jobs
            counted.replies_cut_nanos += int(row.cost_nanos or 0)


def _add_attempts(counted: Counted, row: Row[tuple[object, ...]]) -> int:
    """Add one group; the number of attempts in it that are open and in the hands of who runs the job."""
    sums = Sums(**{each.name: int(getattr(row, each.name) or 0) for each in fields(Sums)})
    if row.outcome == OPEN:
        counted.open.add(sums)
        counted.without_end += 0 if row.in_hand else sums.attempts
        return sums.attempts if row.in_hand else 0
    counted.closed.setdefault(row.outcome, Sums()).add(sums)
    if not row.is_priced:
        counted.unknown.setdefault(row.outcome, Sums()).add(sums)
    return 0


def _some(told: dict[str, int]) -> dict[str, int]:
    return {word: number for word, number in told.items() if number}


def _together(sums: Iterable[Sums]) -> Sums:
    whole = Sums()
    for each in sums:
        whole.add(each)
    return whole


def _pair(row: Sequence[int | None]) -> tuple[int, int]:
    first, second = (int(value or 0) for value in row)
    return first, second
