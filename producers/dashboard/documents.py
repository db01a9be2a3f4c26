"""What the page is told, as JSON: the documents of the commands, with what a page needs beside. Pure.

The one idea: what a server said of a failure may quote a prompt, so it stays out, here as everywhere in the page.
"""

from collections.abc import Mapping
from typing import Any

from producers.documents import list_document, stamp, status_document
from producers.folding import Fold
from producers.limits_document import limits_document
from producers.limits_now import LimitsNow
from producers.watch import Moment
from promptmill.logs import scrub
from promptmill.pricing import usd
from promptmill.states import BatchState, JobState
from promptmill.store.batches import BatchRow
from promptmill.store.workers import WorkerRow

__all__ = ["NOTHING", "batch_entry", "batch_page", "limits_entry", "stamp", "worker_entry"]

NOTHING: dict[str, Any] = {
    "at": None,
    "batches": [],
    "more": 0,
    "jobs_left": 0,
    "limits": None,
    "workers": [],
    "keys": None,
    "schedules": None,
}
"""An overview before the first look."""
_NOT_SHOWN = ("message",)


def batch_entry(row: BatchRow, moment: Moment | None, folded: Fold | None = None) -> dict[str, Any]:
    """One line of the list; `moment` is None for a batch that has ended."""
    folded = folded or Fold()
    [entry] = list_document([row])
    jobs = moment.status.jobs if moment else {}
    more = {state.value: jobs.get(state, 0) for state in JobState if state.value not in entry["jobs"]}
    return {
        **entry,
        "jobs": {**entry["jobs"], **more},
        "model": row.model,
        "estimate_usd": usd(row.estimate_nanos),
        "budget_usd": usd(row.budget_nanos),
        "schedule": folded.schedule,
        "more_runs": folded.more,
        **_live(moment),
    }


def batch_page(moment: Moment) -> dict[str, Any]:
    """Everything of one batch: the document of `status`, and what it says in words."""
    batch = moment.status.batch
    document = status_document(moment)
    document["errors"] = [_without(group, _NOT_SHOWN) for group in document["errors"]]
    return {
        **document,
        "model": batch.model,
        "endpoint": scrub(batch.endpoint),
        "priority": batch.priority,
        "deadline": stamp(batch.deadline),
        "paused_by": batch.paused_by and batch.paused_by.value,
        "unpriced_attempts": batch.unpriced_attempts,
        "workers": moment.workers,
        "tokens_per_s": round(moment.tokens_per_s, 1),
        "bound_by_default": moment.bound_by_default,
        "resting": moment.resting and {"jobs": moment.resting[0], "next_in_s": round(moment.resting[1])},
        "larger_budget_usd": moment.larger_budget if batch.budget_nanos is not None else None,
        **_live(moment),
    }


def limits_entry(now: LimitsNow) -> dict[str, Any]:
    """The document of `limits`, with which of the pools are in use."""
    in_use = {(state.pool.account, state.pool.group) for state in now.in_use}
    document = limits_document(now)
    for pool in document["pools"]:
        pool["in_use"] = (pool["account"], pool["group"]) in in_use
    return document


def worker_entry(worker: WorkerRow) -> dict[str, Any]:
    """A worker process that lives."""
    return {
        "id": worker.id,
        "host": worker.host,
        "pid": worker.pid,
        "version": worker.version,
        "endpoint": None if worker.endpoint is None else scrub(worker.endpoint),
        "slots": worker.slots,
        "running": worker.running,
        "started_at": stamp(worker.started_at),
        "seen_at": stamp(worker.seen_at),
    }


def _live(moment: Moment | None) -> dict[str, Any]:
    if moment is None:
        return {"answers_per_s": 0.0, "eta_s": None, "hint": None}
    return {
        "answers_per_s": round(moment.answers_per_s, 2),
        "eta_s": None if moment.eta_s is None else round(moment.eta_s),
        # The state says the reason of a pause already.
        "hint": None if moment.status.batch.state is BatchState.ENDED else moment.what_to_do,
    }


def _without(document: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names}
