"""Figures: what `status` and the dispatcher ask. Kept counters and partial indexes, no scan of a batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from promptmill.states import JobState
from promptmill.store.batches import BatchRow


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatus:
    """A batch and its figures at one moment.

    Attributes:
        jobs: a count for every JobState; `batch.total` is their sum.
        failures: closed attempts that did not succeed, by kind.
        elapsed_s: seconds from the first attempt to the end or to now; 0 before the first.
    """

    batch: BatchRow
    jobs: Mapping[JobState, int]
    failures: Mapping[str, int]
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class GroupCount:
    """What is out for one model group: at the broker, in flight, and begun in the last 10 seconds."""

    queued: int = 0
    running: int = 0
    starts: int = 0


def status(conn: Connection, batch_id: str, now: datetime) -> BatchStatus:
    """The figures of one batch.

    Raises:
        NotFound: there is no such batch.
    """
    raise NotImplementedError


def window_counts(conn: Connection, now: datetime) -> Mapping[str, GroupCount]:
    """Per model group what is queued and running over all batches, and starts of the last 10 seconds."""
    raise NotImplementedError
