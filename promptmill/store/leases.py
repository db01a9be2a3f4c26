"""The lease: a worker's right to write the outcome of a job, and the attempt opened with it.

Granting and opening are one commit. The token grows at every grant, so of two workers that both believe
they hold a job, only the newer one changes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from promptmill.states import Lane


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A wish to begin a job: the permit is in hand, the call is about to be made.

    Attributes:
        dispatch: the number the message carried; another number means a newer message is out.
        attempt_id: a fresh id for the attempt (`new_id("attempt")`).
        reserved_nanos: nano-dollars set aside for the call; None when its price is unknown.
    """

    job_id: str
    dispatch: int
    attempt_id: str
    key_label: str
    account: str
    model: str
    reserved_nanos: int | None
    simulated: bool
    opened_at: datetime
    lane: Lane = Lane.REALTIME


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to write one job's outcome; `number` counts the attempts of the job from 1."""

    job_id: str
    token: int
    attempt_id: str
    number: int


def begin(conn: Connection, claims: Sequence[Claim], worker_id: str, now: datetime) -> dict[str, Lease]:
    """Grant leases and open their attempts; what is missing in the answer was refused.

    Refused is a job that is not `queued` under that dispatch number, or whose batch is not `active`.
    A job claimed twice in one group is granted once, to the first claim: compare `attempt_id`.
    """
    raise NotImplementedError
