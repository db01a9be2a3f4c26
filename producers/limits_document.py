"""What `promptmill limits --json` and `limits probe --json` print. Pure."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from producers.limits_now import Backlog, LimitsNow, SetLimits
from producers.limits_probe import Probe
from producers.limits_wording import why
from promptmill.dimensions import DIMENSIONS

if TYPE_CHECKING:
    from promptmill.limits import DimensionState, PoolState


def limits_document(now: LimitsNow) -> dict[str, Any]:
    """Everything `limits` knows; rates per minute, shares from 0 to 1."""
    return {
        "silence": now.silence,
        "workers": None if now.backlog is None else now.backlog.workers,
        "pools": [_pool(state, now.backlog) for state in now.pools],
        "waiting": None if now.backlog is None else _waiting(now.backlog),
        "set": [set_document(entry) for entry in now.set_limits],
    }


def probe_document(probe: Probe) -> dict[str, Any]:
    """What the Rate Limits API stated, beside what is set and in force; null is not said, 0 is no limit."""
    return {
        "account": probe.account,
        "workspace": probe.workspace,
        "told": probe.silence is None,
        "silence": probe.silence,
        "groups": [
            {
                "group": each.group,
                "name": each.name,
                "known": each.known,
                "stated": {dimension.value: getattr(each, dimension.value) for dimension in DIMENSIONS},
                "set": {
                    dimension.value: getattr(each.configured, dimension.value) for dimension in DIMENSIONS
                },
                "in_force": None if each.in_force is None else _in_force(each.in_force),
            }
            for each in probe.groups
        ],
        "others": [asdict(each) for each in probe.others],
    }


def set_document(entry: SetLimits) -> dict[str, Any]:
    """What a person set: null is learned, 0 is no limit."""
    return {
        "account": entry.account,
        "group": entry.group,
        "requests": entry.requests,
        "input_tokens": entry.input_tokens,
        "output_tokens": entry.output_tokens,
    }


def _pool(state: "PoolState", backlog: Backlog | None) -> dict[str, Any]:
    return {
        "account": state.pool.account,
        "group": state.pool.group,
        "dimensions": {each.dimension.value: _dimension(each) for each in state.dimensions},
        "in_flight": state.in_flight,
        "processes_in_line": state.processes_waiting,
        "paused_for_s": round(state.paused_for, 3),
        "share": round(state.share, 4),
        "gentle_start": round(state.ramp, 4),
        "easing": round(state.easing, 4),
        "held_by": None if state.held_by is None else state.held_by.value,
        "next_call": why(state, backlog),
    }


def _in_force(state: "PoolState") -> dict[str, Any]:
    return {
        each.dimension.value: {"limit": each.limit, "source": each.source.value} for each in state.dimensions
    }


def _dimension(each: "DimensionState") -> dict[str, Any]:
    limited = each.limit is not None
    return {
        "limit": each.limit,
        "source": each.source.value,
        "used": round(each.used_per_minute, 1),
        "used_share": round(each.used_per_minute / each.limit, 4) if each.limit else None,
        "bucket": round(each.level, 1) if limited else None,
        "bucket_capacity": round(each.capacity, 1) if limited else None,
        "burst": round(each.burst, 1) if limited else None,
        "other_programs": round(each.foreign, 1) if limited else None,
        "allowed": round(each.pace, 1) if limited else None,
    }


def _waiting(backlog: Backlog) -> list[dict[str, Any]]:
    groups = sorted({each.model_group for each in backlog.jobs})
    return [
        {
            "group": group,
            "pending": sum(each.pending for each in backlog.of_group(group)),
            "queued": sum(each.queued for each in backlog.of_group(group)),
            "running": sum(each.running for each in backlog.of_group(group)),
            "batches": [
                {
                    "batch_id": each.batch_id,
                    "name": each.batch_name,
                    "pending": each.pending,
                    "queued": each.queued,
                    "running": each.running,
                }
                for each in backlog.of_group(group)
            ],
        }
        for group in groups
    ]
