"""The terms of a batch that has begun: its budget, priority and deadline, changed while it runs.

They are read from the batch's row by everybody who acts on them (dispatcher, worker, reaper), so a change
acts on the next thing that is decided, and needs no message.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, literal, select, update

from promptmill.budgets import Budget, next_call_of
from promptmill.errors import InvalidInput, InvalidTransition
from promptmill.states import BatchState, JobState, PausedBy
from promptmill.store import batches, control, jobs
from promptmill.store.batches import BatchRow
from promptmill.store.tables import batch, job


class Unchanged(Enum):
    """What stands for a term that stays as it is; None takes a term away."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTerms:
    """What is to change: nano-dollars, a weight, an aware moment; None for no budget or no deadline."""

    budget_nanos: int | Unchanged | None = UNCHANGED
    priority: float | Unchanged = UNCHANGED
    deadline: datetime | Unchanged | None = UNCHANGED


def change(conn: Connection, batch_id: str, terms: NewTerms, now: datetime) -> BatchRow:
    """Change the terms of a batch.

    One that its budget has paused goes on when there is room again; one whose new budget is used up is paused.

    Raises:
        InvalidInput: the deadline is over already.
        InvalidTransition: the batch is being canceled.
        NotFound: there is no such batch.
    """
    if isinstance(terms.deadline, datetime) and terms.deadline <= now:
        raise InvalidInput(f"{terms.deadline:%Y-%m-%d %H:%M} UTC is over already", field="deadline")
    if control.lock(conn, batch_id) is BatchState.CANCELING:
        name = batches.get(conn, batch_id).name
        raise InvalidTransition(f"{name} is being canceled: no call of it begins any more")
    named = {
        "budget_nanos": terms.budget_nanos,
        "priority": terms.priority,
        "deadline": terms.deadline,
    }
    values: dict[str, Any] = {name: value for name, value in named.items() if value is not UNCHANGED}
    if values:
        conn.execute(update(batch).where(batch.c.id == batch_id).values(values))
    row = batches.get(conn, batch_id)
    if terms.budget_nanos is UNCHANGED:
        return row
    if row.paused_by is PausedBy.BUDGET:
        return control.resume(conn, batch_id, now) if _has_room(row) else _still_paused(conn, row)
    budget = budget_of(row)
    if budget is not None and budget.is_used_up and not budget.reserved:
        control.hold(conn, batch_id, budget.why_used_up(), now, by=PausedBy.BUDGET)
        return batches.get(conn, batch_id)
    return row


def budget_of(row: BatchRow) -> Budget | None:
    """The budget of a batch and what is gone of it; None where it has none."""
    if row.budget_nanos is None:
        return None
    return Budget(row.budget_nanos, row.cost_nanos, row.reserved_nanos, row.unknown_nanos)


def _still_paused(conn: Connection, row: BatchRow) -> BatchRow:
    """The reason names the new amount."""
    budget = budget_of(row)
    if budget is not None:
        reason = budget.why_used_up() if budget.is_used_up else budget.why_stopped(next_call_of(row.reason))
        conn.execute(update(batch).where(batch.c.id == row.id).values(reason=reason))
    return batches.get(conn, row.id)


def models_to_answer(conn: Connection, batch_id: str) -> Sequence[str]:
    """The models of the jobs without an answer: of each model group one, since those of a group have one price."""
    ids = conn.scalars(_ONE_OF_EACH_GROUP, {"of_batch": batch_id}).all()
    return sorted({each.prompt.model for each in jobs.load(conn, ids).values()})


_ONE_OF_EACH_GROUP = (
    select(func.min(job.c.id))
    .where(job.c.batch_id == bindparam("of_batch"), job.c.state != literal(JobState.SUCCEEDED))
    .group_by(job.c.model_group)
)


def _has_room(row: BatchRow) -> bool:
    """Whether anything is left; whether it is enough for one call more, the next claim will find out."""
    budget = budget_of(row)
    return budget is None or budget.room > 0
