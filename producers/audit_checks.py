"""The equations that must hold of a batch: what its counters say against what its rows add up to. Pure.

The one idea: a Check is two figures that must agree; a Note is a figure to know that breaks nothing, as what was
paid and never arrived.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from promptmill.pricing import PriceBook
from promptmill.retries import TRUNCATED
from promptmill.states import TERMINAL_JOB_STATES, BatchState, JobState
from promptmill.store.audit import Counted, Sums
from promptmill.store.batches import BatchRow
from promptmill.store.ledger import SUCCEEDED
from promptmill.usage import Usage


@dataclass(frozen=True, slots=True)
class Check:
    """Two figures that must agree.

    Attributes:
        name: for programs; it does not change.
        what: for people.
        expected: what it must be; the most it may be, with `at_most`.
        found: what it is.
        is_money: both are nano-dollars.
        is_kept: it is about what is kept word by word, which can be counted anew (`promptmill audit --recount`).
    """

    name: str
    what: str
    expected: int
    found: int
    is_money: bool = False
    at_most: bool = False
    is_kept: bool = False

    @property
    def ok(self) -> bool:
        """Whether it holds."""
        return self.found <= self.expected if self.at_most else self.found == self.expected


@dataclass(frozen=True, slots=True)
class Note:
    """A figure to know; `nanos` are the nano-dollars it is about, None where there are none to tell."""

    name: str
    what: str
    count: int
    nanos: int | None = None


def checks(batch: BatchRow, counted: Counted) -> tuple[Check, ...]:
    """Every equation of a batch by itself."""
    return (
        *_jobs(batch, counted),
        *_end(batch, counted),
        *_replies(counted),
        *_attempts(batch, counted),
        *_money(batch, counted),
        *_tokens(batch, counted),
    )


def notes(counted: Counted) -> tuple[Note, ...]:
    """What was paid, or may have been, and is no answer in the database."""
    return tuple(_notes(counted))


def prices(counted: Counted, book: PriceBook) -> tuple[Check, tuple[Note, ...]]:
    """Answers without a cost: a fault where this price list has a price for them, else good to know.

    What was priced by another list than `book` nobody can judge any more.
    """
    known = unknown = 0
    for (model, version), answers in counted.answers_without_cost.items():
        if version == book.version and book.price_of(Usage(input_tokens=1), model=model) is not None:
            known += answers
        else:
            unknown += answers
    what = "answers without a cost whose price is known"
    told = Note("unpriced_answers", "answers whose price nobody knew when they came", unknown)
    return Check("answers_without_cost", what, 0, known), (told,) if unknown else ()


def _jobs(batch: BatchRow, counted: Counted) -> Iterator[Check]:
    yield Check("jobs", "jobs of the batch", batch.total, sum(counted.jobs.values()))
    for state in sorted(TERMINAL_JOB_STATES):
        yield Check(state.value, f"jobs {state.value}", getattr(batch, state.value), counted.jobs[state])
    open_ = sum(number for state, number in counted.jobs.items() if state not in TERMINAL_JOB_STATES)
    yield Check("still_open", "jobs still open", batch.total - batch.done, open_)


def _end(batch: BatchRow, counted: Counted) -> Iterator[Check]:
    has_ended = batch.state is BatchState.ENDED
    open_ = sum(number for state, number in counted.jobs.items() if state not in TERMINAL_JOB_STATES)
    if has_ended:
        yield Check("open_after_end", "jobs open though the batch has ended", 0, open_)
        yield Check("attempts_open_after_end", "attempts open though it has ended", 0, counted.open.attempts)
    elif batch.sealed_at is not None or batch.state is BatchState.CANCELING:
        yield Check("not_ended", "nothing is left to do, and it has not ended", 0, int(open_ == 0))
    running = counted.jobs[JobState.RUNNING]
    without = counted.running_without_worker
    yield Check("running_with_worker", "running jobs whose worker is alive", running, running - without)


def _replies(counted: Counted) -> Iterator[Check]:
    succeeded = counted.jobs[JobState.SUCCEEDED]
    of_succeeded = counted.replies[JobState.SUCCEEDED]
    # An open job may keep an answer that was cut off, in case no longer one comes.
    meanwhile = sum(number for state, number in counted.replies_cut.items() if not state.is_terminal)
    elsewhere = counted.replies.total() - of_succeeded - meanwhile
    yield Check("replies", "one reply for each job that succeeded", succeeded, of_succeeded)
    yield Check("replies_elsewhere", "replies of jobs that did not succeed", 0, elsewhere)
    without = counted.replies_without_attempt
    yield Check("replies_without_attempt", "replies without a paid attempt of their job", 0, without)


def _attempts(batch: BatchRow, counted: Counted) -> Iterator[Check]:
    rows = counted.open.attempts + counted.all_closed.attempts
    yield Check("attempts", "attempts of the batch", batch.attempts, rows)
    yield Check("attempts_of_jobs", "attempts, as the jobs count them", rows, counted.attempts_of_jobs)
    yield Check("claimed_again", "calls that a second attempt claims", 0, counted.claimed_again)
    yield Check("without_end", "attempts without end", 0, counted.without_end)
    wrong = sum(
        abs(counted.told_failed.get(word, 0) - counted.failed.get(word, 0))
        for word in counted.told_failed.keys() | counted.failed.keys()
    )
    yield Check("failure_groups", "jobs counted for what they did not fail of", 0, wrong, is_kept=True)
    for outcome in sorted(counted.told_outcomes.keys() | counted.closed.keys() - {SUCCEEDED}):
        told, found = counted.told_outcomes.get(outcome, 0), counted.closed.get(outcome, Sums())
        yield Check(
            f"attempts_{outcome}", f"attempts closed as {outcome}", told, found.attempts, is_kept=True
        )
    for reason in sorted(counted.told_stop_reasons.keys() | counted.stop_reasons.keys()):
        told, number = counted.told_stop_reasons.get(reason, 0), counted.stop_reasons[reason]
        yield Check(f"stopped_{reason}", f"answers that ended with {reason}", told, number, is_kept=True)
    without = counted.running_without_attempt
    yield Check("running_without_attempt", "running jobs without an open attempt", 0, without)


def _money(batch: BatchRow, counted: Counted) -> Iterator[Check]:
    closed, unknown = counted.all_closed, counted.all_unknown
    cost = closed.cost_nanos + counted.open.cost_nanos
    yield Check("cost", "cost of all attempts", batch.cost_nanos, cost, is_money=True)
    reserved = counted.open.reserved_nanos
    yield Check("reserved", "set aside for open attempts", batch.reserved_nanos, reserved, is_money=True)
    yield Check("unpriced_attempts", "attempts of unknown cost", batch.unpriced_attempts, unknown.attempts)
    yield Check("unknown", "set aside for those", batch.unknown_nanos, unknown.reserved_nanos, is_money=True)


def _tokens(batch: BatchRow, counted: Counted) -> Iterator[Check]:
    used = Sums()
    used.add(counted.open)
    used.add(counted.all_closed)
    for name, what in _TOKENS.items():
        yield Check(name, what, getattr(batch, name), getattr(used, name))


_TOKENS = {
    "input_tokens": "tokens in",
    "output_tokens": "tokens out",
    "cache_write_tokens": "tokens written to the cache",
    "cache_read_tokens": "tokens read from the cache",
}


def _notes(counted: Counted) -> Iterator[Note]:
    for outcome, sums in sorted(counted.unknown.items()):
        what = f"attempts of unknown cost, {outcome}: perhaps billed and lost; set aside for them"
        yield Note(f"unknown_{outcome}", what, sums.attempts, sums.reserved_nanos)
    answered = counted.closed.get(SUCCEEDED, Sums())
    cut = counted.replies_cut.total()
    kept = counted.replies.total() - counted.replies_without_attempt - cut
    if not_kept := answered.attempts - kept:
        cost = answered.cost_nanos - (counted.replies_cost_nanos - counted.replies_cut_nanos)
        yield Note("paid_not_kept", "answers paid for that are not the reply of their job", not_kept, cost)
    jobs, beyond = counted.answered_again
    if jobs:
        yield Note("answered_again", "jobs answered more than once; one answer of each was kept", jobs)
        yield Note("paid_again", "answers paid beyond the first of their job", beyond)
    for outcome, sums in sorted(counted.closed.items()):
        number, cost = sums.attempts, sums.cost_nanos
        if outcome == TRUNCATED:
            number, cost = number - cut, cost - counted.replies_cut_nanos
        if outcome != SUCCEEDED and cost:
            what = f"attempts without an answer that cost money, {outcome}"
            yield Note(f"paid_{outcome}", what, number, cost)
