"""Batches: made, found, sealed, and controlled; each change of state is one guarded transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from promptmill.ids import new_id
from promptmill.states import BatchState, Lane


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
    id: str = field(default_factory=lambda: new_id("batch"))


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRow:
    """A batch as it stands; everything of its row but `shared`, which may be large.

    `total` and the counters are kept, not counted. `cost_nanos` is the sum of the attempts with a known
    cost, `unpriced_attempts` how many closed without one, `reserved_nanos` what open attempts set aside.
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
    content_hash: str | None
    deadline: datetime | None
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
    estimate_nanos: int | None
    budget_nanos: int | None
    created_at: datetime
    sealed_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def done(self) -> int:
        """Jobs that have ended, whatever their outcome."""
        return self.succeeded + self.errored + self.canceled + self.expired


def create(conn: Connection, new: NewBatch, now: datetime) -> BatchRow:
    """Insert a batch in state `admitting`.

    Raises:
        InvalidInput: the name is taken.
    """
    raise NotImplementedError


def find(conn: Connection, name_or_id: str) -> BatchRow:
    """The batch with that id or name.

    Raises:
        NotFound: there is none; the message names the newest batches.
    """
    raise NotImplementedError


def find_by_name(conn: Connection, name: str) -> BatchRow | None:
    """The batch with that name, or None."""
    raise NotImplementedError


def shared_of(conn: Connection, batch_id: str) -> Mapping[str, Any]:
    """What all prompts of a batch share."""
    raise NotImplementedError


def list_recent(conn: Connection, limit: int = 20) -> Sequence[BatchRow]:
    """The newest batches first."""
    raise NotImplementedError


def active(conn: Connection) -> Sequence[BatchRow]:
    """The batches the dispatcher may serve, oldest first."""
    raise NotImplementedError


def set_estimate(conn: Connection, batch_id: str, estimate_nanos: int | None) -> None:
    """Store what the batch is expected to cost, once all its prompts were read."""
    raise NotImplementedError


def seal(conn: Connection, batch_id: str, now: datetime) -> BatchRow:
    """The batch is whole: `admitting` becomes `active`; without an open job it ends at once.

    Raises:
        InvalidTransition: it is not `admitting`.
    """
    raise NotImplementedError


def pause(conn: Connection, batch_id: str, reason: str, now: datetime) -> BatchRow:
    """Begin no further job; `queued` jobs go back to `pending`, running ones finish.

    Raises:
        InvalidTransition: it is not `active`.
    """
    raise NotImplementedError


def hold(conn: Connection, batch_id: str, reason: str, now: datetime) -> bool:
    """Pause an `active` batch because of what a worker met; True when this call did it.

    Many jobs meet the same spend cap at once, so a batch that is not active is left as it is.
    """
    raise NotImplementedError


def resume(conn: Connection, batch_id: str, now: datetime) -> BatchRow:
    """`paused` becomes `active`.

    Raises:
        InvalidTransition: it is not `paused`.
    """
    raise NotImplementedError


def cancel(conn: Connection, batch_id: str, now: datetime) -> BatchRow:
    """Cancel what has not begun; running jobs finish and are recorded, then the batch ends.

    Raises:
        InvalidTransition: it is canceled or ended already.
    """
    raise NotImplementedError
