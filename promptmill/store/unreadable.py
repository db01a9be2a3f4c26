"""Jobs that this process cannot read: no key it has opens their prompt, or what that shares with its batch.

The one idea: they are looked for only among those that loading left out, so all others cost nothing more. What is
shared may be large, so it is read once for each batch.
"""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, Text, select, type_coerce

from promptmill.encryption import key_of
from promptmill.states import JobState
from promptmill.store.loading import batches_of
from promptmill.store.sealing import unseal_if_possible, vault_of
from promptmill.store.tables import job, prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableJob:
    """So much of a job as is written beside its text.

    Attributes:
        key_id: of the key that the text was sealed with; None where it names none.
        is_damaged: that key is here and does not open it, so no other worker can either.
    """

    id: str
    batch_id: str
    endpoint: str
    state: JobState
    dispatch: int
    forgiven: int
    key_id: str | None
    is_damaged: bool


def unreadable(conn: Connection, ids: Collection[str]) -> dict[str, UnreadableJob]:
    """Those of the jobs that are there and cannot be read, by id."""
    rows = conn.execute(_JOBS.where(job.c.id.in_(ids))).all()
    batches = batches_of(conn, {row.batch_id for row in rows})
    closed_shared = {each.id: each.shared for each in batches.values() if _is_closed(conn, each.shared)}
    here = vault.ids if (vault := vault_of(conn.dialect)) else ()
    found = {}
    for row in rows:
        closed = closed_shared.get(row.batch_id) or (row.body if _is_closed(conn, row.body) else None)
        if closed is not None:
            key_id = key_of(closed)
            found[row.id] = UnreadableJob(
                id=row.id,
                batch_id=row.batch_id,
                endpoint=batches[row.batch_id].endpoint,
                state=JobState(row.state),
                dispatch=row.dispatch,
                forgiven=row.forgiven,
                key_id=key_id,
                is_damaged=key_id in here,
            )
    return found


_JOBS = select(
    *(job.c.id, job.c.batch_id, job.c.state, job.c.dispatch, job.c.forgiven),
    type_coerce(prompt.c.body, Text).label("body"),
).join_from(job, prompt, prompt.c.job_id == job.c.id)


def _is_closed(conn: Connection, stored: str) -> bool:
    return unseal_if_possible(conn.dialect, stored) is None
