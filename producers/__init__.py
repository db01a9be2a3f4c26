"""What a person or an upstream program asks of Promptmill, from Python as from the command line.

    from producers import submit, wait, results

Names are loaded when they are first used: importing this package takes no database layer and no HTTP client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producers.answers import Result as Result
    from producers.auditing import AuditReport as AuditReport
    from producers.auditing import audit as audit
    from producers.batches import Batch as Batch
    from producers.batches import batch as batch
    from producers.batches import list_batches as list_batches
    from producers.batches import results as results
    from producers.batches import wait as wait
    from producers.failed import Failures as Failures
    from producers.forecast import estimate as estimate
    from producers.keys import KeysNow as KeysNow
    from producers.keys import list_keys as list_keys
    from producers.limits_forget import forget_limits as forget_limits
    from producers.limits_now import LimitsNow as LimitsNow
    from producers.limits_now import limits as limits
    from producers.limits_now import watch_limits as watch_limits
    from producers.limits_probe import probe_limits as probe_limits
    from producers.purge import purge as purge
    from producers.running import run as run
    from producers.submission import submit as submit
    from producers.watch import Moment as Moment
    from promptmill.store.stats import BatchStatus as BatchStatus

_HOMES = {
    "AuditReport": "producers.auditing",
    "Batch": "producers.batches",
    "BatchStatus": "promptmill.store.stats",
    "Failures": "producers.failed",
    "KeysNow": "producers.keys",
    "LimitsNow": "producers.limits_now",
    "Moment": "producers.watch",
    "Result": "producers.answers",
    "audit": "producers.auditing",
    "batch": "producers.batches",
    "estimate": "producers.forecast",
    "forget_limits": "producers.limits_forget",
    "limits": "producers.limits_now",
    "list_batches": "producers.batches",
    "list_keys": "producers.keys",
    "probe_limits": "producers.limits_probe",
    "purge": "producers.purge",
    "results": "producers.batches",
    "run": "producers.running",
    "submit": "producers.submission",
    "wait": "producers.batches",
    "watch_limits": "producers.limits_now",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605  # a list of names, sorted


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
