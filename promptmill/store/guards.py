"""Guards: what must still be true of a job that is looked up by its id before it is changed.

They are worded so that no index fits them. Postgres, whose statistics lag behind a batch just submitted,
would otherwise take the hundred jobs of a group for more work than the index of all pending ones, and read
through a million of those.
"""

from sqlalchemy import ColumnElement, and_, case, exists, literal_column, select

from promptmill.states import BatchState, JobState
from promptmill.store.tables import batch, job, reply

_STATE = job.c.state.concat(literal_column("''"))
_BATCH_STATE = select(batch.c.state).where(batch.c.id == job.c.batch_id).scalar_subquery()

BATCH_IS_ACTIVE = _BATCH_STATE == BatchState.ACTIVE

# An answer that was cut off is kept while a longer one is asked for (`outcomes.Deferral.kept`).
_HAS_ANSWER = and_(job.c.attempts > 0, exists().where(reply.c.job_id == job.c.id).correlate(job))


def ended(otherwise: ColumnElement[str] | JobState) -> ColumnElement[str]:
    """The state of a job that ends without a further answer: `succeeded` where it has one, which is paid for."""
    return case((_HAS_ANSWER, JobState.SUCCEEDED), else_=otherwise)


# Where a job goes that has to wait again: in a batch that is being canceled nothing waits any more.
PENDING_OR_CANCELED = case(
    (_BATCH_STATE == BatchState.CANCELING, ended(JobState.CANCELED)), else_=JobState.PENDING
)


def is_in(*states: JobState) -> ColumnElement[bool]:
    """The job is in one of these states."""
    return _STATE.in_(states)
