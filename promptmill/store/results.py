"""Results: the jobs of a batch in the order of submission, streamed page by page."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from promptmill.states import JobState
from promptmill.usage import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultError:
    """The last attempt that failed: what it was and what the server said."""

    kind: str
    status: int | None
    type: str | None
    code: str | None
    message: str | None
    request_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRow:
    """One job with its answer and what it took.

    Attributes:
        usage: summed over all attempts.
        cost_nanos: the sum of the attempts with a known cost; None when no attempt has one.
        unpriced_attempts: closed attempts with an unknown cost, which `cost_nanos` does not hold.
        error: None when the job succeeded or nothing failed.
    """

    custom_id: str
    job_id: str
    seq: int
    state: JobState
    message: Mapping[str, Any] | None
    text: str | None
    stop_reason: str | None
    parsed: Any
    usage: Usage
    cost_nanos: int | None
    unpriced_attempts: int
    attempts: int
    error: ResultError | None
    source: Mapping[str, Any] | None
    simulated: bool


def iterate(
    conn: Connection, batch_id: str, only: Collection[JobState] | None = None, *, page: int = 200
) -> Iterator[ResultRow]:
    """The jobs of a batch in submission order, `page` at a time, so memory does not grow with the batch.

    Args:
        conn: used until the iterator ends.
        batch_id: which batch.
        only: the states wanted; all when None.
        page: rows read at once.
    """
    raise NotImplementedError
