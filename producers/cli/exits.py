"""Exit codes: a contract with scripts."""

from enum import IntEnum
from typing import TYPE_CHECKING

from promptmill.states import PausedBy

if TYPE_CHECKING:
    from promptmill.store.stats import BatchStatus


class Exit(IntEnum):
    """What a command ends with."""

    DONE = 0
    FAILURE = 1
    USAGE = 2
    SOME_FAILED = 3
    STOPPED = 4
    INTERRUPTED = 130


def exit_for(status: "BatchStatus") -> Exit:
    """The code for a batch on which nobody works any more: whether every job succeeded, or what stopped it."""
    batch = status.batch
    if batch.paused_by in (PausedBy.KEY, PausedBy.SPEND_CAP, PausedBy.ENCRYPTION):
        return Exit.FAILURE
    if batch.expired or batch.paused_by is PausedBy.BUDGET:
        return Exit.STOPPED
    return Exit.DONE if batch.succeeded == batch.total else Exit.SOME_FAILED
