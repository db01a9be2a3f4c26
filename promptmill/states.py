"""The states of jobs and batches, and which change may follow which.

Job    pending → queued → running → succeeded | errored | canceled | expired
         ↑ defer, reap ────┘ (also from running)
       pending → submitted (inside a MessageBatch) → succeeded | errored | canceled | pending
Batch  admitting → active ⇄ paused → canceling → ended, and back to active when jobs are retried

`store` makes each change as a guarded statement; this table is what the guards are tested against.
"""

from enum import StrEnum

from promptmill.errors import InvalidTransition


class Lane(StrEnum):
    """How a job travels: one call of its own, or inside a MessageBatch at half price."""

    REALTIME = "realtime"
    BULK = "bulk"


class JobState(StrEnum):
    """Where a job stands; the words of the Message Batches API where it has one."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    SUBMITTED = "submitted"
    SUCCEEDED = "succeeded"
    ERRORED = "errored"
    CANCELED = "canceled"
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        """True when the job will not be worked on again unless a person retries it."""
        return self in TERMINAL_JOB_STATES


class BatchState(StrEnum):
    """Where a batch stands."""

    ADMITTING = "admitting"
    ACTIVE = "active"
    PAUSED = "paused"
    CANCELING = "canceling"
    ENDED = "ended"


class PausedBy(StrEnum):
    """Who or what paused a batch; each has its own way to go on."""

    PERSON = "person"
    BUDGET = "budget"
    SPEND_CAP = "spend_cap"
    KEY = "key"
    ENCRYPTION = "encryption"


TERMINAL_JOB_STATES = frozenset({JobState.SUCCEEDED, JobState.ERRORED, JobState.CANCELED, JobState.EXPIRED})

JOB_CHANGES: dict[JobState, frozenset[JobState]] = {
    # Completion from pending and queued is the late answer of a holder of the newest token.
    JobState.PENDING: frozenset({JobState.QUEUED, JobState.SUBMITTED}) | TERMINAL_JOB_STATES,
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.PENDING}) | TERMINAL_JOB_STATES,
    JobState.RUNNING: frozenset({JobState.PENDING}) | TERMINAL_JOB_STATES,
    JobState.SUBMITTED: frozenset({JobState.PENDING}) | TERMINAL_JOB_STATES - {JobState.EXPIRED},
    JobState.SUCCEEDED: frozenset({JobState.PENDING}),
    # Succeeding is the late answer to a job that was given up because its workers were lost.
    JobState.ERRORED: frozenset({JobState.PENDING, JobState.SUCCEEDED}),
    JobState.CANCELED: frozenset({JobState.PENDING}),
    JobState.EXPIRED: frozenset({JobState.PENDING}),
}

BATCH_CHANGES: dict[BatchState, frozenset[BatchState]] = {
    BatchState.ADMITTING: frozenset({BatchState.ACTIVE, BatchState.CANCELING, BatchState.ENDED}),
    BatchState.ACTIVE: frozenset({BatchState.PAUSED, BatchState.CANCELING, BatchState.ENDED}),
    BatchState.PAUSED: frozenset({BatchState.ACTIVE, BatchState.CANCELING, BatchState.ENDED}),
    BatchState.CANCELING: frozenset({BatchState.ENDED}),
    BatchState.ENDED: frozenset({BatchState.ACTIVE}),
}


def check_batch_change(current: BatchState, target: BatchState) -> None:
    """Raise InvalidTransition unless a batch may go from `current` to `target`."""
    if target not in BATCH_CHANGES[current]:
        raise InvalidTransition(f"a batch that is {current} cannot become {target}")
