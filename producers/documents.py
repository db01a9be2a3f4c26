"""What `--json` prints about batches: the documents of the architecture, section 7. Pure."""

from datetime import UTC, datetime
from typing import Any

from producers.failed import Failures, failures_document
from producers.prediction import Prediction
from producers.watch import Moment
from promptmill.intake.forecast import Expected
from promptmill.pricing import usd
from promptmill.states import JobState
from promptmill.store.batches import BatchRow


def status_document(moment: Moment) -> dict[str, Any]:
    """Everything `status` knows about one batch."""
    status = moment.status
    batch = status.batch
    return {
        **_identity(batch),
        "jobs": {"total": batch.total, **{state.value: status.jobs.get(state, 0) for state in JobState}},
        "usage": {
            "input_tokens": batch.input_tokens,
            "output_tokens": batch.output_tokens,
            "cache_creation_input_tokens": batch.cache_write_tokens,
            "cache_read_input_tokens": batch.cache_read_tokens,
        },
        "cost_usd": usd(batch.cost_nanos),
        "estimate_usd": usd(batch.estimate_nanos),
        "projected_usd": moment.prediction and usd(moment.prediction.projected_nanos),
        "predicted": moment.prediction and _prediction(moment.prediction),
        "budget_usd": usd(batch.budget_nanos),
        "reserved_usd": usd(batch.reserved_nanos),
        "unknown_usd": usd(batch.unknown_nanos),
        "attempts": batch.attempts,
        "failures": dict(status.failures),
        **failures_document(moment.failures or Failures()),
        **_times(batch),
        "notify": _notify(batch, moment.told_host, moment.told_fault),
        "elapsed_s": round(status.elapsed_s, 3),
        "eta_s": None if moment.eta_s is None else round(moment.eta_s, 1),
        "bound_by": moment.bound_by,
    }


def list_document(batches: list[BatchRow]) -> list[dict[str, Any]]:
    """One short entry for each batch, in the words of `status_document`."""
    return [
        {
            **_identity(batch),
            "jobs": {
                "total": batch.total,
                "succeeded": batch.succeeded,
                "errored": batch.errored,
                "canceled": batch.canceled,
                "expired": batch.expired,
            },
            "cost_usd": usd(batch.cost_nanos),
            **_times(batch),
        }
        for batch in batches
    ]


def _notify(batch: BatchRow, host: str | None, fault: str | None) -> dict[str, Any] | None:
    """Who is told of the end, and whether they were told of the state it is in."""
    if not batch.is_told:
        return None
    when = stamp(batch.notified_at)
    return {
        "host": host,
        "told_at": None if batch.notify_tries else when,
        "given_up_at": when if batch.notify_tries else None,
        "failed_tries": batch.notify_tries,
        "next_try_at": stamp(batch.notify_after),
        "last_fault": fault,
    }


def _prediction(prediction: Prediction) -> dict[str, Any]:
    return {
        "jobs": prediction.jobs,
        "as_admitted": prediction.as_admitted and figures(prediction.as_admitted),
        "as_learned": figures(prediction.as_learned),
        "actual": figures(prediction.actual),
    }


def figures(expected: Expected) -> dict[str, Any]:
    """Tokens, cached or not, and dollars."""
    return {
        "input_tokens": expected.input_tokens,
        "output_tokens": expected.output_tokens,
        "cost_usd": usd(expected.cost_nanos),
    }


def _identity(batch: BatchRow) -> dict[str, Any]:
    return {
        "batch_id": batch.id,
        "name": batch.name,
        "state": batch.state.value,
        "simulated": batch.simulated,
        "reason": batch.reason,
        "lane": batch.lane.value,
    }


def _times(batch: BatchRow) -> dict[str, str | None]:
    return {
        "created_at": stamp(batch.created_at),
        "started_at": stamp(batch.started_at),
        "ended_at": stamp(batch.ended_at),
        "purged_at": stamp(batch.purged_at),
    }


def stamp(moment: datetime | None) -> str | None:
    """UTC in the form the API uses, to the microsecond."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
