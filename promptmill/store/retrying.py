"""Retrying by hand: jobs that ended without an answer go back to `pending`, and their batch goes on.

What was tried before is forgiven (`job.forgiven`), so every count starts anew; the attempts and what they cost
stay in the ledger. A job that succeeded is never among them: it would be paid for twice, and its reply would
outlive it. A large batch is done page by page, in short transactions, in the order of submission, so a job
that ends again meanwhile is not taken a second time.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, Update, and_, bindparam, func, or_, select, update

from promptmill.errors import InvalidTransition
from promptmill.states import BatchState, JobState
from promptmill.store import batches, control
from promptmill.store.columns import UTCDateTime
from promptmill.store.guards import is_in
from promptmill.store.purging import why_gone
from promptmill.store.rowsets import Rowset
from promptmill.store.tables import FAILED_OF, NO_FAILURE, NOTICE_AGAIN, batch, job
from promptmill.store.tallies import FAILED_JOBS, Tallies, add, failed_of

MOST_AT_ONCE = 5_000
"""Jobs taken up in one transaction, for which other writers wait: under 0.2 s on SQLite and on Postgres."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs to be retried; `last_seq` is where the next page begins."""

    ids: tuple[str, ...]
    last_seq: int


def page_to_retry(
    conn: Connection,
    batch_id: str,
    states: Collection[JobState],
    *,
    kinds: Collection[str] = (),
    after_seq: int = -1,
) -> Page | None:
    """The next jobs of a batch that ended in one of those states, or errored of one of those kinds.

    None when there is none behind `after_seq`.
    """
    values = {"of_batch": batch_id, "after": after_seq}
    rows = conn.execute(_ended(frozenset(states), frozenset(kinds)), values).all()
    return Page(tuple(row.id for row in rows), rows[-1].seq) if rows else None


def retry(
    conn: Connection, batch_id: str, ids: Collection[str], states: Iterable[JobState], now: datetime
) -> int:
    """Those of the jobs that are still in one of the states become `pending`; how many.

    An ended batch becomes `active` with the first of them, a paused one stays paused.

    Raises:
        InvalidTransition: the batch takes no jobs up now, or was canceled half-way, or its deadline has passed.
        NotFound: there is no such batch.
    """
    state = control.lock(conn, batch_id)
    _check(batches.get(conn, batch_id), now)
    tallies, retried = Tallies(), 0
    wanted, wanted_states = _IDS.parameters(((each,) for each in ids), now=now), frozenset(states)
    for row in conn.execute(_failed(conn.dialect.name), wanted):
        if row.state in wanted_states:
            word = failed_of(JobState(row.state), *(getattr(row, name) for name in FAILED_OF))
            tallies[batch_id].words[FAILED_JOBS, word] -= row.jobs
    for ended in wanted_states:
        if taken_up := conn.execute(_take_up(conn.dialect.name, ended), wanted).rowcount:
            tallies[batch_id].count(ended, -taken_up)
            retried += taken_up
    if not retried:
        return 0
    if state is BatchState.ENDED:
        conn.execute(
            update(batch)
            .where(batch.c.id == batch_id)
            .values(state=BatchState.ACTIVE, ended_at=None, **NOTICE_AGAIN)
        )
    add(conn, tallies, now)
    return retried


def _check(row: batches.BatchRow, now: datetime) -> None:
    if row.state is BatchState.ADMITTING:
        raise InvalidTransition(f"{row.name} is not whole yet: submit its file again first")
    if row.state is BatchState.CANCELING:
        raise InvalidTransition(f"{row.name} is being canceled: wait until it has ended")
    if row.was_cut:
        raise InvalidTransition(
            f"{row.name} was canceled half-way, with {row.total:,} prompts and not all: submit with --new"
        )
    if why := why_gone(row):
        raise InvalidTransition(f"{why}: submit its file again with --new")
    if row.deadline is not None and row.deadline <= now:
        raise InvalidTransition(
            f"the deadline of {row.name} passed at {row.deadline:%Y-%m-%d %H:%M} UTC, so its jobs would expire at once; give it "
            f"another with: promptmill set {row.name} --deadline 24h (or none)"
        )


_IDS = Rowset(job.c.id)


@cache
def _ended(states: frozenset[JobState], kinds: frozenset[str]) -> Select[Any]:
    wanted = is_in(*states)
    if kinds:
        wanted = or_(wanted, and_(is_in(JobState.ERRORED), job.c.error_kind.in_(kinds)))
    return (
        select(job.c.seq, job.c.id)
        .where(job.c.batch_id == bindparam("of_batch"), job.c.seq > bindparam("after"), wanted)
        .order_by(job.c.seq)
        .limit(MOST_AT_ONCE)
    )


@cache
def _failed(dialect: str) -> Select[Any]:
    """What the jobs of a page failed of, counted."""
    words = (job.c.state, *(job.c[name] for name in FAILED_OF))
    return (
        select(*words, func.count().label("jobs"))
        .where(_IDS.among(dialect, job.c.id), is_in(JobState.ERRORED, JobState.EXPIRED))
        .group_by(*words)
    )


@cache
def _take_up(dialect: str, ended: JobState) -> Update:
    return (
        update(job)
        .where(_IDS.among(dialect, job.c.id), is_in(ended))
        .values(
            state=JobState.PENDING,
            forgiven=job.c.attempts,
            not_before=None,
            **NO_FAILURE,
            changed_at=bindparam("now", type_=UTCDateTime()),
        )
    )
