"""Schedules for people and for programs: tables, and the document that `schedule … --json` prints. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from producers.documents import stamp
from producers.schedules import Schedule
from producers.tables import columns
from producers.wording import several
from producers.wrapping import folded
from promptmill.pricing import usd
from promptmill.recurrence import RunState
from promptmill.store.schedule_runs import RunRow
from promptmill.store.schedules import ScheduleRow

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))
_LONGEST_WHEN = 30


def document(schedule: Schedule) -> dict[str, Any]:
    """Everything that is known of one schedule; never a prompt."""
    row = schedule.row
    return {
        "schedule_id": row.id,
        "name": row.name,
        "state": row.state.value,
        "cron": row.cron,
        "every_s": row.every_s,
        "timezone": row.timezone,
        "missed": row.missed.value,
        "overlap": row.overlap.value,
        "simulated": row.simulated,
        "file": row.what.get("source"),
        "prompts": len(row.what.get("prompts", ())),
        "next_due": [stamp(due) for due in schedule.next_due],
        "runs": [_run(run) for run in schedule.runs],
        "hint": schedule.hint,
        "created_at": stamp(row.created_at),
    }


def table(schedules: Sequence[Schedule]) -> str:
    """One line a schedule; times are those of its zone."""
    head = ("NAME", "WHEN", "NEXT", "LAST", "COST USD")
    return columns(head, [_line(each) for each in schedules])


def page(schedule: Schedule) -> str:
    """One schedule with its due times to come and its last runs."""
    row = schedule.row
    source = row.what.get("source") or several(len(row.what.get("prompts", ())), "prompt")
    facts = {
        "schedule": f"{row.name} ({row.id})" + (", simulated" if row.simulated else ""),
        "when": f"{when(row)}, {row.timezone}",
        "state": row.state.value,
        "submits": source,
        "missed": row.missed.value,
        "overlap": row.overlap.value,
        "next": ", ".join(local(row, due) for due in schedule.next_due) or "never",
    }
    if schedule.hint:
        facts["but"] = schedule.hint
    lines = [folded(f"{name:<10}{value}", indent=" " * 10) for name, value in facts.items()]
    if schedule.runs:
        lines += ["", columns(("DUE", "RUN", "COST USD", "BATCH"), [_row(row, run) for run in schedule.runs])]
    lines += [folded(f"{local(row, run.due_at)}: {run.reason}") for run in schedule.runs if run.reason]
    return "\n".join(lines)


def when(row: ScheduleRow) -> str:
    """`every 15m`, or the cron expression."""
    if row.every_s is None:
        return row.cron or ""
    for seconds, unit in _UNITS:
        if row.every_s % seconds == 0:
            return f"every {row.every_s // seconds}{unit}"
    return f"every {row.every_s}s"


def local(row: ScheduleRow, moment: datetime) -> str:
    """A time in the zone of the schedule, with what that is from UTC."""
    there = moment.astimezone(row.timetable.zone)
    text = there.strftime("%Y-%m-%d %H:%M" + (":%S" if there.second else ""))
    offset = there.strftime("%z")
    return text + ("Z" if offset == "+0000" else f"{offset[:3]}:{offset[3:]}")


def state_of(run: RunRow) -> str:
    """What became of a due time, in a few words."""
    if run.state is RunState.SUBMITTED:
        if run.batch_state is None:
            return "submitted; the batch is gone"
        return f"{run.batch_state.value} {run.succeeded or 0:,}/{run.total or 0:,}"
    if run.state is RunState.FAILED and run.try_after is not None:
        return "failed, will be tried again"
    return run.state.value


def _line(schedule: Schedule) -> tuple[str, ...]:
    row, last = schedule.row, next(iter(schedule.runs), None)
    shown = when(row)
    return (
        row.name + (" (simulated)" if row.simulated else ""),
        shown if len(shown) <= _LONGEST_WHEN else f"{shown[: _LONGEST_WHEN - 1]}…",
        local(row, schedule.next_due[0]) if schedule.next_due else row.state.value,
        "" if last is None else state_of(last),
        "" if last is None else usd(last.cost_nanos) or "",
    )


def _row(row: ScheduleRow, run: RunRow) -> tuple[str, ...]:
    manual = " (by hand)" if run.manual else ""
    return (
        local(row, run.due_at) + manual,
        state_of(run),
        usd(run.cost_nanos) or "",
        run.batch_name or run.batch_id or "",
    )


def _run(run: RunRow) -> dict[str, Any]:
    return {
        "due_at": stamp(run.due_at),
        "state": run.state.value,
        "manual": run.manual,
        "reason": run.reason,
        "tries": run.tries,
        "try_after": stamp(run.try_after),
        "batch_id": run.batch_id,
        "batch": run.batch_name,
        "batch_state": None if run.batch_state is None else run.batch_state.value,
        "jobs": None if run.total is None else {"total": run.total, "succeeded": run.succeeded},
        "cost_usd": usd(run.cost_nanos),
        "unpriced_attempts": run.unpriced_attempts,
    }
