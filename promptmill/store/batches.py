"""Batches: one is made, and found again as it stands. How it stands is changed in `control`.

The one idea: a look at a batch costs the same however large it is. What there is to know of its jobs is kept in
counters of its row, and of what may be large in that row (`shared`) nothing is read.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Text,
    and_,
    func,
    insert,
    or_,
    select,
    text,
    type_coerce,
)
from sqlalchemy.exc import IntegrityError

from promptmill.errors import InvalidInput, NotFound
from promptmill.ids import new_id
from promptmill.recurrence import TAG_DUE, TAG_SCHEDULE
from promptmill.states import BatchState, Lane, PausedBy
from promptmill.store.columns import storable
from promptmill.store.engines import is_duplicate
from promptmill.store.inserting import all_or_none
from promptmill.store.sealing import unseal_if_possible
from promptmill.store.tables import NOTICE_AGAIN, SERVED, batch


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    """A batch to be made, in state `admitting`.

    Attributes:
        name: unique; what a person calls it.
        model: the model most of its prompts ask for, for people to see.
        shared: what all its prompts share (model, max_tokens, system, parameters).
        endpoint: where Claude is for this batch; a worker with another endpoint refuses it.
        priority: a weight: 10 gets ten times the share of 1.
        options: what the worker must know (retry policy, schema …), for the callers of the store alone.
        content_hash: of file and options, so that a broken submit is recognised when repeated.
        estimate_nanos, budget_nanos: nano-dollars.
        template: a name for what all its prompts have in common; batches with the same one learn from each other.
        estimated_input_tokens, estimated_output_tokens: what is expected of the whole batch, as far as known.
        notify_url: who is told when it ends or is paused by itself.
    """

    name: str
    model: str
    shared: Mapping[str, Any]
    endpoint: str
    simulated: bool
    lane: Lane = Lane.REALTIME
    priority: float = 1.0
    tags: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    content_hash: str | None = None
    deadline: datetime | None = None
    estimate_nanos: int | None = None
    budget_nanos: int | None = None
    template: str | None = None
    estimated_input_tokens: int | None = None
    estimated_output_tokens: int | None = None
    notify_url: str | None = field(default=None, repr=False)
    id: str = field(default_factory=lambda: new_id("batch"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What a batch keeps of its jobs and attempts, so that nobody counts them; the names are those of its columns.

    `total` is all its jobs. `cost_nanos` is the sum of the attempts with a known cost, `unpriced_attempts` how many
    closed without one, `reserved_nanos` what open attempts set aside.
    """

    total: int
    succeeded: int
    errored: int
    canceled: int
    expired: int
    input_tokens: int
    output_tokens: int
    cache_write_tokens: int
    cache_read_tokens: int
    attempts: int
    unpriced_attempts: int
    cost_nanos: int
    reserved_nanos: int

    @property
    def done(self) -> int:
        """Jobs that have ended, whatever their outcome."""
        return self.succeeded + self.errored + self.canceled + self.expired


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRow(Counters):
    """A batch as it stands; everything of its row but `shared`, which may be large, and what is encrypted at rest.

    So a batch whose key is lost is listed, canceled and purged as any other, and holds up none of them.

    `formula_tokens` is the sum of the jobs' input by formula, `formula_tokens_answered` that of the succeeded.
    `unknown_nanos` is what was set aside for attempts that closed without a known cost. A paused batch says who
    or what paused it, and from when it may go on by itself; `resumed_at` is when it last went on. `purged_at` is when
    prompts or answers of it were last deleted. `is_told` says whether somebody is told of its end (see `told_address`),
    `notified_at` when they were told of the state it is in.
    """

    id: str
    name: str
    state: BatchState
    reason: str | None
    lane: Lane
    model: str
    endpoint: str
    simulated: bool
    priority: float
    tags: Mapping[str, str]
    options: Mapping[str, Any]
    deadline: datetime | None
    estimate_nanos: int | None
    budget_nanos: int | None
    created_at: datetime
    sealed_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    template: str | None = None
    formula_tokens: int = 0
    formula_tokens_answered: int = 0
    estimated_input_tokens: int | None = None
    estimated_output_tokens: int | None = None
    unknown_nanos: int = 0
    paused_by: PausedBy | None = None
    resume_at: datetime | None = None
    resumed_at: datetime | None = None
    purged_at: datetime | None = None
    is_told: bool = False
    notified_at: datetime | None = None
    notify_tries: int = 0
    notify_after: datetime | None = None

    @property
    def was_cut(self) -> bool:
        """Whether it was canceled before all its prompts were there; it never gets the others."""
        return self.sealed_at is None and self.state is not BatchState.ADMITTING


COUNTERS: Final = tuple(each.name for each in fields(Counters))
"""The columns of the counters. None stands behind `shared`, which may be large."""


def create(conn: Connection, new: NewBatch, now: datetime) -> BatchRow:
    """Insert a batch in state `admitting`.

    Raises:
        InvalidInput: the name is taken.
    """
    values = {each.name: getattr(new, each.name) for each in fields(new)}
    values |= dict.fromkeys(COUNTERS, 0) | NOTICE_AGAIN | {"state": BatchState.ADMITTING, "created_at": now}
    try:
        with all_or_none(conn):
            conn.execute(insert(batch).values(values))
    except IntegrityError as error:
        if not is_duplicate(error):
            raise
        raise InvalidInput(f"there is a batch named {new.name!r} already", field="name") from None
    return get(conn, new.id)


def get(conn: Connection, batch_id: str) -> BatchRow:
    """The batch with that id.

    Raises:
        NotFound: there is none.
    """
    row = conn.execute(_SELECT.where(batch.c.id == batch_id)).mappings().first()
    if row is None:
        raise NotFound(f"there is no batch {batch_id}")
    return _batch_row(row)


def find(conn: Connection, name_or_id: str) -> BatchRow:
    """The batch with that id or name.

    Raises:
        NotFound: there is none; the message names those that may be meant, or the newest.
    """
    wanted = storable(name_or_id)
    query = _SELECT.where(or_(batch.c.id == wanted, batch.c.name == wanted))
    row = conn.execute(query.order_by(batch.c.id != wanted)).mappings().first()
    if row is None:
        raise NotFound(f"there is no batch {name_or_id!r}; {_instead(conn, wanted)}")
    return _batch_row(row)


def _instead(conn: Connection, wanted: str) -> str:
    """Names that are like it, or else the newest, of the runs of a schedule one."""
    query = select(batch.c.name, batch.c.tags).order_by(batch.c.created_at.desc(), batch.c.id.desc())
    newest = {row.name: row.tags for row in conn.execute(query.limit(_COMPARED))}
    begun = [name for name in newest if wanted and name.startswith(wanted)]
    near = begun[:_MEANT] or difflib.get_close_matches(wanted, newest, n=_MEANT)
    if near:
        return f"did you mean {' or '.join(near)}?"
    of_maker: dict[tuple[bool, str], str] = {}
    for name, tags in newest.items():
        of_maker.setdefault(
            (True, tags[TAG_SCHEDULE]) if {TAG_DUE, TAG_SCHEDULE} <= tags.keys() else (False, name), name
        )
    names = ", ".join([*of_maker.values()][:_HINTS])
    return f"the newest are: {names}" if names else "there is none at all yet"


def find_by_name(conn: Connection, name: str) -> BatchRow | None:
    """The batch with that name, or None."""
    row = conn.execute(_SELECT.where(batch.c.name == name)).mappings().first()
    return None if row is None else _batch_row(row)


def shared_of(conn: Connection, batch_id: str) -> Mapping[str, Any]:
    """What all prompts of a batch share.

    Raises:
        NotFound: there is no such batch.
    """
    row = conn.execute(select(batch.c.shared).where(batch.c.id == batch_id)).first()
    if row is None:
        raise NotFound(f"there is no batch {batch_id}")
    shared: Mapping[str, Any] = row.shared
    return shared


def content_hash_of(conn: Connection, batch_id: str) -> str | None:
    """The hash of the content a batch was made of; None where it is gone.

    Raises:
        ConfigurationError: it is encrypted, and no key opens it.
    """
    found: str | None = conn.scalar(select(batch.c.content_hash).where(batch.c.id == batch_id))
    return found


def told_address(conn: Connection, batch_id: str) -> str | None:
    """Who is told of the end of a batch; None for nobody, and where no key opens the address (see `is_told`)."""
    stored = type_coerce(batch.c.notify_url, Text)
    return unseal_if_possible(conn.dialect, conn.scalar(select(stored).where(batch.c.id == batch_id)))


def list_recent(conn: Connection, limit: int = 20) -> Sequence[BatchRow]:
    """The newest batches first."""
    query = _SELECT.order_by(batch.c.created_at.desc(), batch.c.id.desc()).limit(limit)
    return [_batch_row(row) for row in conn.execute(query).mappings()]


@dataclass(frozen=True, slots=True)
class Head:
    """So much of a batch as tells whether it is to be listed: cheap to read of many."""

    id: str
    state: BatchState
    tags: Mapping[str, str]
    done: int
    cost_nanos: int


def heads(conn: Connection, limit: int) -> Sequence[Head]:
    """Of the newest batches, the newest first."""
    query = _HEADS.order_by(batch.c.created_at.desc(), batch.c.id.desc()).limit(limit)
    return [Head(row[0], BatchState(row[1]), *row[2:]) for row in conn.execute(query)]


def those(conn: Connection, ids: Collection[str]) -> Sequence[BatchRow]:
    """The batches with these ids, the newest first; one that is gone is left out."""
    query = _SELECT.where(batch.c.id.in_(ids)).order_by(batch.c.created_at.desc(), batch.c.id.desc())
    return [_batch_row(row) for row in conn.execute(query).mappings()]


def ended(
    conn: Connection, *which: ColumnElement[bool], after: BatchRow | None = None, most: int | None = None
) -> Sequence[BatchRow]:
    """Batches that have ended and of which all this is true, the oldest first; only those behind `after`."""
    query = _SELECT.where(batch.c.state == BatchState.ENDED, *which)
    if after is not None:
        at_once = and_(batch.c.ended_at == after.ended_at, batch.c.id > after.id)
        query = query.where(or_(batch.c.ended_at > after.ended_at, at_once))
    in_order = query.order_by(batch.c.ended_at, batch.c.id).limit(most)
    return [_batch_row(row) for row in conn.execute(in_order).mappings()]


def active(conn: Connection) -> Sequence[BatchRow]:
    """The batches the dispatcher may serve, oldest first."""
    query = _SELECT.where(text(SERVED), batch.c.state == BatchState.ACTIVE)
    return [_batch_row(row) for row in conn.execute(query.order_by(batch.c.created_at)).mappings()]


def unfinished(conn: Connection, limit: int) -> Sequence[BatchRow]:
    """The newest of those that are active, paused or being canceled, newest first."""
    query = _SELECT.where(text(SERVED)).order_by(batch.c.created_at.desc(), batch.c.id.desc())
    return [_batch_row(row) for row in conn.execute(query.limit(limit)).mappings()]


def last_resumed(conn: Connection, batch_id: str) -> datetime | None:
    """When a batch of the same endpoint, this one or another, last went on after a pause; None if none ever did."""
    endpoint = select(batch.c.endpoint).where(batch.c.id == batch_id).scalar_subquery()
    went_on: datetime | None = conn.scalar(
        select(func.max(batch.c.resumed_at)).where(batch.c.endpoint == endpoint)
    )
    return went_on


_HINTS = 5
_MEANT = 3
_COMPARED = 500
_IS_TOLD = batch.c.notify_url.is_not(None).label("is_told")
_SELECT = select(*(_IS_TOLD if each.name == "is_told" else batch.c[each.name] for each in fields(BatchRow)))
_HEADS = select(
    batch.c.id,
    batch.c.state,
    batch.c.tags,
    batch.c.succeeded + batch.c.errored + batch.c.canceled + batch.c.expired,
    batch.c.cost_nanos,
)


def _batch_row(row: RowMapping) -> BatchRow:
    paused_by = row["paused_by"] and PausedBy(row["paused_by"])
    known = {"state": BatchState(row["state"]), "lane": Lane(row["lane"]), "paused_by": paused_by}
    known |= {"is_told": bool(row["is_told"])}
    return BatchRow(**{**row, **known})
