"""Jobs: read, and moved between `pending` and `queued`. Admission and outcomes are files of their own."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from promptmill.prompts import Prompt
from promptmill.states import BatchState, JobState, Lane
from promptmill.store.admission import NewJob, insert_many
from promptmill.store.outcomes import Completion, Deferral, Failure, complete, defer, expire_overdue, fail

__all__ = [
    "Completion",
    "Deferral",
    "Failure",
    "LoadedJob",
    "NewJob",
    "PendingJob",
    "QueuedJob",
    "complete",
    "defer",
    "expire_overdue",
    "fail",
    "insert_many",
    "load",
    "lost_queued",
    "model_groups_pending",
    "queue",
    "select_pending",
    "unqueue",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedJob:
    """A job with its prompt and what of its batch a worker must know.

    Attributes:
        prompt: the job's own fields over what its batch shares.
        failures: closed attempts by outcome (`rate_limited`, `lost` …), without the succeeded.
        first_opened_at: when its first attempt was opened; None before that.
    """

    id: str
    batch_id: str
    batch_name: str
    batch_state: BatchState
    custom_id: str
    state: JobState
    dispatch: int
    token: int
    attempts: int
    model_group: str
    prompt: Prompt
    lane: Lane
    endpoint: str
    simulated: bool
    deadline: datetime | None
    priority: float
    estimated_input_tokens: int
    estimated_output_tokens: int
    options: Mapping[str, Any]
    failures: Mapping[str, int] = field(default_factory=dict)
    first_opened_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PendingJob:
    """What the dispatcher weighs."""

    id: str
    seq: int
    estimated_input_tokens: int
    estimated_output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedJob:
    """What a message carries."""

    job_id: str
    dispatch: int
    batch: str
    model: str
    attempts: int


def load(conn: Connection, ids: Collection[str]) -> dict[str, LoadedJob]:
    """The jobs with those ids, by id; an unknown id is missing in the answer."""
    raise NotImplementedError


def model_groups_pending(conn: Connection, batch_id: str, now: datetime) -> Sequence[str]:
    """The model groups for which `select_pending` would find a job now."""
    raise NotImplementedError


def select_pending(
    conn: Connection, batch_id: str, model_group: str, limit: int, now: datetime
) -> Sequence[PendingJob]:
    """The next jobs of a batch and group, in the order they were submitted; none whose time has not come."""
    raise NotImplementedError


def queue(conn: Connection, ids: Collection[str], now: datetime) -> list[QueuedJob]:
    """`pending` becomes `queued` with the next dispatch number; only what this returns may be published.

    Left out are jobs that are not `pending` any more or whose batch is not `active`. Commit, then publish.
    """
    raise NotImplementedError


def unqueue(conn: Connection, dispatched: Iterable[tuple[str, int]], now: datetime) -> set[str]:
    """`queued` under that dispatch number goes back to `pending`; the ids that did. For (id, dispatch) pairs.

    In a batch that is being canceled such a job is canceled instead.
    """
    raise NotImplementedError


def lost_queued(conn: Connection, present: Collection[str], before: datetime) -> Sequence[tuple[str, int]]:
    """(id, dispatch) of jobs queued before a moment whose id is not in `present`; give them to `unqueue`."""
    raise NotImplementedError
