"""Notices: who is to be told that a batch ended or was paused by itself, and whether they were.

The one idea: a notice is owed while `notified_at` is empty, and every change of state empties it. Whoever sends one
claims it first, for longer than sending takes, so two leaders seldom send the same and a dead one is followed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection, Text, and_, case, null, or_, select, text, type_coerce, update

from promptmill.states import BatchState, PausedBy
from promptmill.store import batches
from promptmill.store.batches import BatchRow
from promptmill.store.sealing import unseal_if_possible
from promptmill.store.tables import NOTICE_AGAIN, NOTICE_OWED, batch

MOST_TRIES = 30
"""About a day: half a minute after the first, twice as long after each, an hour at most."""

_FIRST_WAIT = timedelta(seconds=30)
_LONGEST_WAIT = timedelta(hours=1)
_AT_ONCE = 20
_LONGEST_FAULT = 200


@dataclass(frozen=True, slots=True)
class Notice:
    """A batch whose state is to be told.

    Attributes:
        batch: as it stood.
        tries: how often it was tried before.
        url: where to; None where no key opens it. It may be a secret.
    """

    batch: BatchRow
    tries: int
    url: str | None = field(repr=False)

    @property
    def is_last(self) -> bool:
        """Whether it is given up if it fails once more."""
        return self.tries + 1 >= MOST_TRIES


def due(conn: Connection, now: datetime) -> Sequence[Notice]:
    """Notices to be sent now, some of them."""
    told_of = or_(
        batch.c.state == BatchState.ENDED,
        and_(batch.c.state == BatchState.PAUSED, batch.c.paused_by != PausedBy.PERSON),
    )
    may = or_(batch.c.notify_after.is_(None), batch.c.notify_after <= now)
    # What was never tried goes first: many receivers that are away then hold up nobody else.
    oldest = select(batch.c.id).order_by(batch.c.notify_after.nulls_first()).limit(_AT_ONCE)
    ids = conn.scalars(oldest.where(text(NOTICE_OWED), told_of, may)).all()
    rows = [batches.get(conn, each) for each in ids]
    return [Notice(row, row.notify_tries, batches.told_address(conn, row.id)) for row in rows]


def claim(conn: Connection, notice: Notice, now: datetime) -> bool:
    """Take a notice to send it; False where somebody else has, or the batch went on."""
    wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(notice.tries, MOST_TRIES))
    claimed = (
        update(batch)
        .where(
            batch.c.id == notice.batch.id,
            text(NOTICE_OWED),
            batch.c.state == notice.batch.state,
            batch.c.notify_tries == notice.tries,
        )
        .values(notify_tries=notice.tries + 1, notify_after=now + wait)
    )
    return bool(conn.execute(claimed).rowcount)


def failed(conn: Connection, notice: Notice, why: str) -> None:
    """A notice that was claimed was not sent; said to people until it is, or until another is owed."""
    is_it = (batch.c.id == notice.batch.id, batch.c.notify_tries == notice.tries + 1)
    is_same = batch.c.state == notice.batch.state
    conn.execute(update(batch).where(*is_it, is_same).values(notify_fault=why[:_LONGEST_FAULT]))


def last_fault(conn: Connection, batch_id: str) -> str | None:
    """Why the last try to tell of a batch failed; None where it did not, and where no key opens that."""
    stored = type_coerce(batch.c.notify_fault, Text)
    return unseal_if_possible(conn.dialect, conn.scalar(select(stored).where(batch.c.id == batch_id)))


def settle(conn: Connection, notice: Notice, now: datetime, *, is_told: bool) -> None:
    """A notice that was claimed was sent, or is given up; if the batch changed meanwhile, the change is owed at once.

    `notified_at` says when; one that was given up keeps the number of its tries.
    """
    is_same = batch.c.state == notice.batch.state
    settled = (
        update(batch)
        .where(batch.c.id == notice.batch.id, batch.c.notify_tries == notice.tries + 1)
        .values(
            notified_at=case((is_same, now), else_=null()),
            notify_tries=0 if is_told else case((is_same, batch.c.notify_tries), else_=0),
            notify_after=None,
            notify_fault=null() if is_told else case((is_same, batch.c.notify_fault), else_=null()),
        )
    )
    conn.execute(settled)


def send_to(conn: Connection, batch_id: str, url: str) -> None:
    """From now on another address is told; what was told the former one of the present state is told anew."""
    if batches.told_address(conn, batch_id) != url:
        conn.execute(update(batch).where(batch.c.id == batch_id).values(notify_url=url, **NOTICE_AGAIN))
