"""Purging: prompts and answers of an ended batch are deleted, and the ledger of what they cost stays; or all of it goes.

The one idea: rows stay and are emptied, so every count and every sum of the batch is as true as before. The batch
is marked first, so that nobody reads or retries what is half gone, and a purge that broke off is simply repeated.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Delete,
    Select,
    Text,
    Update,
    and_,
    bindparam,
    delete,
    false,
    func,
    insert,
    not_,
    or_,
    select,
    type_coerce,
    update,
)

from promptmill.errors import InvalidTransition
from promptmill.states import BatchState
from promptmill.store import batches, control
from promptmill.store.batches import BatchRow
from promptmill.store.columns import json_text
from promptmill.store.rowsets import among
from promptmill.store.tables import attempt, batch, batch_count, job, prompt, purged_batch, reply

PURGED = "purged"
"""The batch option that names what is gone."""
PURGING = "purging"
"""The batch option that names what is being deleted."""


class Part(StrEnum):
    """What can be deleted of a batch."""

    PROMPTS = "prompts"
    ANSWERS = "answers"
    EVERYTHING = "everything"


def gone(options: Mapping[str, Any]) -> frozenset[Part]:
    """What is gone of a batch, or on its way; its options say."""
    return frozenset(Part(each) for name in (PURGED, PURGING) for each in options.get(name, ()))


def why_gone(row: BatchRow) -> str | None:
    """A sentence on what was purged of a batch; None where nothing was."""
    if not (parts := gone(row.options)):
        return None
    if PURGING in row.options:
        return f"the {_words(parts)} of {row.name} are being purged"
    when = f" on {row.purged_at:%Y-%m-%d}" if row.purged_at else ""
    return f"the {_words(parts)} of {row.name} were purged{when}"


def old(
    conn: Connection,
    moments: Mapping[Part, datetime],
    *,
    after: BatchRow | None = None,
    most: int | None = None,
) -> Sequence[BatchRow]:
    """Batches that ended before a moment with a part that is still there; each part has its own moment.

    Args:
        conn: a transaction.
        moments: what was ended before which moment is meant.
        after: begin behind this one; the oldest come first.
        most: batches at once; None for all.
    """
    which = (and_(batch.c.ended_at <= moment, not_(_is_gone(part))) for part, moment in moments.items())
    return batches.ended(conn, or_(false(), *which), after=after, most=most)


def purged(conn: Connection, batch_ids: Collection[str], *of: Part) -> Collection[str]:
    """Those of the batches of which one of these parts is gone, or on its way; so is every part with everything."""
    rows = conn.execute(select(batch.c.id, batch.c.options).where(batch.c.id.in_(batch_ids)))
    return {row.id for row in rows if not gone(row.options).isdisjoint({*of, Part.EVERYTHING})}


def begin(conn: Connection, batch_id: str, parts: frozenset[Part]) -> BatchRow:
    """Mark the batch, and empty what all its prompts share.

    Raises:
        InvalidTransition: it has not ended.
        NotFound: there is no such batch.
    """
    if control.lock(conn, batch_id) is not BatchState.ENDED:
        row = batches.get(conn, batch_id)
        raise InvalidTransition(f"{row.name} is {row.state}: only a batch that has ended can be purged")
    row = batches.get(conn, batch_id)
    under_way = parts | frozenset(row.options.get(PURGING, ()))
    values: dict[str, Any] = {"options": {**row.options, PURGING: sorted(under_way)}}
    if parts & {Part.PROMPTS, Part.EVERYTHING}:
        # A hash of a short text can be guessed, so it goes with the text.
        values |= {"shared": {}, "content_hash": None, "template": None}
    conn.execute(update(batch).where(batch.c.id == batch_id).values(values))
    if Part.EVERYTHING in parts and row.simulated:
        _keep_number_of_calls(conn, row)
    return batches.get(conn, batch_id)


def empty_page(
    conn: Connection, batch_id: str, parts: frozenset[Part], first_seq: int, size: int
) -> int | None:
    """Delete the parts of the jobs from a place on; the place to go on from, None after the last."""
    page = {"of_batch": batch_id, "first": first_seq, "last": first_seq + size - 1}
    for statement in _page_statements(conn.dialect.name, parts):
        conn.execute(statement, page)
    following: int | None = conn.scalar(_NEXT, {"of_batch": batch_id, "last": page["last"]})
    return following


def finish(conn: Connection, batch_id: str, parts: frozenset[Part], now: datetime) -> None:
    """Say that the parts are gone; with everything the batch itself goes."""
    control.lock(conn, batch_id)
    if Part.EVERYTHING in parts:
        conn.execute(delete(batch_count).where(batch_count.c.batch_id == batch_id))
        conn.execute(delete(batch).where(batch.c.id == batch_id))
        return
    options = dict(batches.get(conn, batch_id).options)
    under_way = frozenset(options.pop(PURGING, ())) - parts
    options[PURGED] = sorted(parts | frozenset(options.pop(PURGED, ())))  # at their end: see _is_gone
    if under_way:
        options[PURGING] = sorted(under_way)
    conn.execute(update(batch).where(batch.c.id == batch_id).values(options=options, purged_at=now))


def _keep_number_of_calls(conn: Connection, row: BatchRow) -> None:
    """Before the first of them goes, and once, because a purge that broke off begins again; the batch is locked."""
    if conn.scalar(select(purged_batch.c.id).where(purged_batch.c.id == row.id)) is None:
        values = {"id": row.id, "attempts": row.attempts, "ended_at": row.ended_at}
        conn.execute(insert(purged_batch).values(values))


def _is_gone(part: Part) -> ColumnElement[bool]:
    """Whether a part was purged, by the end of the text of the options: so no row need be read for that."""
    if part is Part.EVERYTHING:
        return false()
    options = type_coerce(batch.c.options, Text)
    ends = (f'%"{PURGED}":{json_text(sorted(parts))}}}' for parts in ({part}, {Part.PROMPTS, Part.ANSWERS}))
    return and_(batch.c.purged_at.is_not(None), or_(*(options.like(each) for each in ends)))


def _words(parts: frozenset[Part]) -> str:
    named = {Part.PROMPTS, Part.ANSWERS} if Part.EVERYTHING in parts else parts
    return " and ".join(sorted(named, reverse=True))


_IN_PAGE = (
    select(job.c.id)
    .where(job.c.batch_id == bindparam("of_batch"), job.c.seq.between(bindparam("first"), bindparam("last")))
)  # fmt: skip
_NEXT: Select[Any] = select(func.min(job.c.seq)).where(
    job.c.batch_id == bindparam("of_batch"), job.c.seq > bindparam("last")
)


@cache
def _page_statements(dialect: str, parts: frozenset[Part]) -> Sequence[Update | Delete]:
    if Part.EVERYTHING in parts:  # prompts, replies and attempts go with their job
        return [delete(job).where(among(dialect, job.c.id, _IN_PAGE))]
    statements: list[Update | Delete] = [
        # An error may quote either.
        update(attempt)
        .where(among(dialect, attempt.c.job_id, _IN_PAGE), attempt.c.error_message.is_not(None))
        .values(error_message=None)
    ]
    if Part.PROMPTS in parts:
        its_prompt = among(dialect, prompt.c.job_id, _IN_PAGE)
        statements.append(update(prompt).where(its_prompt).values(body={}, source=None, fingerprint=""))
    if Part.ANSWERS in parts:
        its_reply = among(dialect, reply.c.job_id, _IN_PAGE)
        statements.append(update(reply).where(its_reply).values(text="", message={}, parsed=None))
    return statements
