"""Jobs that this process cannot read: no key it has opens their prompt, or what that shares with its batch.

The one idea: they are looked for only among those that loading left out, so all others cost nothing more.
"""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, Text, select, type_coerce

from promptmill.encryption import key_of
from promptmill.states import JobState
from promptmill.store.sealing import unseal_if_possible
from promptmill.store.tables import batch, job, prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableJob:
    """So much of a job as is written beside its text.

    Attributes:
        key_id: of the key that is missing here; None where the text names none.
    """

    id: str
    batch_id: str
    endpoint: str
    state: JobState
    dispatch: int
    forgiven: int
    key_id: str | None


def unreadable(conn: Connection, ids: Collection[str]) -> dict[str, UnreadableJob]:
    """Those of the jobs that are there and cannot be read, by id."""
    texts = type_coerce(prompt.c.body, Text).label("body"), type_coerce(batch.c.shared, Text).label("shared")
    query = (
        select(
            job.c.id, job.c.batch_id, batch.c.endpoint, job.c.state, job.c.dispatch, job.c.forgiven, *texts
        )
        .join_from(job, prompt, prompt.c.job_id == job.c.id)
        .join(batch, batch.c.id == job.c.batch_id)
        .where(job.c.id.in_(ids))
    )
    found = {}
    for row in conn.execute(query):
        for stored in (row.body, row.shared):
            if unseal_if_possible(conn.dialect, stored) is None:
                found[row.id] = UnreadableJob(
                    id=row.id,
                    batch_id=row.batch_id,
                    endpoint=row.endpoint,
                    state=JobState(row.state),
                    dispatch=row.dispatch,
                    forgiven=row.forgiven,
                    key_id=key_of(stored),
                )
    return found
