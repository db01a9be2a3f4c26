"""The ledger: every try at a job, closed once, with what it used and what it cost.

Its sum is what the account was billed; the totals on the batch are kept equal to it, change by change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from promptmill.usage import Usage

OPEN = "open"
SUCCEEDED = "succeeded"
LOST = "lost"


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
    raise NotImplementedError


def costs(conn: Connection, batch_id: str) -> Costs:
    """What the ledger says a batch has used and cost so far; the batch row says the same."""
    raise NotImplementedError
