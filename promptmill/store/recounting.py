"""What a batch counts word by word, counted anew from its rows; and put right, where a person asks for it.

The one idea: `batch_count` is kept, not counted, so what an older version, or a hand, wrote beside it stays wrong until
somebody counts. The audit says where it differs.
"""

from collections import Counter
from collections.abc import Collection, Mapping

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, func, select, text

from promptmill.retries import TRUNCATED
from promptmill.states import JobState
from promptmill.store import control
from promptmill.store.ledger import COMPLETE
from promptmill.store.tables import (
    ANSWERED,
    ENDED_BADLY,
    FAILED_OF,
    FAILED_TRIES,
    attempt,
    batch_count,
    job,
    reply,
)
from promptmill.store.tallies import (
    FAILED_JOBS,
    LONGEST_WORD,
    MOST_WORDS,
    OUTCOME,
    STOP_REASON,
    add_words,
    failed_of,
    kept_as,
)


def recount(conn: Connection, batch_id: str) -> None:
    """Put the rows of `batch_count` right; whoever reports on this batch waits for it, seconds for a million jobs.

    Raises:
        NotFound: there is no such batch.
    """
    control.lock(conn, batch_id)
    found = {
        OUTCOME: outcomes(conn, batch_id),
        STOP_REASON: stop_reasons(conn, batch_id),
        FAILED_JOBS: failed(conn, batch_id),
    }
    conn.execute(delete(batch_count).where(batch_count.c.batch_id == batch_id))
    counted = {
        (batch_id, what, word): number
        for what, words in found.items()
        for word, number in bounded(what, words, _largest(words)).items()
    }
    if counted:
        add_words(conn, counted)


def bounded(what: str, words: Mapping[str, int], kept: Collection[str]) -> Counter[str]:
    """Those that a batch counts by themselves, and the others together."""
    together: Counter[str] = Counter()
    for word, number in words.items():
        together[kept_as(what, word, kept)] += number
    return together


def outcomes(conn: Connection, batch_id: str) -> Counter[str]:
    """Closed attempts that did not succeed, by outcome."""
    return Counter({row[0]: row[1] for row in conn.execute(_OUTCOMES, {"of_batch": batch_id})})


def stop_reasons(conn: Connection, batch_id: str) -> Counter[str]:
    """Answers that ended otherwise than by being complete, those that were cut off and kept included."""
    found: Counter[str] = Counter()
    for statement in (_STOPPED, _KEPT):
        for reason, number in conn.execute(statement, {"of_batch": batch_id}):
            found[reason] += number
    return found


def failed(conn: Connection, batch_id: str) -> Counter[str]:
    """Jobs that ended badly, by `tallies.failed_of`."""
    rows = conn.execute(_FAILED, {"of_batch": batch_id})
    return Counter({failed_of(JobState(state), *said): number for state, *said, number in rows})


def _largest(words: Counter[str]) -> set[str]:
    return {word for word, _ in words.most_common(MOST_WORDS)}


def _ended_with(reason: ColumnElement[str | None]) -> ColumnElement[str]:
    """Cut as `as_word` does: rows of older versions may hold a longer one."""
    return func.substr(reason, 1, LONGEST_WORD)


_IS_OF_BATCH = attempt.c.batch_id == bindparam("of_batch")
_SAID = (job.c.state, *(job.c[name] for name in FAILED_OF))
_FAILED = (
    select(*_SAID, func.count())
    .where(job.c.batch_id == bindparam("of_batch"), text(ENDED_BADLY))
    .group_by(*_SAID)
)
_OUTCOMES = (
    select(attempt.c.outcome, func.count())
    .where(_IS_OF_BATCH, text(FAILED_TRIES))
    .group_by(attempt.c.outcome)
)
_STOPPED = (
    select(_ended_with(attempt.c.stop_reason).label("reason"), func.count())
    .where(_IS_OF_BATCH, text(ANSWERED), attempt.c.stop_reason.not_in(COMPLETE))
    .group_by(text("reason"))
)
# Answers that were cut off, asked again with more room, and kept because no longer one came.
_KEPT = (
    select(_ended_with(reply.c.stop_reason).label("reason"), func.count())
    .join_from(attempt, reply, and_(reply.c.job_id == attempt.c.job_id, reply.c.attempt_id == attempt.c.id))
    .join(job, job.c.id == reply.c.job_id)
    .where(
        _IS_OF_BATCH,
        text(FAILED_TRIES),
        attempt.c.outcome == TRUNCATED,
        job.c.state == JobState.SUCCEEDED,
        reply.c.stop_reason.not_in(COMPLETE),
    )
    .group_by(text("reason"))
)
