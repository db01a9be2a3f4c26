"""Pausing what nothing can call for: a batch without a key, or everything at an endpoint whose accounts rest.

What a worker knows may be old: a person may have let a batch go on meanwhile, and another worker have seen it. So
the database is asked first.
"""

from dataclasses import dataclass
from datetime import datetime

from promptmill.clock import Clock
from promptmill.logs import get_logger
from promptmill.states import PausedBy
from promptmill.store import batches, control
from promptmill.store.database import Database

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Held:
    """Why a batch, or everything at an endpoint, waits until a person acts or until `resume_at`.

    `since` is when the call was sent that was refused; what went on after that is not paused for it.
    """

    batch_id: str
    endpoint: str | None
    reason: str
    by: PausedBy
    resume_at: datetime | None = None
    since: datetime | None = None


def pause_held(database: Database, held: Held, clock: Clock) -> datetime | None:
    """Pause what is held, one batch a transaction, so that no two workers lock batches in a ring.

    Nothing is paused when a batch of the endpoint went on since: then the answer is when, and the account is to be
    asked again.

    Raises:
        Unavailable: the database is away.
    """
    with database.read() as connection:
        went_on = batches.last_resumed(connection, held.batch_id)
        active = batches.active(connection)
    if held.since is not None and went_on is not None and went_on >= held.since:
        return went_on
    for batch in active:
        if held.batch_id == batch.id or held.endpoint == batch.endpoint:
            with database.begin() as connection:
                paused = control.hold(
                    connection,
                    batch.id,
                    held.reason,
                    clock.now(),
                    by=held.by,
                    resume_at=held.resume_at,
                    since=held.since,
                )
            if paused:
                log.warning("batch_paused", batch_id=batch.id, by=held.by, until=held.resume_at)
    return None


def resume_for_key(database: Database, endpoint: str) -> None:
    """There is a new key: what calls this endpoint and was paused for want of one goes on.

    Raises:
        Unavailable: the database is away.
    """
    with database.begin() as connection:
        resumed = control.resume_held(connection, PausedBy.KEY, endpoint)
    for batch_id in resumed:
        log.warning("batch_resumed", batch_id=batch_id, why="there is a new key")


def why_closed(key_id: str | None) -> str:
    """Why a batch waits whose texts nobody can open; by this it is found again where that key is."""
    return (
        f"encrypted with key {key_id}, which no worker has"
        if key_id
        else "encrypted with a key that no worker has"
    )


def resume_for_opened(database: Database, endpoint: str) -> None:
    """What calls this endpoint and was paused for want of a key that texts are opened with here goes on.

    Raises:
        Unavailable: the database is away.
    """
    reasons = [why_closed(key_id) for key_id in database.key_ids]
    if not reasons:
        return
    with database.read() as connection:
        waits = control.held(connection, PausedBy.ENCRYPTION, endpoint, reasons)
    if not waits:
        return
    with database.begin() as connection:
        resumed = control.resume_held(connection, PausedBy.ENCRYPTION, endpoint, reasons)
    for batch_id in resumed:
        log.warning("batch_resumed", batch_id=batch_id, why="this worker has its key")
