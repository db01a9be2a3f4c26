"""The audit of a batch: does everything add up, as the rows of the database tell and not as the counters do.

from producers import audit
assert audit("my-batch").ok
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from producers import audit_checks
from producers.audit_checks import Check, Note
from producers.audit_ledger import Comparison, Reader, compare_with
from producers.audit_leftovers import leftovers
from producers.batches import Batch
from promptmill.errors import ConfigurationError, InvalidInput
from promptmill.pricing import PriceBook
from promptmill.runtime import open_database
from promptmill.settings import REAL_API, Settings, load
from promptmill.store import audit as stored
from promptmill.store import batches, recounting
from promptmill.store.batches import BatchRow
from promptmill.store.database import Database, database_now

if TYPE_CHECKING:
    from promptmill.store.audit import Counted

NOT_COMPARED = (
    "not compared with the simulator's book: set ANTHROPIC_BASE_URL, or name it with --ledger, while it runs"
)


@dataclass(frozen=True, slots=True, repr=False)
class AuditReport:
    """What was found of one batch at one moment.

    Attributes:
        batch: as its row stands.
        at: when, by the database's clock.
        checks: what must hold.
        notes: what is good to know and breaks nothing.
        remarks: sentences about what was not looked at, and why.
        unread: why a book that was asked for by its address could not be read; None where nothing was missed.
    """

    batch: BatchRow
    at: datetime
    checks: tuple[Check, ...]
    notes: tuple[Note, ...]
    remarks: tuple[str, ...] = ()
    unread: str | None = None

    def __repr__(self) -> str:
        broken = ", ".join(check.name for check in self.broken) or "none"
        return f"AuditReport({self.batch.name!r}, ok={self.ok}, checks={len(self.checks)}, broken: {broken})"

    @property
    def ok(self) -> bool:
        """Whether all of it holds, and all that was asked for could be looked at."""
        return self.unread is None and all(check.ok for check in self.checks)

    @property
    def broken(self) -> tuple[Check, ...]:
        """What does not hold."""
        return tuple(check for check in self.checks if not check.ok)


def audit(
    of: Batch | str, *, ledger: str | None = None, recount: bool = False, settings: Settings | None = None
) -> AuditReport:
    """Count a batch anew, while it runs or after.

    A rehearsal is also held against the book of the simulator that answered it, where one can be asked.

    Args:
        of: a batch, its name or its id.
        ledger: the address of the simulator; that of ANTHROPIC_BASE_URL when None. One that is named and cannot be
            read makes the audit fail, with all other checks done.
        recount: first put right what is kept word by word (`batch_count`); workers wait for it with what they report.
        settings: where the database is; those of the surroundings when None.

    Raises:
        NotFound: there is no such batch.
        InvalidInput: `ledger` is no URL.
        ConfigurationError: `ledger` is named, and the batch is no rehearsal.
    """
    if ledger is not None:
        _check_url(ledger)
    settings = settings or (of.settings if isinstance(of, Batch) else load())
    name_or_id = of.id if isinstance(of, Batch) else of
    with open_database(settings) as database:
        if recount:
            _put_right(database, name_or_id)
        batch, counted, now = _count(database, name_or_id, timedelta(seconds=settings.worker.dead_after_s))
        book = _compare(database, batch, ledger, settings)
        left = leftovers(settings, database)
    priced, unpriced = audit_checks.prices(counted, PriceBook(settings.prices))
    checks = (*audit_checks.checks(batch, counted), priced, *book.checks)
    return AuditReport(
        batch=batch,
        at=now,
        checks=checks,
        notes=(*audit_checks.notes(counted), *unpriced, *book.notes, *left),
        remarks=(*book.remarks, *_what_to_do(batch, checks)),
        unread=book.unread,
    )


def _compare(database: Database, batch: BatchRow, ledger: str | None, settings: Settings) -> Comparison:
    """Against the simulator's book; where there is none to ask, why not."""
    if not batch.simulated:
        if ledger is not None:
            raise ConfigurationError(f"{batch.name} is no rehearsal: no simulator has a book about it")
        return Comparison()
    url = ledger or settings.claude.base_url
    if url == REAL_API:
        return Comparison(remarks=(NOT_COMPARED,))
    try:
        return compare_with(Reader(url), database, batch.id)
    except ConfigurationError as error:
        why = f"not compared with the simulator's book: {error}"
        return Comparison(remarks=(why,), unread=None if ledger is None else why)


def _put_right(database: Database, name_or_id: str) -> None:
    with database.begin() as connection:
        recounting.recount(connection, batches.find(connection, name_or_id).id)


def _what_to_do(batch: BatchRow, checks: tuple[Check, ...]) -> Iterator[str]:
    if any(check.is_kept and not check.ok for check in checks):
        command = f"promptmill audit {shlex.quote(batch.name)} --recount"
        yield f"what is kept word by word differs from its rows, which {command} puts right"


def _check_url(ledger: str) -> None:
    parts = urlsplit(ledger)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidInput(f"{ledger} is no URL such as http://127.0.0.1:8787", field="ledger")


def _count(database: Database, name_or_id: str, fresh_for: timedelta) -> "tuple[BatchRow, Counted, datetime]":
    """All of it in one snapshot, so that a batch at work adds up too."""
    with database.read() as connection:
        now = database_now(connection)
        batch = batches.find(connection, name_or_id)
        return batch, stored.count(connection, batch.id, now, fresh_for), now
