"""Tallies: what one commit adds to the counters of its batches, in one statement.

Whoever changes jobs of a batch holds the lock on its row, taken in the order of the ids. So two writers
never wait for each other in a ring, and the counters of a batch change in one order, which lets exactly
one update be the one that reaches the total and ends it.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cache
from operator import attrgetter
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Insert,
    Row,
    Select,
    Update,
    and_,
    bindparam,
    case,
    column,
    func,
    literal,
    null,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from promptmill.budgets import Budget
from promptmill.states import TERMINAL_JOB_STATES, BatchState, JobState
from promptmill.store.columns import UTCDateTime, json_text, storable
from promptmill.store.prepared import Prepared
from promptmill.store.rowsets import Rowset, among
from promptmill.store.tables import FAILED_OF, NOTICE_AGAIN, SERVED, batch, batch_count, job
from promptmill.usage import Usage

OUTCOME = "outcome"
STOP_REASON = "stop_reason"
FAILED_JOBS = "failed"
"""What `batch_count` counts."""
_SAID_BY_SERVERS = (STOP_REASON, FAILED_JOBS)
MOST_WORDS = 50
"""Words a batch has of each of these: a server that names every call anew must not make a row for each."""
OTHER = "other"
"""The word for all that come after them."""
MAX_TOKENS = "max_tokens"
LONGEST_WORD = 100
"""Characters of what a server calls something: such words are in indexes, whose entries Postgres bounds (2,704 bytes)."""


@dataclass(slots=True)
class Tally:
    """What is added to one batch; the names are those of its columns. A negative number takes away.

    `started_at` is set where the batch has none yet. `words` are added to the rows of `batch_count`, by (what, word).
    """

    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_write_tokens: int = 0
    cache_read_tokens: int = 0
    attempts: int = 0
    unpriced_attempts: int = 0
    cost_nanos: int = 0
    reserved_nanos: int = 0
    formula_tokens_answered: int = 0
    unknown_nanos: int = 0
    started_at: datetime | None = None
    words: Counter[tuple[str, str]] = field(default_factory=Counter)

    def count(self, state: JobState, number: int = 1) -> None:
        """So many more jobs have ended in a terminal state."""
        setattr(self, state.value, getattr(self, state.value) + number)

    def end(self, job: Row[Any]) -> None:
        """One more job has ended without a further answer; the row gives the columns of ENDED.

        Where it has succeeded all the same, it has an answer that was cut off at `max_tokens` and kept.
        """
        state = JobState(job.state)
        self.count(state)
        if state is JobState.SUCCEEDED:
            self.formula_tokens_answered += job.estimated_input_tokens
            self.words[STOP_REASON, MAX_TOKENS] += 1
        elif state is not JobState.CANCELED:
            said = (job.error_kind, job.error_status, job.error_type, job.error_code)
            self.words[FAILED_JOBS, failed_of(state, *said)] += 1

    @property
    def done(self) -> int:
        """Jobs that have ended, whatever their outcome."""
        return self.succeeded + self.errored + self.canceled + self.expired

    def use(self, usage: Usage) -> None:
        """Add the tokens of one attempt."""
        self.input_tokens += usage.input_tokens
        self.output_tokens += usage.output_tokens
        self.cache_write_tokens += usage.cache_write_tokens
        self.cache_read_tokens += usage.cache_read_tokens


def failed_of(
    state: JobState,
    kind: str | None,
    status: int | None = None,
    type_: str | None = None,
    code: str | None = None,
) -> str:
    """The word under which a job is counted that ended so, of that; `json.loads` reads it."""
    return json_text([state.value, kind, status, type_, code])


def kept_as(what: str, word: str, kept: Collection[str]) -> str:
    """The word under which a word is counted in a batch that counts those of `kept` already.

    What was counted under `other` stays there, because no row of `batch_count` ever goes.
    """
    if what not in _SAID_BY_SERVERS or word in kept or len(kept) < MOST_WORDS:
        return word
    return OTHER if what == STOP_REASON else failed_of(JobState(json.loads(word)[0]), OTHER)


def as_word(text: str | None) -> str | None:
    """What a server calls something (a type, a code, a stop reason), cut to LONGEST_WORD and storable."""
    return None if text is None else storable(text[:LONGEST_WORD])


class Tallies(defaultdict[str, Tally]):
    """One Tally for each batch that is named."""

    def __init__(self) -> None:
        super().__init__(Tally)


_COUNTERS = tuple(each.name for each in fields(Tally) if each.name not in ("started_at", "words"))
_values_of = attrgetter(*_COUNTERS, "started_at")
_TALLIES = Rowset(batch.c.id, *(column(name, BigInteger) for name in _COUNTERS), batch.c.started_at)
_IDS = Rowset(job.c.id)
ENDED = (job.c.batch_id, job.c.state, job.c.estimated_input_tokens, *(job.c[name] for name in FAILED_OF))
"""What `Tally.end` wants to know of a job."""
_TERMINAL = sorted(state.value for state in TERMINAL_JOB_STATES)


def lock_batches_of(conn: Connection, job_ids: Iterable[str]) -> None:
    """Hold the rows of all batches that these jobs belong to, until the transaction ends.

    A transaction that calls several functions of the store does this first, once for all their jobs.
    """
    if conn.dialect.name != "sqlite":  # whose transactions that write hold the whole database
        _LOCK.run(conn, _IDS.parameters((each,) for each in job_ids))


def lock_budgets_of(conn: Connection, job_ids: Iterable[str]) -> dict[str, Budget]:
    """The same, and the budgets of batches that have one, by batch; on SQLite also those of other batches.

    One statement on either database, so batches without a budget pay nothing noticeable.
    """
    if conn.dialect.name == "sqlite":
        rows = _BUDGETS.run(conn, {}).all()
    else:
        rows = _LOCK_BUDGETS.run(conn, _IDS.parameters((each,) for each in job_ids)).all()
    return {row.id: Budget(*tuple(row)[1:]) for row in rows if row.budget_nanos is not None}


def add(conn: Connection, tallies: Tallies, now: datetime) -> None:
    """Add to the counters of the batches, by id; a batch that is complete, and sealed or canceled, ends."""
    if tallies:
        rows = ((batch_id, *_values_of(tallies[batch_id])) for batch_id in sorted(tallies))
        _ADD.run(conn, _TALLIES.parameters(rows, now=now))
    counted = {
        (batch_id, *word): number for batch_id in tallies for word, number in _words(tallies[batch_id])
    }
    if counted:
        add_words(conn, _within_bounds(conn, counted))


def add_words(conn: Connection, counted: Mapping[tuple[str, str, str], int]) -> None:
    """Add to rows of `batch_count`, by batch, what and word; the batches are locked."""
    names = ("batch_id", "what", "word", "number")
    rows = [dict(zip(names, (*place, number), strict=True)) for place, number in counted.items()]
    conn.execute(_add_words(conn.dialect.name), rows)


def words_of(conn: Connection, batch_id: str, what: str) -> dict[str, int]:
    """What is counted of a batch word by word: how many of each; what there is none of is left out."""
    return {word: number for word, number in rows_of(conn, batch_id, what).items() if number > 0}


def rows_of(conn: Connection, batch_id: str, what: str) -> dict[str, int]:
    """The same as it is stored, also what came to nothing."""
    return {row.word: row.number for row in conn.execute(_WORDS, {"of_batch": batch_id, "what": what})}


def _words(tally: Tally) -> list[tuple[tuple[str, str], int]]:
    return [(word, number) for word, number in tally.words.items() if number]


def _within_bounds(
    conn: Connection, counted: Mapping[tuple[str, str, str], int]
) -> Mapping[tuple[str, str, str], int]:
    """The same with `other` in the place of words that are one too many."""
    spoken = sorted({batch_id for batch_id, what, _ in counted if what in _SAID_BY_SERVERS})
    if not spoken:
        return counted
    kept: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for row in _KEPT.run(conn, _IDS.parameters((each,) for each in spoken)):
        kept[row.batch_id, row.what].add(row.word)
    bounded: Counter[tuple[str, str, str]] = Counter()
    for (batch_id, what, word), number in counted.items():
        own = kept_as(what, word, kept[batch_id, what])
        kept[batch_id, what].add(own)
        bounded[batch_id, what, own] += number
    return bounded


_OWNERS = select(job.c.batch_id).where(_IDS.among("postgresql", job.c.id))
_WORDS = (
    select(batch_count.c.word, batch_count.c.number)
    .where(batch_count.c.batch_id == bindparam("of_batch"), batch_count.c.what == bindparam("what"))
    .order_by(batch_count.c.word)
)
_KEPT = Prepared(
    lambda dialect: select(batch_count.c.batch_id, batch_count.c.what, batch_count.c.word).where(
        _IDS.among(dialect, batch_count.c.batch_id), batch_count.c.what.in_(_SAID_BY_SERVERS)
    )
)
_BUDGET = (batch.c.budget_nanos, batch.c.cost_nanos, batch.c.reserved_nanos, batch.c.unknown_nanos)
_BUDGETS = Prepared(
    lambda _: select(batch.c.id, *_BUDGET).where(text(SERVED), batch.c.budget_nanos.is_not(None))
)


def _locked(*columns: ColumnElement[Any]) -> Select[Any]:
    return (
        select(batch.c.id, *columns)
        .where(among("postgresql", batch.c.id, _OWNERS))
        .order_by(batch.c.id)
        # Not FOR UPDATE: that would also hold up whoever inserts a row that refers to the batch.
        .with_for_update(key_share=True)
    )


_LOCK = Prepared(lambda _: _locked())
_LOCK_BUDGETS = Prepared(lambda _: _locked(*_BUDGET))


def _add(dialect: str) -> Update:
    given = _TALLIES.on(dialect)
    done = sum((batch.c[name] + given.c[name] for name in _TERMINAL), start=literal(0))
    is_closed = or_(batch.c.sealed_at.is_not(None), batch.c.state == BatchState.CANCELING)
    ends = and_(text(SERVED), is_closed, done >= batch.c.total)
    now = bindparam("now", type_=UTCDateTime())
    return (
        update(batch)
        .where(batch.c.id == given.c.id)
        .values({name: batch.c[name] + given.c[name] for name in _COUNTERS})
        .values(
            started_at=func.coalesce(batch.c.started_at, given.c.started_at),
            state=case((ends, BatchState.ENDED), else_=batch.c.state),
            ended_at=case((ends, now), else_=batch.c.ended_at),
            reason=case((ends, null()), else_=batch.c.reason),
            paused_by=case((ends, null()), else_=batch.c.paused_by),
            resume_at=case((ends, null()), else_=batch.c.resume_at),
        )
        .values({name: case((ends, owed), else_=batch.c[name]) for name, owed in NOTICE_AGAIN.items()})
    )


_ADD = Prepared(_add)


@cache
def _add_words(dialect: str) -> Insert:
    insert = sqlite_insert(batch_count) if dialect == "sqlite" else postgres_insert(batch_count)
    number = batch_count.c.number + insert.excluded.number
    return insert.on_conflict_do_update(index_elements=list(batch_count.primary_key), set_={"number": number})
