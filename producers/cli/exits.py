"""Exit codes: a contract with scripts."""

from enum import IntEnum
from typing import TYPE_CHECKING

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
    """The code for a batch that has ended: whether every job succeeded, and if not, whether a deadline was why."""
    batch = status.batch
    if batch.expired:
        return Exit.STOPPED
    return Exit.DONE if batch.succeeded == batch.total else Exit.SOME_FAILED
