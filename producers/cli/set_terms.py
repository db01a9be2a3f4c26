"""`promptmill set`."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

import producers
from producers.cli.control import unless_worked_on
from producers.cli.options import AsJson, BatchName
from producers.cli.printing import log_to_stderr, put_json, say

if TYPE_CHECKING:
    from promptmill.store.batches import BatchRow


def set_terms(
    batch: BatchName,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="50|none", help="Dollars the batch may cost; or none.")
    ] = None,
    priority: Annotated[
        str | None, typer.Option("--priority", metavar="P", help="high, normal, low, or a weight.")
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            "--deadline",
            metavar="24h|none",
            help="Begin nothing after this: 90m, 24h, 3d, a moment; or none.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change the terms of a batch while it runs; it acts within two seconds."""
    from producers.documents import status_document  # noqa: PLC0415  # the database layer takes 0.5 s
    from promptmill.errors import InvalidInput  # noqa: PLC0415  # likewise

    if budget is None and priority is None and deadline is None:
        raise typer.BadParameter("say what to change: --budget, --priority or --deadline")
    handle = producers.batch(batch)
    try:
        status = handle.set(budget=budget, priority=priority, deadline=deadline)
    except InvalidInput as error:
        raise typer.BadParameter(error.why, param_hint=f"--{error.field}") from error
    if as_json:
        log_to_stderr()
        put_json(status_document(handle.look()))
    else:
        say(_sentence(status.batch) + unless_worked_on(handle.look()))


def _weight(priority: float) -> str:
    from producers.terms import PRIORITIES  # noqa: PLC0415  # the database layer takes 0.5 s

    word = next((word for word, weight in PRIORITIES.items() if weight == priority), None)
    return f"{word} ({priority:g})" if word else f"{priority:g}"


def _moment(deadline: datetime) -> str:
    """UTC; to the second where that is near enough to matter."""
    is_near = deadline - datetime.now(UTC) < timedelta(hours=1)
    return f"{deadline:%Y-%m-%d %H:%M:%S} UTC" if is_near else f"{deadline:%Y-%m-%d %H:%M} UTC"


def _sentence(row: "BatchRow") -> str:
    """What holds now, and what becomes of the batch."""
    from promptmill.budgets import dollars  # noqa: PLC0415  # needed here alone
    from promptmill.store.terms import budget_of  # noqa: PLC0415  # the database layer takes 0.5 s

    budget = f"a budget of {dollars(row.budget_nanos)}" if row.budget_nanos is not None else "no budget"
    deadline = f"the deadline {_moment(row.deadline)}" if row.deadline else "no deadline"
    terms = f"{row.name} has priority {_weight(row.priority)}, {budget} and {deadline}"
    if row.state == "paused":
        return f"{terms}; it is paused: {row.reason}"
    used_up = "; the budget is used up already" if (left := budget_of(row)) and left.is_used_up else ""
    if row.state == "ended":
        return f"{terms}; it has ended, so they hold for what is retried{used_up}"
    return terms + (
        f"{used_up}, so the batch pauses when the calls in flight have finished" if used_up else ""
    )
