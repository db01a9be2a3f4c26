"""Admit: rows become a batch of jobs, whole or not at all, once however often it is repeated.

First the survey: all rows are read and checked, and nothing is written. Then the rows go into a batch in state
`admitting`, which no worker sees, in short transactions, and the batch is sealed. A submit that broke in
between is simply repeated: it finds its batch by name and content and writes what is missing.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from promptmill.budgets import calls_covered, dollars
from promptmill.catalogue import CATALOGUE, Catalogue
from promptmill.clock import Clock
from promptmill.errors import InvalidInput
from promptmill.experience import Experience
from promptmill.intake.forecast import Expected, ExperienceOf, Forecast, nothing_known
from promptmill.intake.options import SubmitOptions
from promptmill.intake.shared import Shared
from promptmill.intake.spool import Spool, SpooledRow
from promptmill.intake.storing import store
from promptmill.intake.survey import Progress, Survey, Surveyor
from promptmill.pricing import PriceBook
from promptmill.states import BatchState
from promptmill.store import Connection, answered, batches, notices, terms
from promptmill.store.batches import BatchRow, NewBatch
from promptmill.store.database import Database
from promptmill.store.jobs import NewJob
from promptmill.store.purging import why_gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What became of a submission.

    Attributes:
        batch_id, name: the batch it is.
        forecast: what its jobs will use and cost.
        resumed: True when the batch was there already, whole or in part.
        skipped: the first faults of rows left out; `skipped_count` says of how many.
        notices: what a person should know, in sentences.
    """

    batch_id: str
    name: str
    forecast: Forecast
    resumed: bool
    skipped: tuple[InvalidInput, ...] = ()
    skipped_count: int = 0
    notices: tuple[str, ...] = ()

    @property
    def jobs(self) -> int:
        """How many jobs the batch has."""
        return self.forecast.jobs

    @property
    def estimate(self) -> Expected:
        """The sums over them; its cost is None when unknown."""
        return self.forecast.expected


@dataclass(frozen=True, slots=True)
class Reading:
    """A source that was read and checked, and its rows, spooled.

    Attributes:
        found: what it holds and would cost.
    """

    found: Survey
    options: SubmitOptions
    spool: Spool
    shared: Shared

    def new_jobs(self) -> Iterator[NewJob]:
        """The rows as jobs, in their order."""
        return _new_jobs(self.spool.rows(), self.shared)


@contextmanager
def read(
    source: object,
    options: SubmitOptions,
    *,
    simulated: bool,
    clock: Clock,
    progress: Progress | None = None,
    catalogue: Catalogue = CATALOGUE,
    prices: PriceBook | None = None,
    experience_of: ExperienceOf = nothing_known,
) -> Iterator[Reading]:
    """Read and check all rows of a source; what is spooled is gone at the end of the block.

    Args:
        source: a path, `-`, a data frame, or an iterable of dicts, strings or Prompts; see `sources`.
        options: what holds for all rows.
        simulated: whether a simulated Claude will answer.
        clock: says what day it is: prices and models change.
        progress: called with (what is being done, rows done, of how many, as far as that is known); see `survey`.
        catalogue: what is known of models.
        prices: what they cost; the published prices when None.
        experience_of: what earlier answers taught; see `experience_in`.

    Raises:
        InvalidInput: the options or the source are at fault.
        InvalidRows: rows are at fault; the first twenty are named.
    """
    with Spool() as spool:
        surveyor = Surveyor(
            options=options,
            spool=spool,
            today=clock.now().date(),
            simulated=simulated,
            catalogue=catalogue,
            prices=prices or PriceBook(),
            experience_of=experience_of,
            progress=progress,
        )
        found = surveyor.survey(source)
        yield Reading(found, options, spool, surveyor.shared)


def survey(
    source: object,
    options: SubmitOptions,
    *,
    simulated: bool,
    clock: Clock,
    progress: Progress | None = None,
    catalogue: Catalogue = CATALOGUE,
    prices: PriceBook | None = None,
    experience_of: ExperienceOf = nothing_known,
) -> Survey:
    """What a source holds and would cost; nothing is submitted. Arguments and errors as in `read`."""
    with read(
        source,
        options,
        simulated=simulated,
        clock=clock,
        progress=progress,
        catalogue=catalogue,
        prices=prices,
        experience_of=experience_of,
    ) as reading:
        return reading.found


def admit(
    database: Database,
    reading: Reading,
    *,
    endpoint: str,
    simulated: bool,
    clock: Clock,
    progress: Progress | None = None,
) -> Admission:
    """Submit what was read as one batch.

    Args:
        database: where the batch goes.
        reading: the source; it is still open.
        endpoint: the URL of Claude for this batch.
        simulated: whether that is a simulated one.
        clock: stamps the rows and measures the transactions.
        progress: as for `read`.

    Raises:
        InvalidInput: the name is that of another batch, or of one that was canceled half-way.
    """
    found, options = reading.found, reading.options
    new = _new_batch(found, options, endpoint=endpoint, simulated=simulated)
    batch, resumed = _open_batch(database, new, second=options.new, now=clock.now())
    if resumed:
        _check_whole(batch, found.jobs)
    was = batch.budget_nanos
    if resumed and options.budget_nanos not in (None, was):
        batch = _with_budget(database, batch, options.budget_nanos, clock.now())
    if resumed and options.notify_url is not None:
        with database.begin() as conn:
            notices.send_to(conn, batch.id, options.notify_url)
    if batch.state is BatchState.ADMITTING:
        for stored in store(database, batch.id, reading.new_jobs(), clock):
            if progress:
                progress("storing" if stored.now else "resuming", stored.rows, found.jobs)
    return _admission(found, batch, resumed=resumed, notices=_about_budget(batch, was, found.forecast))


def experience_in(database: Database, *, simulated: bool, now: datetime) -> ExperienceOf:
    """What the answers in a database teach; simulated and real ones teach each other nothing."""

    def of(template: str | None, model_group: str) -> Experience:
        with database.read() as conn:
            return answered.experience_of_new(conn, answered.Kind(model_group, simulated, template), now)

    return of


def _admission(found: Survey, batch: BatchRow, *, resumed: bool, notices: Iterable[str]) -> Admission:
    return Admission(
        batch_id=batch.id,
        name=batch.name,
        forecast=found.forecast,
        resumed=resumed,
        skipped=found.skipped,
        skipped_count=found.skipped_count,
        notices=(*found.notices, *notices),
    )


def _new_batch(found: Survey, options: SubmitOptions, *, endpoint: str, simulated: bool) -> NewBatch:
    return NewBatch(
        name=found.name,
        model=next(iter(found.models)),
        shared=found.shared,
        endpoint=endpoint,
        simulated=simulated,
        lane=options.lane,
        priority=options.priority,
        tags=options.tags,
        options=options.extra,
        content_hash=found.content_hash,
        deadline=options.deadline,
        estimate_nanos=found.estimate.cost_nanos,
        template=found.template,
        estimated_input_tokens=found.estimate.input_tokens,
        estimated_output_tokens=found.estimate.output_tokens,
        budget_nanos=options.budget_nanos,
        notify_url=options.notify_url,
    )


def _open_batch(database: Database, new: NewBatch, *, second: bool, now: datetime) -> tuple[BatchRow, bool]:
    """The batch to fill, and whether it was there already; `second` makes one beside it."""
    with database.begin() as conn:
        number = 1
        batch, was_there = _found_or_made(conn, new, now)
        while was_there and second:
            number += 1
            batch, was_there = _found_or_made(conn, replace(new, name=f"{new.name}-{number}"), now)
        if was_there:
            _check_same(conn, batch, new)
    return batch, was_there


def _found_or_made(conn: Connection, new: NewBatch, now: datetime) -> tuple[BatchRow, bool]:
    existing = batches.find_by_name(conn, new.name)
    if existing is None:
        try:
            return batches.create(conn, new, now), False
        except InvalidInput:  # another submit made it since we looked, which Postgres allows
            existing = batches.find_by_name(conn, new.name)
            if existing is None:
                raise
    return existing, True


def _with_budget(database: Database, batch: BatchRow, budget_nanos: int | None, now: datetime) -> BatchRow:
    """The batch with another budget; one that the former had paused goes on."""
    if batch.state in (BatchState.CANCELING, BatchState.ENDED):
        return batch
    with database.begin() as conn:
        return terms.change(conn, batch.id, terms.NewTerms(budget_nanos=budget_nanos), now)


def _about_budget(batch: BatchRow, was: int | None, expected: Forecast) -> Iterator[str]:
    budget, cost = batch.budget_nanos, expected.expected.cost_nanos
    if budget is None:
        return
    if budget != was:
        before = "it had none" if was is None else f"it was {dollars(was)}"
        yield f"the budget of {batch.name} is {dollars(budget)} now; {before}"
    if cost is not None and cost > budget:
        count = calls_covered(budget, cost, expected.jobs)
        yield (
            f"the budget of {dollars(budget)} is expected to be used up after about {count:,} of "
            f"{expected.jobs:,} prompts; the batch pauses then"
        )


def _check_same(conn: Connection, existing: BatchRow, new: NewBatch) -> None:
    if why := why_gone(existing):
        raise InvalidInput(f"{why}; take another --name, or --new for a second one", field="name")
    different = None
    if batches.content_hash_of(conn, existing.id) != new.content_hash:
        different = "with other prompts or options"
    elif existing.lane is not new.lane:
        different = f"in the {existing.lane} lane"
    if different:
        raise InvalidInput(
            f"the batch {existing.name!r} exists {different}; take another --name, or --new for a second one",
            field="name",
        )


def _check_whole(existing: BatchRow, wanted: int) -> None:
    """A batch that was canceled half-way takes no further prompts; without them it would pass for complete."""
    # By their number too: an earlier version sealed a batch when it was canceled.
    is_short = existing.state is not BatchState.ADMITTING and existing.total < wanted
    if existing.was_cut or is_short:
        raise InvalidInput(
            f"{existing.name} was canceled half-way, with {existing.total:,} of {wanted:,} prompts: submit with --new"
        )


def _new_jobs(rows: Iterator[SpooledRow], shared: Shared) -> Iterator[NewJob]:
    is_whole = shared.is_whole
    for row in rows:
        yield NewJob(
            seq=row.seq,
            custom_id=row.custom_id,
            model_group=row.model_group,
            body=row.own_text if is_whole else shared.restore(row.seq, row.own),
            fingerprint=row.fingerprint,
            estimated_input_tokens=row.input_tokens,
            estimated_output_tokens=row.output_tokens,
            source=row.source_text,
        )
