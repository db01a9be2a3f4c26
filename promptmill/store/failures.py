"""What failed, in groups: jobs that ended without an answer by what they failed of, with one job of each to look at.

One pass over the narrow rows of the jobs, and only in a batch whose counters say that there are such jobs.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, func, select, text

from promptmill.advice import advice_for
from promptmill.retries import TRUNCATED
from promptmill.states import JobState
from promptmill.store.tables import ANSWERED, FAILED, attempt, job, reply

MOST_GROUPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureGroup:
    """Jobs that ended for the same reason.

    Attributes:
        jobs: how many.
        state: `errored` or `expired`.
        kind: what the jobs were given up for; the state's own word where nothing failed before.
        status, type, code: what the server said, where it said something.
        custom_id: of the first such job.
        attempts: how often that one was tried.
        message, request_id: of its last attempt.
    """

    jobs: int
    state: JobState
    kind: str
    status: int | None
    type: str | None
    code: str | None
    custom_id: str
    attempts: int
    message: str | None
    request_id: str | None

    @property
    def advice(self) -> str:
        """What a person can do about them, in a sentence."""
        kind = self.kind if self.state is JobState.ERRORED else self.state.value
        return advice_for(kind, status=self.status, error_code=self.code)


def groups(conn: Connection, batch_id: str) -> Sequence[FailureGroup]:
    """The jobs of a batch that errored or expired, in at most MOST_GROUPS groups, the largest first."""
    found = conn.execute(_GROUPS, {"of_batch": batch_id}).all()
    places = [row.first_seq for row in found]
    samples = {row.seq: row for row in conn.execute(_SAMPLES, {"of_batch": batch_id, "places": places})}
    return [_group(row, samples[row.first_seq]) for row in found]


def stop_reasons(conn: Connection, batch_id: str) -> dict[str, int]:
    """How many answers ended otherwise than by being complete: by `refusal`, `max_tokens` or another word."""
    found = Counter[str]()
    for statement in (_STOPPED, _KEPT):
        for reason, number in conn.execute(statement, {"of_batch": batch_id}):
            found[reason] += number
    return dict(found)


_COMPLETE = ("end_turn", "stop_sequence", "tool_use")
_STOPPED = (
    select(attempt.c.stop_reason, func.count())
    .where(
        attempt.c.batch_id == bindparam("of_batch"), text(ANSWERED), attempt.c.stop_reason.not_in(_COMPLETE)
    )
    .group_by(attempt.c.stop_reason)
    .order_by(attempt.c.stop_reason)
)
# Answers that were cut off, asked again with more room, and kept because no longer one came.
_KEPT = (
    select(reply.c.stop_reason, func.count())
    .join_from(attempt, reply, and_(reply.c.job_id == attempt.c.job_id, reply.c.attempt_id == attempt.c.id))
    .join(job, job.c.id == reply.c.job_id)
    .where(
        attempt.c.batch_id == bindparam("of_batch"),
        text(FAILED),
        attempt.c.outcome == TRUNCATED,
        job.c.state == JobState.SUCCEEDED,
    )
    .group_by(reply.c.stop_reason)
)
_LAST = and_(attempt.c.job_id == job.c.id, attempt.c.number == job.c.attempts)
_WORDS = (job.c.state, job.c.error_kind, attempt.c.status, attempt.c.error_type, attempt.c.error_code)
_GROUPS = (
    select(*_WORDS, func.count().label("jobs"), func.min(job.c.seq).label("first_seq"))
    .select_from(job)
    .outerjoin(attempt, and_(_LAST, attempt.c.outcome == job.c.error_kind))
    .where(job.c.batch_id == bindparam("of_batch"), job.c.state.in_([JobState.ERRORED, JobState.EXPIRED]))
    .group_by(*_WORDS)
    .order_by(func.count().desc(), func.min(job.c.seq))
    .limit(MOST_GROUPS)
)
_SAMPLES = (
    select(job.c.seq, job.c.custom_id, job.c.attempts, attempt.c.error_message, attempt.c.request_id)
    .select_from(job)
    .outerjoin(attempt, and_(_LAST, attempt.c.outcome == job.c.error_kind))
    .where(job.c.batch_id == bindparam("of_batch"), job.c.seq.in_(bindparam("places", expanding=True)))
)


def _group(row: Row[*tuple[Any, ...]], sample: Row[*tuple[Any, ...]]) -> FailureGroup:
    state = JobState(row.state)
    return FailureGroup(
        jobs=row.jobs,
        state=state,
        kind=row.error_kind or state.value,
        status=row.status,
        type=row.error_type,
        code=row.error_code,
        custom_id=sample.custom_id,
        attempts=sample.attempts,
        message=sample.error_message,
        request_id=sample.request_id,
    )
