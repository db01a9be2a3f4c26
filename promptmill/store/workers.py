"""Worker processes: one row each, kept fresh; a process lives while its row is.

Pass the database's time (`database_now`) as `now`, because the clocks of machines differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

FRESH_FOR = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWorker:
    """A worker process that has come up; `slots` is how many calls it may have in flight."""

    id: str
    host: str
    pid: int
    version: str
    endpoint: str | None
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow:
    """A worker process as it was last seen; `running` is its calls in flight."""

    id: str
    host: str
    pid: int
    version: str
    endpoint: str | None
    slots: int
    running: int
    started_at: datetime
    seen_at: datetime
    stopped_at: datetime | None


def register(conn: Connection, worker: NewWorker, now: datetime) -> None:
    """A process is up; done again under the same id it is up again."""
    raise NotImplementedError


def beat(conn: Connection, worker_id: str, running: int, now: datetime) -> bool:
    """Still alive; False when the row is gone or stopped and the process must register again."""
    raise NotImplementedError


def leave(conn: Connection, worker_id: str, now: datetime) -> None:
    """The process ends; what it still runs is taken back at the next `reap`."""
    raise NotImplementedError


def live(conn: Connection, now: datetime, fresh_for: timedelta = FRESH_FOR) -> Sequence[WorkerRow]:
    """The processes seen within `fresh_for`, oldest first."""
    raise NotImplementedError


def reap(conn: Connection, now: datetime, fresh_for: timedelta = FRESH_FOR) -> Sequence[str]:
    """Take back the running jobs of processes that are not alive; their ids.

    They become `pending` (`canceled` in a batch that is being canceled); their attempts are closed as
    `lost`, with cost and usage unknown until the late writer returns and says.
    """
    raise NotImplementedError
