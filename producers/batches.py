"""A batch in your hands: wait for it, read its results; pause, resume, cancel or retry it, change its terms.

A Batch is a name for rows in the database and holds nothing open; the workers go on without it.
"""

import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Protocol

from producers import answers
from producers.answers import Result
from producers.bottleneck import Bottleneck
from producers.control import Wish, is_to_be_done
from producers.failed import Failures, failures_of
from producers.place import is_untouched, no_batch
from producers.progress import view_for_terminal
from producers.redis_address import with_running_redis
from producers.terms import Retried, budget_of, check_prices, deadline_of, priority_of, retried_by
from producers.watch import Moment, look, watch
from promptmill.broker import nudge
from promptmill.errors import BudgetExceeded, InvalidInput
from promptmill.pricing import PriceBook
from promptmill.runtime import open_database
from promptmill.settings import Settings, load
from promptmill.states import JobState
from promptmill.store import Connection, control, jobs, retrying, stats, terms
from promptmill.store import batches as stored
from promptmill.store.batches import BatchRow
from promptmill.store.database import Database, database_now
from promptmill.store.stats import BatchStatus

if TYPE_CHECKING:
    from producers.auditing import AuditReport

PAUSED_BY_A_PERSON = "paused by a person"
NO_LONGER = "none"
"""What takes a budget or a deadline away."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Jobs that were submitted together.

    Attributes:
        id: `batch_…`.
        name: what people call it; every command takes either.
    """

    id: str
    name: str
    settings: Settings = field(repr=False, compare=False)

    def status(self) -> BatchStatus:
        """Its figures now.

        Raises:
            NotFound: it was removed.
        """
        with open_database(self.settings) as database:
            return _status(database, self.id)

    def failures(self) -> Failures:
        """What went wrong so far: jobs in groups by what they failed of, each with advice, and answers that are not whole.

        Raises:
            NotFound: it was removed.
        """
        with open_database(self.settings) as database, database.read() as connection:
            return failures_of(connection, stored.get(connection, self.id))

    def look(self) -> Moment:
        """Its figures now, with what binds it and the time that is left."""
        with open_database(self.settings) as database, Bottleneck(self.settings) as bottleneck:
            return look(database, self.id, bottleneck, self.settings)

    def watch(self) -> Iterator[Moment]:
        """Its figures twice a second until it has ended."""
        with open_database(self.settings) as database:
            yield from watch(database, self.id, self.settings)

    def wait(
        self, progress: bool | Callable[[Moment], object] = False, timeout: float | None = None
    ) -> BatchStatus:
        """Wait until every job has ended.

        While nothing can move (no worker runs, the batch is paused) a warning says why, and waiting goes on; only
        a budget that is used up ends it.

        Args:
            progress: True shows it on standard error; a function is called with every Moment instead.
            timeout: seconds to wait at most; no end when None.

        Raises:
            TimeoutError: it had not ended in time. Nothing is stopped by that.
            BudgetExceeded: its budget is used up, and nothing is in flight any more; says what lets it go on.
        """
        if progress is True:
            with view_for_terminal() as view:
                return _wait(self.watch(), view.show, timeout)
        return _wait(self.watch(), progress or _Warner(), timeout)

    def results(self, only: str | Collection[str] | None = None) -> Iterator[Result]:
        """Its results in submission order, read as you go; before it has ended too.

        Args:
            only: a job state, or several (`"succeeded"`, `["errored", "expired"]`); all when None.

        Raises:
            InvalidInput: `only` names a state that does not exist.
        """
        return answers.read(self.id, only, settings=self.settings)

    def audit(self, *, ledger: str | None = None) -> "AuditReport":
        """Count it anew from its rows, and say whether everything adds up; see `producers.audit`."""
        from producers.auditing import audit  # noqa: PLC0415  # it knows this module

        return audit(self, ledger=ledger)

    def pause(self) -> BatchStatus:
        """Begin no further call; those in flight finish and are kept. What is paused stays so, and waits for you.

        Raises:
            InvalidTransition: it has ended, is being canceled, or is not whole yet.
        """
        return self._change(Wish.PAUSE, partial(control.pause, reason=PAUSED_BY_A_PERSON))

    def resume(self) -> BatchStatus:
        """Go on, whether a person or a worker paused it. What runs goes on running.

        Raises:
            InvalidTransition: it has ended, is being canceled, or is not whole yet.
        """
        return self._change(Wish.RESUME, control.resume)

    def cancel(self) -> BatchStatus:
        """Begin no further call ever; those in flight finish and are kept, then it ends. May be repeated.

        Raises:
            InvalidTransition: it has ended with nothing canceled.
        """
        self._change(Wish.CANCEL, control.cancel)
        with open_database(self.settings) as database:
            _cancel_the_rest(database)
            return _status(database, self.id)

    def retry(self, only: str | Collection[str] | None = None) -> int:
        """Try anew what ended without an answer, in a batch that has ended or that runs; how many jobs.

        They begin with a clean record: what they had been through before does not count any more. Repeated after
        it was broken off, it takes up the rest.

        Args:
            only: `errored`, `expired` or `canceled`, or a kind of error such as `server_failed` for the jobs that
                errored of it, or several; errored and expired when None.

        Raises:
            InvalidInput: `only` names something else; `succeeded` too, because it would be paid for twice.
            InvalidTransition: it is being canceled, is not whole yet, or its deadline has passed.
        """
        which = retried_by(only)
        with open_database(self.settings) as database:
            retried = _retry(database, self.id, which)
        if retried:
            tell_dispatcher(self.settings)
        return retried

    def set(
        self,
        *,
        budget: str | float | Decimal | None = None,
        priority: str | float | None = None,
        deadline: str | timedelta | datetime | None = None,
    ) -> BatchStatus:
        """Change its terms while it runs; it acts within two seconds. What is left out stays as it is.

        A batch that its budget has paused goes on when the new one has room. What is in flight finishes.

        Args:
            budget: dollars, exact; `"none"` for no budget.
            priority: `high`, `normal`, `low`, or a weight.
            deadline: `"24h"` from now, a timedelta, or an aware datetime; `"none"` for no deadline.

        Raises:
            InvalidInput: nothing is to be changed, a word has no meaning, the deadline is over already, or a budget is to be kept of calls whose
                price is unknown.
            InvalidTransition: it is being canceled.
        """
        if budget is None and priority is None and deadline is None:
            raise InvalidInput("say what to change: budget, priority or deadline")
        with open_database(self.settings) as database:
            with database.begin() as connection:
                now = database_now(connection)
                new = _new_terms(budget, priority, deadline, now)
                if isinstance(new.budget_nanos, int):
                    check_prices(terms.models_to_answer(connection, self.id), PriceBook(self.settings.prices))
                terms.change(connection, self.id, new, now)
            tell_dispatcher(self.settings)
            return _status(database, self.id)

    def _change(self, wish: Wish, change: "_Change") -> BatchStatus:
        with open_database(self.settings) as database:
            with database.begin() as connection:
                control.lock(connection, self.id)
                if is_to_be_done(wish, stored.get(connection, self.id)):
                    change(connection, self.id, now=database_now(connection))
            tell_dispatcher(self.settings)
            return _status(database, self.id)


class _Change(Protocol):
    """A change of a batch's state, as the store offers it."""

    def __call__(self, conn: Connection, batch_id: str, *, now: datetime) -> BatchRow: ...


def batch(name_or_id: str | None = None, *, settings: Settings | None = None) -> Batch:
    """The batch with that name or id; the newest when None.

    Raises:
        NotFound: there is none; the message names the newest.
    """
    settings = settings or load()
    if is_untouched(settings):
        raise no_batch(settings)
    with open_database(settings) as database, database.read() as connection:
        if name_or_id is not None:
            row = stored.find(connection, name_or_id)
        elif newest := stored.list_recent(connection, limit=1):
            row = newest[0]
        else:
            raise no_batch(settings)
    return Batch(row.id, row.name, settings)


def list_batches(limit: int = 20, *, settings: Settings | None = None) -> Sequence[BatchRow]:
    """The newest batches first, each as it stands."""
    settings = settings or load()
    if is_untouched(settings):
        return []
    with open_database(settings) as database, database.read() as connection:
        return stored.list_recent(connection, limit=limit)


def newest_since(moment: datetime, *, settings: Settings | None = None) -> BatchRow | None:
    """The newest batch, if it was made at `moment` or later."""
    newest = list_batches(1, settings=settings)
    return newest[0] if newest and newest[0].created_at >= moment else None


def wait(
    of: Batch | str,
    *,
    progress: bool | Callable[[Moment], object] = False,
    timeout: float | None = None,
) -> BatchStatus:
    """Wait until every job of a batch has ended, or its budget is used up; see `Batch.wait`."""
    return _handle(of).wait(progress, timeout)


def results(of: Batch | str, only: str | Collection[str] | None = None) -> Iterator[Result]:
    """The results of a batch in submission order; see `Batch.results`."""
    return _handle(of).results(only)


def tell_dispatcher(settings: Settings) -> None:
    """Let the workers look now and not in a few seconds; best effort."""
    url = with_running_redis(settings).redis_url
    if url is not None:
        nudge(url)


def _handle(of: Batch | str) -> Batch:
    return of if isinstance(of, Batch) else batch(of)


def _cancel_the_rest(database: Database) -> None:
    """A large batch is canceled in several short transactions, which workers would do too if there were any."""
    ended = 1
    while ended:
        with database.begin() as connection:
            ended = jobs.expire_overdue(connection, database_now(connection))


def _retry(database: Database, batch_id: str, which: Retried) -> int:
    """Page by page, each in a short transaction: workers go on meanwhile, also with what was just retried."""
    retried, after_seq = 0, -1
    states = {*which.states, JobState.ERRORED} if which.kinds else set(which.states)
    while True:
        with database.read() as connection:
            page = retrying.page_to_retry(
                connection, batch_id, which.states, kinds=which.kinds, after_seq=after_seq
            )
        if page is None:
            return retried
        after_seq = page.last_seq
        with database.begin() as connection:
            retried += retrying.retry(connection, batch_id, page.ids, states, database_now(connection))


def _new_terms(
    budget: str | float | Decimal | None,
    priority: str | float | None,
    deadline: str | timedelta | datetime | None,
    now: datetime,
) -> terms.NewTerms:
    new = terms.NewTerms()
    if budget is not None:
        new = replace(new, budget_nanos=None if budget == NO_LONGER else budget_of(budget))
    if priority is not None:
        new = replace(new, priority=priority_of(priority))
    if deadline is not None:
        new = replace(new, deadline=None if deadline == NO_LONGER else deadline_of(deadline, now=now))
    return new


def _status(database: Database, batch_id: str) -> BatchStatus:
    with database.read() as connection:
        return stats.status(connection, batch_id, database_now(connection))


def _wait(moments: Iterator[Moment], show: Callable[[Moment], object], timeout: float | None) -> BatchStatus:
    deadline = None if timeout is None else time.monotonic() + timeout
    for moment in moments:
        show(moment)
        if moment.has_ended:
            return moment.status
        if moment.stopped_by_budget:
            raise BudgetExceeded(moment.hint or "")
        if deadline is not None and time.monotonic() >= deadline:
            name = moment.status.batch.name
            raise TimeoutError(f"{name} has not ended after {timeout:g} s; its workers go on")
    raise AssertionError("a watch ends with a batch that has ended")


class _Warner:
    """For those who asked for no progress: says once why nothing moves."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, moment: Moment) -> None:
        hint = moment.hint
        if hint and hint not in self._said:
            self._said.add(hint)
            warnings.warn(hint, stacklevel=4)
