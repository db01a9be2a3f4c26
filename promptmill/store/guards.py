"""Guards: what must still be true of a job that is looked up by its id before it is changed.

They are worded so that no index fits them. Postgres, whose statistics lag behind a batch just submitted,
would otherwise take the hundred jobs of a group for more work than the index of all pending ones, and read
through a million of those.
"""

from sqlalchemy import ColumnElement, case, literal_column, select

from promptmill.states import BatchState, JobState
from promptmill.store.tables import batch, job

_STATE = job.c.state.concat(literal_column("''"))
_BATCH_STATE = select(batch.c.state).where(batch.c.id == job.c.batch_id).scalar_subquery()

BATCH_IS_ACTIVE = _BATCH_STATE == BatchState.ACTIVE

# Where a job goes that has to wait again: in a batch that is being canceled nothing waits any more.
PENDING_OR_CANCELED = case((_BATCH_STATE == BatchState.CANCELING, JobState.CANCELED), else_=JobState.PENDING)


def is_in(*states: JobState) -> ColumnElement[bool]:
    """The job is in one of these states."""
    return _STATE.in_(states)
