"""The ledger: every try at a job, closed once, with what it used and what it cost.

Its sum is what the account was billed; the totals on the batch are kept equal to it, change by change.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Dialect, Row, RowMapping, Select, and_, case, func, not_, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from promptmill.store import purging
from promptmill.store.columns import storable
from promptmill.store.prepared import Prepared
from promptmill.store.purging import Part
from promptmill.store.rowsets import Rowset
from promptmill.store.sealing import seal
from promptmill.store.tables import attempt
from promptmill.store.tallies import OUTCOME, STOP_REASON, Tallies, Tally, as_word
from promptmill.usage import Usage

OPEN = "open"
SUCCEEDED = "succeeded"
LOST = "lost"
ORPHANED = "orphaned"
"""Of a process that lives and knows nothing of it; like LOST, and nothing is suspected of having ended a process."""

COMPLETE = ("end_turn", "stop_sequence", "tool_use")
"""The stop reasons of answers that are whole."""

USAGE_COLUMNS = tuple(each.name for each in fields(Usage))

_LONGEST_MESSAGE = 2_000  # characters; a server may answer with a whole page
_FACTS = (
    "closed_at",
    "outcome",
    "status",
    "request_id",
    "usage_raw",
    "cost_nanos",
    "price_version",
)
_WORDS = ("error_type", "error_code", "stop_reason")
_IDS = Rowset(attempt.c.id)
_CLOSED_COLUMNS = ("error_message", *_WORDS, *_FACTS, *USAGE_COLUMNS)
_CLOSED = Rowset(attempt.c.id, *(attempt.c[name] for name in _CLOSED_COLUMNS))
_NOTHING = Usage()
_facts_of = attrgetter(*_FACTS)
_words_of = attrgetter(*_WORDS)
_usage_of = attrgetter(*USAGE_COLUMNS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedAttempt:
    """How an attempt ended: what it used, what it cost, and what the server said.

    Attributes:
        outcome: `succeeded`, the kind of a ClaudeError, or another word of your own.
        usage: tokens used; None when nobody can know.
        usage_raw: the `usage` object as the server sent it.
        cost_nanos: nano-dollars; 0 when nothing was billed, None when nobody can know.
    """

    attempt_id: str
    outcome: str
    closed_at: datetime
    usage: Usage | None = None
    usage_raw: Mapping[str, Any] | None = None
    cost_nanos: int | None = None
    price_version: str | None = None
    status: int | None = None
    error_type: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    request_id: str | None = None
    stop_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """One attempt as it stands in the ledger; `closed_at` is None while it is open."""

    id: str
    job_id: str
    batch_id: str
    number: int
    token: int
    worker_id: str
    key_label: str
    account: str
    model: str
    model_group: str
    lane: str
    opened_at: datetime
    closed_at: datetime | None
    outcome: str
    status: int | None
    error_type: str | None
    error_code: str | None
    error_message: str | None
    request_id: str | None
    stop_reason: str | None
    usage: Usage
    usage_raw: Mapping[str, Any] | None
    cost_nanos: int | None
    reserved_nanos: int | None
    price_version: str | None
    simulated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Sums over the attempts of a batch, counted from the ledger itself."""

    attempts: int
    open: int
    unpriced: int
    usage: Usage
    cost_nanos: int
    reserved_nanos: int


def attempts_of(
    conn: Connection, *, job_id: str | None = None, batch_id: str | None = None
) -> Sequence[AttemptRow]:
    """The attempts of one job, or of a whole batch, in the order they were opened."""
    query = select(attempt).order_by(attempt.c.opened_at, attempt.c.id)
    if job_id is not None:
        query = query.where(attempt.c.job_id == job_id)
    if batch_id is not None:
        query = query.where(attempt.c.batch_id == batch_id)
    return [_attempt_row(row) for row in conn.execute(query).mappings()]


def costs(conn: Connection, batch_id: str) -> Costs:
    """What the ledger says a batch has used and cost so far; the batch row says the same."""
    is_open = attempt.c.outcome == OPEN
    unpriced = and_(not_(is_open), attempt.c.cost_nanos.is_(None))
    row = conn.execute(
        select(
            func.count(),
            func.sum(case((is_open, 1), else_=0)),
            func.sum(case((unpriced, 1), else_=0)),
            func.sum(attempt.c.cost_nanos),
            func.sum(case((is_open, attempt.c.reserved_nanos), else_=0)),
            *(func.sum(attempt.c[name]) for name in USAGE_COLUMNS),
        ).where(attempt.c.batch_id == batch_id)
    ).one()
    attempts, opened, without_price, cost, reserved, *used = (int(value or 0) for value in row)
    return Costs(
        attempts=attempts,
        open=opened,
        unpriced=without_price,
        cost_nanos=cost,
        reserved_nanos=reserved,
        usage=Usage(**dict(zip(USAGE_COLUMNS, used, strict=True))),
    )


def close(conn: Connection, closed: Iterable[ClosedAttempt], tallies: Tallies) -> set[str]:
    """Close attempts that are open or lost, and add what they used to the tallies of their batches; which it were.

    One that was closed before stays as it is, so a duplicate report costs nothing. The caller holds the
    locks of the batches.
    """
    by_id = {each.attempt_id: each for each in reversed(tuple(closed))}
    wanted = set(by_id)
    for row in _close_all(conn, _CLOSE_OPEN, by_id.values()):
        _count(tallies[row.batch_id], OPEN, row.reserved_nanos, by_id.pop(row.id))
    if not by_id:
        return wanted
    given_up = _FIND_GIVEN_UP.run(conn, _IDS.parameters((each,) for each in by_id)).all()
    was = {row.id: row.outcome for row in given_up}
    # Only of these may the batch have ended and been purged: an error may quote what is gone.
    gone = purging.purged(conn, {row.batch_id for row in given_up}, *Part) if given_up else ()
    by_id |= {row.id: replace(by_id[row.id], error_message=None) for row in given_up if row.batch_id in gone}
    for row in _close_all(conn, _CLOSE_AGAIN, [by_id[each] for each in was]):
        _count(tallies[row.batch_id], was[row.id], row.reserved_nanos, by_id.pop(row.id))
    return wanted - by_id.keys()


def _close_all(conn: Connection, how: Prepared, closed: Collection[ClosedAttempt]) -> Sequence[Row[Any]]:
    """The attempts that were closed."""
    if not closed:
        return []
    return how.run(conn, _CLOSED.parameters(_closed_values(each, conn.dialect) for each in closed)).all()


def _count(tally: Tally, was: str, reserved_nanos: int | None, closed: ClosedAttempt) -> None:
    set_aside = reserved_nanos or 0
    if was == OPEN:
        tally.reserved_nanos -= set_aside
    else:
        tally.unpriced_attempts -= 1  # it was lost, and lost means that nobody knew its cost
        tally.unknown_nanos -= set_aside
        tally.words[OUTCOME, was] -= 1
    if closed.cost_nanos is None:
        tally.unpriced_attempts += 1
        tally.unknown_nanos += set_aside
    else:
        tally.cost_nanos += closed.cost_nanos
    tally.use(closed.usage or _NOTHING)
    if closed.outcome != SUCCEEDED:
        tally.words[OUTCOME, closed.outcome] += 1
    else:
        count_stop_reason(tally, closed.stop_reason)


def count_stop_reason(tally: Tally, stop_reason: str | None) -> None:
    """One more answer that ended so; one that is whole is not counted."""
    if stop_reason is not None and stop_reason not in COMPLETE:
        tally.words[STOP_REASON, str(as_word(stop_reason))] += 1


def _closed_values(closed: ClosedAttempt, dialect: Dialect) -> tuple[Any, ...]:
    message = closed.error_message and storable(closed.error_message[:_LONGEST_MESSAGE])
    return (
        closed.attempt_id,
        seal(dialect, message),
        *map(as_word, _words_of(closed)),
        *_facts_of(closed),
        *_usage_of(closed.usage or _NOTHING),
    )


def _find_given_up(dialect: str) -> Select[tuple[str, str, str]]:
    return select(attempt.c.id, attempt.c.outcome, attempt.c.batch_id).where(
        _IDS.among(dialect, attempt.c.id), attempt.c.outcome.in_([LOST, ORPHANED])
    )


def _close(dialect: str, *from_outcomes: str) -> ReturningUpdate[Any]:
    given = _CLOSED.on(dialect)
    return (
        update(attempt)
        .where(attempt.c.id == given.c.id, attempt.c.outcome.in_(from_outcomes))
        .values({name: given.c[name] for name in _CLOSED_COLUMNS})
        .returning(attempt.c.id, attempt.c.batch_id, attempt.c.reserved_nanos)
    )


_FIND_GIVEN_UP = Prepared(_find_given_up)
_CLOSE_OPEN = Prepared(lambda dialect: _close(dialect, OPEN))
_CLOSE_AGAIN = Prepared(lambda dialect: _close(dialect, LOST, ORPHANED))


def _attempt_row(row: RowMapping) -> AttemptRow:
    columns = dict(row)
    usage = Usage(**{name: columns.pop(name) for name in USAGE_COLUMNS})
    return AttemptRow(**columns, usage=usage)
