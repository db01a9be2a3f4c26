"""Admission: the rows of a batch being read. A broken submit is simply repeated."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import repeat
from typing import Any

from sqlalchemy import Connection, Dialect, select, update
from sqlalchemy.exc import IntegrityError

from promptmill.errors import InvalidInput, InvalidTransition, NotFound
from promptmill.ids import new_ids
from promptmill.states import BatchState, JobState
from promptmill.store.columns import json_text, storable
from promptmill.store.engines import is_duplicate
from promptmill.store.inserting import all_or_none, encoded, insert_rows
from promptmill.store.rowsets import Rowset
from promptmill.store.sealing import seal
from promptmill.store.tables import batch, job, prompt


@dataclass(slots=True, kw_only=True)  # not frozen: that doubles what making one costs, a million times
class NewJob:
    """One job to be admitted.

    Attributes:
        seq: its place in the submission, from 0; unique in the batch.
        custom_id: the caller's name for it; unique in the batch.
        body: the prompt's own fields, or their text as `json_text` writes it; the rest is in the batch's `shared`.
        fingerprint: of the whole Prompt.
        source: the caller's input row, or its text, kept for the results.
        estimated_input_tokens, estimated_output_tokens: by formula alone; what is learned is learned against it.
    """

    seq: int
    custom_id: str
    model_group: str
    body: Mapping[str, Any] | str
    fingerprint: str
    estimated_input_tokens: int
    estimated_output_tokens: int
    source: Mapping[str, Any] | str | None = None


def insert_many(conn: Connection, batch_id: str, rows: Sequence[NewJob], now: datetime) -> int:
    """Insert `pending` jobs into a batch that is `admitting`; how many were new.

    A row that is there already (same custom_id, same fingerprint) is skipped.

    Raises:
        InvalidInput: a custom_id is there with another prompt, or twice in `rows`, or a seq is taken.
        InvalidTransition: the batch is sealed or canceled, and a row is new.
        NotFound: there is no such batch.
    """
    if not rows:
        return 0
    is_closed = _lock(conn, batch_id)
    _refuse_twins(rows)
    # A place that is free spares the look at every custom_id; a submit that is repeated finds it taken.
    new = _unknown(conn, batch_id, rows) if is_closed or _is_taken(conn, batch_id, rows) else rows
    if not new:
        return 0
    if is_closed:
        raise InvalidTransition(f"batch {batch_id} is sealed or canceled, and takes no further jobs")
    if not _insert(conn, batch_id, new, now):
        new = _unknown(conn, batch_id, rows)
        if not _insert(conn, batch_id, new, now):
            raise InvalidInput("a seq of these jobs is taken by another custom_id", field="seq")
    by_formula = sum(row.estimated_input_tokens for row in new)
    conn.execute(
        update(batch)
        .where(batch.c.id == batch_id)
        .values(total=batch.c.total + len(new), formula_tokens=batch.c.formula_tokens + by_formula)
    )
    return len(new)


_CUSTOM_IDS = Rowset(job.c.custom_id)


def _lock(conn: Connection, batch_id: str) -> bool:
    """Hold the batch; True when it takes no further jobs."""
    query = select(batch.c.state).where(batch.c.id == batch_id).with_for_update(key_share=True)
    found = conn.execute(query).first()
    if found is None:
        raise NotFound(f"there is no batch {batch_id}")
    return BatchState(found.state) is not BatchState.ADMITTING


def _refuse_twins(rows: Sequence[NewJob]) -> None:
    if len({row.custom_id for row in rows}) == len(rows):
        return
    custom_id, occurrences = Counter(row.custom_id for row in rows).most_common(1)[0]
    raise InvalidInput(f"custom_id {custom_id!r} occurs {occurrences} times", field="custom_id")


def _is_taken(conn: Connection, batch_id: str, rows: Sequence[NewJob]) -> bool:
    places = [row.seq for row in rows]
    query = (
        select(job.c.id)
        .where(job.c.batch_id == batch_id, job.c.seq.between(min(places), max(places)))
        .limit(1)
    )
    return conn.execute(query).first() is not None


def _unknown(conn: Connection, batch_id: str, rows: Sequence[NewJob]) -> Sequence[NewJob]:
    """The rows whose custom_id is not in the batch yet."""
    given = _CUSTOM_IDS.on(conn.dialect.name)
    # Looked up one by one: without statistics Postgres would rather read through the whole batch.
    its_job = (
        select(job.c.id)
        .where(job.c.batch_id == batch_id, job.c.custom_id == given.c.custom_id)
        .correlate(given)
        .scalar_subquery()
    )
    fingerprint = (
        select(prompt.c.fingerprint).where(prompt.c.job_id == its_job).correlate(given).scalar_subquery()
    )
    query = select(given.c.custom_id, fingerprint.label("fingerprint"))
    found = conn.execute(query, _CUSTOM_IDS.parameters((row.custom_id,) for row in rows))
    known: dict[str, str] = {row.custom_id: row.fingerprint for row in found if row.fingerprint is not None}
    for row in rows:
        if known.get(row.custom_id, row.fingerprint) != row.fingerprint:
            raise InvalidInput(
                f"custom_id {row.custom_id!r} is in this batch already, with another prompt",
                field="custom_id",
            )
    return [row for row in rows if row.custom_id not in known]


def _insert(conn: Connection, batch_id: str, rows: Sequence[NewJob], now: datetime) -> bool:
    """Insert all or none; False when a row is in the way."""
    try:
        with all_or_none(conn):
            _insert_both(conn, batch_id, rows, now)
    except IntegrityError as error:
        if is_duplicate(error):
            return False
        raise
    return True


_JOB_COLUMNS = (
    "id", "batch_id", "seq", "custom_id", "state", "model_group", "estimated_input_tokens",
    "estimated_output_tokens", "dispatch", "token", "attempts", "changed_at",
)  # fmt: skip
_PROMPT_COLUMNS = ("job_id", "fingerprint", "body", "source")


def _insert_both(conn: Connection, batch_id: str, rows: Sequence[NewJob], now: datetime) -> None:
    ids = new_ids("job", len(rows))
    stamp = encoded(conn, job.c.changed_at, now)
    insert_rows(conn, job, _JOB_COLUMNS, map(_job_values, ids, rows, repeat(batch_id), repeat(stamp)))
    insert_rows(conn, prompt, _PROMPT_COLUMNS, map(_prompt_values, ids, rows, repeat(conn.dialect)))


def _job_values(job_id: str, row: NewJob, batch_id: str, stamp: Any) -> tuple[Any, ...]:
    """In the order of _JOB_COLUMNS."""
    return (
        job_id,
        batch_id,
        row.seq,
        storable(row.custom_id),
        JobState.PENDING.value,
        row.model_group,
        row.estimated_input_tokens,
        row.estimated_output_tokens,
        0,
        0,
        0,
        stamp,
    )


def _prompt_values(job_id: str, row: NewJob, dialect: Dialect) -> tuple[Any, ...]:
    """In the order of _PROMPT_COLUMNS."""
    texts = (row.fingerprint, _text(row.body), _text(row.source))
    return (job_id, *(seal(dialect, each) for each in texts))


def _text(value: Mapping[str, Any] | str | None) -> str | None:
    return value if value is None or isinstance(value, str) else json_text(value)
