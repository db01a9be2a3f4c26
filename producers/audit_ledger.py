"""The audit of a rehearsal against the simulator's own book, call by call, by request id.

The one idea: every call that was billed is one of three: its attempt has the same cost, its attempt says that nobody
knows its cost, or no attempt knows of it, and then there must be an attempt without cost and without request id
that it may belong to.

The book is read before the database, and what came to it meanwhile after: so a batch at work is held against a book
that was there, and each cost of ours against one that has it. Memory grows with the book, by about 150 bytes a call
(measured: 150 MB for a million); of the attempts only those are kept that the book has not yet.
"""

import http.client
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from producers.audit_checks import Check, Note
from producers.wording import several
from promptmill.budgets import dollars
from promptmill.errors import ConfigurationError
from promptmill.simulator.process import SimulatorFailed, SimulatorHandle
from promptmill.store import billed
from promptmill.store.database import Database
from promptmill.store.ledger import SUCCEEDED

if TYPE_CHECKING:
    from promptmill.store.billed import BilledAttempt

_SLACK = timedelta(seconds=60)
"""By how much the clocks of simulator and workers may differ."""


@dataclass(slots=True)
class Book:
    """What a simulator billed, call by call, in the order of billing.

    Attributes:
        request_ids: what the ids of its calls begin with.
        first: calls up to this number are of the time before its last reset.
        since: when it was begun.
        costs: nano-dollars by the number of the call; None where the simulator knows no price.
    """

    request_ids: str
    first: int
    since: datetime
    costs: dict[int, int | None] = field(default_factory=dict)


@dataclass(slots=True)
class Compared:
    """How the attempts of a database stand to a book; money in nano-dollars.

    Attributes:
        agreed: attempts of the batch with the cost that the book has.
        differing: attempts of the batch whose cost is another, or which the book does not have.
        before: attempts of the batch of the time before the book.
        others: batches beside this one that the simulator answered.
        known_nanos: cost of all calls whose attempt knows it, as the attempts say.
        claimed_again: attempts that name a call which another attempt named already.
        without_cost: answers of the batch without a cost, to calls that have one in the book.
        unknown: calls billed whose attempt does not know its cost, and what they cost.
        set_aside: nano-dollars set aside for the attempts of those.
        strange: calls billed that no attempt names, and what they cost.
    """

    agreed: int = 0
    differing: int = 0
    before: int = 0
    others: set[str] = field(default_factory=set)
    known_nanos: int = 0
    claimed_again: int = 0
    without_cost: int = 0
    unknown: tuple[int, int] = (0, 0)
    set_aside: int = 0
    strange: tuple[int, int] = (0, 0)


class Reader:
    """A book that is still written in.

    Raises:
        ConfigurationError: no simulator with such a book answers at the address.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._simulator = SimulatorHandle(url)
        page = self._ask(0)
        self.book = Book(page["request_ids"], page["first"], datetime.fromisoformat(page["since"]))
        self._read = 0
        self._take(page)

    def read_on(self) -> None:
        """Take what has come to the book since the last look."""
        self._take(self._ask(self._read))

    def _take(self, page: Mapping[str, Any]) -> None:
        if page["first"] != self.book.first:
            raise ConfigurationError(f"the simulator at {self.url} was reset meanwhile; audit again")
        while page["bills"]:
            self.book.costs.update((number, nanos) for number, nanos, _ in page["bills"])
            self._read += len(page["bills"])
            page = self._ask(self._read)

    def _ask(self, after: int) -> Mapping[str, Any]:
        try:
            return self._simulator.bills(after)
        except (OSError, ValueError, KeyError, http.client.HTTPException, SimulatorFailed) as error:
            _nobody(self.url, error)


def _nobody(url: str, error: Exception) -> NoReturn:
    raise ConfigurationError(f"no simulator of this version answers at {url}: {error}") from error


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the audit says of a simulator's book; `unread`: why one that was asked for could not be read."""

    checks: tuple[Check, ...] = ()
    notes: tuple[Note, ...] = ()
    remarks: tuple[str, ...] = ()
    unread: str | None = None


def compare_with(reader: Reader, database: Database, batch_id: str) -> Comparison:
    """Hold the attempts of a database against a book.

    Raises:
        ConfigurationError: the simulator went away, or was reset meanwhile.
    """
    book = reader.book
    total = sum(nanos or 0 for nanos in book.costs.values())
    with database.read() as connection:
        compared, not_in_book = compare(book, billed.billed(connection, book.request_ids), batch_id)
        nameless, nameless_nanos = billed.without_request_id(connection, book.since - _SLACK)
        elsewhere = billed.answered_elsewhere(connection, batch_id, book.request_ids)
        purged, purged_attempts = billed.purged(connection, book.since - _SLACK)
    reader.read_on()
    for number, each in not_in_book:
        _judge(compared, book, number, each)
    return Comparison(
        checks=tuple(_checks(compared, nameless=nameless + purged_attempts, total=total)),
        notes=tuple(_notes(compared, nameless_nanos=nameless_nanos, purged=purged_attempts)),
        remarks=(*_remarks(compared, reader.url, elsewhere), *_of_purged(purged, purged_attempts)),
    )


def compare(
    book: Book, ours: "Iterable[BilledAttempt]", batch_id: str
) -> "tuple[Compared, list[tuple[int, BilledAttempt]]]":
    """Go through the attempts once, and through what is left of the book.

    Args:
        book: as it was before the attempts are read.
        ours: the closed attempts of all batches that have one of the simulator's request ids.
        batch_id: the batch in question.

    Returns:
        What was found, and the attempts of the batch that the book has not, with the numbers of their calls: some of
        them were billed meanwhile, so they are judged by the book as it is afterwards.
    """
    compared = Compared()
    unnamed = dict(book.costs)
    not_in_book: list[tuple[int, BilledAttempt]] = []
    for each in ours:
        number = int(each.request_id.removeprefix(book.request_ids), 16)
        if each.batch_id != batch_id:
            compared.others.add(each.batch_id)
        if number in book.costs:
            _hold(compared, each, book.costs[number], is_first=number in unnamed)
            unnamed.pop(number, None)
        if each.batch_id != batch_id:
            continue
        if number in book.costs:
            _judge(compared, book, number, each)
        else:
            not_in_book.append((number, each))
    for nanos in unnamed.values():
        compared.strange = _and(compared.strange, nanos)
    return compared, not_in_book


def _hold(compared: Compared, ours: "BilledAttempt", nanos: int | None, *, is_first: bool) -> None:
    """Add an attempt to the sums, as it says: a call that is claimed twice is then paid twice."""
    compared.claimed_again += not is_first
    if ours.cost_nanos is not None:
        compared.known_nanos += ours.cost_nanos
    elif is_first:
        compared.unknown = _and(compared.unknown, nanos)
        compared.set_aside += ours.reserved_nanos or 0


def _judge(compared: Compared, book: Book, number: int, ours: "BilledAttempt") -> None:
    if ours.cost_nanos is not None:
        _count(compared, book, number, ours.cost_nanos)
    elif ours.outcome == SUCCEEDED and book.costs.get(number) is not None:
        compared.without_cost += 1


def _count(compared: Compared, book: Book, number: int, cost_nanos: int) -> None:
    if number in book.costs:
        agrees = (book.costs[number] or 0) == cost_nanos
    elif number <= book.first:
        compared.before += 1
        return
    else:
        agrees = cost_nanos == 0  # refused, so not in the book
    compared.agreed += agrees
    compared.differing += not agrees


def _and(sum_: tuple[int, int], nanos: int | None) -> tuple[int, int]:
    return sum_[0] + 1, sum_[1] + (nanos or 0)


def _checks(compared: Compared, *, nameless: int, total: int) -> Iterator[Check]:
    closed = compared.agreed + compared.differing
    strange, lost_nanos = compared.strange[0], compared.unknown[1] + compared.strange[1]
    again, without = compared.claimed_again, compared.without_cost
    yield Check("ledger_attempts", "attempts that cost what the simulator billed", closed, compared.agreed)
    yield Check("ledger_claimed_again", "calls billed once that two attempts claim", 0, again)
    yield Check("ledger_without_cost", "answers without the cost billed for them", 0, without)
    what = "calls billed that no attempt names"
    yield Check("ledger_without_attempt", what, nameless, strange, at_most=True)
    what = "billed for the calls whose cost we know"
    yield Check("ledger_total", what, total - lost_nanos, compared.known_nanos, is_money=True)


def _notes(compared: Compared, *, nameless_nanos: int, purged: int) -> Iterator[Note]:
    (count, nanos), (strange, strange_nanos) = compared.unknown, compared.strange
    if purged and strange:
        what = "calls billed that no attempt names: of batches purged of everything, or with a lost answer"
        yield Note("billed_and_purged", what, strange, strange_nanos)
    else:
        count, nanos = count + strange, nanos + strange_nanos
    if count:
        # Set aside is what one call in forty costs more than, so it is told beside the bill, and bounds nothing.
        aside = dollars(compared.set_aside + nameless_nanos)
        what = f"calls billed by the simulator whose answer was lost; {aside} was set aside for such attempts"
        yield Note("billed_and_lost", what, count, nanos)


def _remarks(compared: Compared, url: str, elsewhere: int) -> Iterator[str]:
    if elsewhere:
        yield f"{elsewhere:,} attempts were answered by a simulator that no longer runs and were not compared"
    if compared.others:
        yield (
            f"the simulator at {url} also answered {len(compared.others):,} other batches of this database:"
            " calls without an attempt and the total are of all of them"
        )
    if compared.before:
        yield f"{compared.before:,} attempts are older than the simulator's book and were not compared"


def _of_purged(batches: int, attempts: int) -> Iterator[str]:
    if attempts:
        which, were = several(batches, "other batch", "other batches"), "was" if batches == 1 else "were"
        yield (
            f"{which} of this database, with {several(attempts, 'attempt')}, {were} purged of everything:"
            " so many calls more may be billed that no attempt names"
        )
