"""What failed, in groups: jobs that ended without an answer by what they failed of, with one job of each to look at.

The counts are kept (`batch_count`); a job to look at is the first of its group in an index of such jobs alone.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Dialect, Row, Select, Text, and_, bindparam, select, text, type_coerce

from promptmill.advice import advice_for
from promptmill.states import JobState
from promptmill.store.sealing import unseal_if_possible
from promptmill.store.tables import ENDED_BADLY, FAILED_OF, attempt, job
from promptmill.store.tallies import FAILED_JOBS, STOP_REASON, words_of

MOST_GROUPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureGroup:
    """Jobs that ended for the same reason.

    Attributes:
        jobs: how many.
        state: `errored` or `expired`.
        kind: what the jobs were given up for; the state's own word where nothing failed before.
        status, type, code: what the server said, where it said something.
        custom_id: of the first such job; None where the count is kept and no such job is found.
        attempts: how often that one was tried.
        message, request_id: of its last attempt; no message where no key opens it.
    """

    jobs: int
    state: JobState
    kind: str
    status: int | None
    type: str | None
    code: str | None
    custom_id: str | None
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
    counts = Counter(words_of(conn, batch_id, FAILED_JOBS))
    found = [(jobs, _said(word)) for word, jobs in counts.most_common(MOST_GROUPS)]
    samples = [(jobs, said, _sample(conn, batch_id, said)) for jobs, said in found]
    samples.sort(key=lambda each: (-each[0], each[2].seq if each[2] else 0))
    return [_group(conn.dialect, *each) for each in samples]


def stop_reasons(conn: Connection, batch_id: str) -> dict[str, int]:
    """How many answers ended otherwise than by being complete: by `refusal`, `max_tokens` or another word."""
    return words_of(conn, batch_id, STOP_REASON)


_LAST = and_(attempt.c.job_id == job.c.id, attempt.c.number == job.c.attempts)
_PLACE = ("state", *FAILED_OF)


def _said(word: str) -> dict[str, Any]:
    """What `tallies.failed_of` made the word of."""
    return dict(zip(_PLACE, json.loads(word), strict=True))


def _sample(conn: Connection, batch_id: str, said: Mapping[str, Any]) -> Row[*tuple[Any, ...]] | None:
    """The first job of a group, one look into the index; None where the count is off, or of `other` reasons."""
    known = {name: value for name, value in said.items() if value is not None}
    return conn.execute(_sample_of(frozenset(known)), {"of_batch": batch_id, **known}).one_or_none()


@cache
def _sample_of(known: frozenset[str]) -> Select[*tuple[Any, ...]]:
    """What is not known is NULL, which no parameter can say."""
    is_such = [job.c[name] == bindparam(name) if name in known else job.c[name].is_(None) for name in _PLACE]
    message = type_coerce(attempt.c.error_message, Text).label("error_message")
    return (
        select(job.c.seq, job.c.custom_id, job.c.attempts, message, attempt.c.request_id)
        .select_from(job)
        .outerjoin(attempt, and_(_LAST, attempt.c.outcome == job.c.error_kind))
        .where(job.c.batch_id == bindparam("of_batch"), text(ENDED_BADLY), *is_such)
        # In the order of its index to the last column, the NULLs among them too: Postgres would sort the group otherwise.
        .order_by(*(job.c[name] for name in _PLACE), job.c.seq)
        .limit(1)
        # Without statistics SQLite would rather walk through the batch in its order.
        .with_hint(job, "INDEXED BY job_failed", "sqlite")
    )


def _group(
    dialect: Dialect, jobs: int, said: Mapping[str, Any], sample: Row[*tuple[Any, ...]] | None
) -> FailureGroup:
    state = JobState(said["state"])
    return FailureGroup(
        jobs=jobs,
        state=state,
        kind=said["error_kind"] or state.value,
        status=said["error_status"],
        type=said["error_type"],
        code=said["error_code"],
        custom_id=sample.custom_id if sample else None,
        attempts=sample.attempts if sample else 0,
        message=unseal_if_possible(dialect, sample.error_message) if sample else None,
        request_id=sample.request_id if sample else None,
    )
