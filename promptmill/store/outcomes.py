"""Outcomes: what a worker reports about jobs, written in groups.

Attempts are closed for all; the job, its reply and the counters change only for the holder of the newest
token. So a duplicate or a worker thought dead changes nothing, and what it spent is recorded all the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from promptmill.states import JobState
from promptmill.store.ledger import ClosedAttempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A reply, to be accepted from `running`, `pending` or `queued` if the token is the newest."""

    job_id: str
    token: int
    attempt: ClosedAttempt
    message: Mapping[str, Any]
    text: str
    stop_reason: str | None
    model: str
    simulated: bool
    parsed: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferral:
    """Try again later: back to `pending`, not to be dispatched before `not_before`.

    With `token` (and the attempt to close) for a running job, with `dispatch` for one still queued.
    """

    job_id: str
    not_before: datetime | None
    token: int | None = None
    dispatch: int | None = None
    attempt: ClosedAttempt | None = None
    error_kind: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Given up: `errored`, or `expired` when the deadline passed.

    With `token` (and the attempt to close) for a job that was begun, with `dispatch` for one still queued.
    """

    job_id: str
    error_kind: str
    token: int | None = None
    dispatch: int | None = None
    attempt: ClosedAttempt | None = None
    state: JobState = JobState.ERRORED


def complete(conn: Connection, completions: Sequence[Completion], now: datetime) -> set[str]:
    """Write replies; the ids of the jobs that were accepted."""
    raise NotImplementedError


def fail(conn: Connection, failures: Sequence[Failure], now: datetime) -> set[str]:
    """End jobs without an answer; the ids of the jobs that were."""
    raise NotImplementedError


def defer(conn: Connection, deferrals: Sequence[Deferral], now: datetime) -> set[str]:
    """Send jobs back to `pending`; the ids of the jobs that went.

    In a batch that is being canceled such a job is canceled instead, and its id is in the answer too.
    """
    raise NotImplementedError


def expire_overdue(conn: Connection, now: datetime) -> int:
    """End the `pending` and `queued` jobs of batches whose deadline has passed; how many. Running ones finish."""
    raise NotImplementedError
