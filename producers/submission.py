"""Submitting: what a person asks for, in the words a person uses, becomes a batch."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from producers.answers import PARSE
from producers.batches import Batch, tell_dispatcher
from producers.control import why_over
from producers.place import is_untouched
from producers.stack import needs_simulator
from producers.terms import budget_of, check_truncation, deadline_of, lane_of, priority_of, schema_of
from producers.watch import Moment
from promptmill.clock import SystemClock
from promptmill.errors import InvalidInput
from promptmill.intake.admit import Admission, admit, experience_in, read
from promptmill.intake.forecast import ExperienceOf, nothing_known
from promptmill.intake.options import SubmitOptions
from promptmill.intake.survey import Progress
from promptmill.retries import truncation_policy
from promptmill.runtime import SIMULATED, Surroundings, open_database
from promptmill.settings import Settings, load
from promptmill.states import BatchState
from promptmill.store import workers
from promptmill.store.database import Database, database_now


@dataclass(frozen=True, slots=True)
class Submission:
    """A batch, and what its admission found out."""

    batch: Batch
    admission: Admission


def submit(
    source: object,
    *,
    model: str | None = None,
    name: str | None = None,
    max_tokens: int | None = None,
    ask_again_up_to: int | None = None,
    system: str | Sequence[Mapping[str, Any]] | None = None,
    template: str | None = None,
    columns: Sequence[str] | None = None,
    schema: object | None = None,
    params: Mapping[str, Any] | None = None,
    lane: str = "auto",
    deadline: str | timedelta | datetime | None = None,
    budget: str | float | Decimal | None = None,
    priority: str | float = "normal",
    tags: Mapping[str, str] | None = None,
    notify: str | None = None,
    limit: int | None = None,
    skip_invalid: bool = False,
    new: bool = False,
    settings: Settings | None = None,
) -> Batch:
    """Admit a file or rows as one batch; the workers begin at once.

    Submitted again, the same rows under the same options are the same batch: nothing is asked twice. Where it does
    not go on, because it is paused, canceled or failed, a warning says what to do.

    Args:
        source: a path (`.jsonl`, `.csv`, `.tsv`, `.parquet`), a data frame, or an iterable of texts, dicts or
            Prompts. A dict is a batch line of Anthropic's or OpenAI's, or a row with a `prompt`, or fields for
            the template.
        model: for rows that name none of their own.
        name: what to call the batch; by default the source's name and a hash of the content.
        max_tokens: the longest answer, where a row says nothing; 4,096 when None.
        ask_again_up_to: ask again for an answer that was cut off at max_tokens, with twice the room, up to so many
            tokens; it is kept as it is when None.
        system: a system prompt for every prompt.
        template: a Jinja2 template that makes a prompt from the fields of a row.
        columns: the fields of a CSV or TSV file without a header row.
        schema: what an answer must look like: a pydantic model class, or a JSON schema.
        params: further fields of every request, passed on as they are.
        lane: `auto` or `realtime`.
        deadline: nothing is begun after it: `"24h"`, a timedelta, or an aware datetime.
        budget: dollars: the batch pauses before it costs more. Give an int, a str or a Decimal for an exact amount.
            For a batch that exists already it takes the place of the former one.
        priority: `high`, `normal`, `low`, or a weight: 10 gets ten times the share of 1.
        tags: notes on the batch.
        notify: an https:// address that is told by a POST when the batch has ended or is paused by itself; see
            docs/webhooks.md.
        limit: only the first so many rows.
        skip_invalid: leave out rows with faults instead of refusing all.
        new: make a second batch even if the same was submitted before.
        settings: read from the environment when None.

    Raises:
        InvalidInput: rows or options are at fault; names the first twenty, and nothing was submitted. Or the batch
            was canceled half-way.
        ConfigurationError: a setting is wrong, or the database cannot be used.
        ConnectionFailed: ANTHROPIC_BASE_URL is set and nothing answers there.
    """
    settings = settings or load()
    options = options_for(
        model=model,
        name=name,
        max_tokens=max_tokens,
        ask_again_up_to=ask_again_up_to,
        system=system,
        template=template,
        columns=columns,
        schema=schema,
        params=params,
        lane=lane,
        deadline=deadline,
        budget=budget,
        priority=priority,
        tags=tags,
        notify=notify,
        limit=limit,
        skip_invalid=skip_invalid,
        new=new,
    )
    submission = submit_with(source, options, settings=settings)
    for notice in notices(submission.admission):
        warnings.warn(notice, stacklevel=2)
    if submission.admission.resumed:
        moment = submission.batch.look()
        row = moment.status.batch
        if row.succeeded < row.total and (why := why_it_rests(moment)):
            warnings.warn(why, stacklevel=2)
    return submission.batch


def options_for(
    *,
    max_tokens: int | None = None,
    ask_again_up_to: int | None = None,
    params: Mapping[str, Any] | None = None,
    schema: object | None = None,
    lane: str = "auto",
    deadline: str | timedelta | datetime | None = None,
    budget: str | float | Decimal | None = None,
    priority: str | float = "normal",
    tags: Mapping[str, str] | None = None,
    notify: str | None = None,
    **same: Any,
) -> SubmitOptions:
    """The options of a submission, from the words people use; `same` are those that mean the same to both.

    Raises:
        InvalidInput: a word has no meaning; names the option.
    """
    if ask_again_up_to is not None:
        named = max_tokens or (params or {}).get("max_tokens")
        check_truncation(ask_again_up_to, max_tokens=named, model=same.get("model"))
    return SubmitOptions(
        max_tokens=max_tokens,
        params=params or {},
        schema=None if schema is None else schema_of(schema),
        lane=lane_of(lane),
        deadline=None if deadline is None else deadline_of(deadline, now=SystemClock().now()),
        budget_nanos=None if budget is None else budget_of(budget),
        priority=priority_of(priority),
        tags=tags or {},
        notify_url=notify,
        extra=({} if schema is None else {PARSE: "json"}) | truncation_policy(ask_again_up_to),
        **same,
    )


def submit_with(
    source: object,
    options: SubmitOptions,
    *,
    settings: Settings,
    simulated: bool | None = None,
    progress: Progress | None = None,
) -> Submission:
    """Admit a source; `simulated` says who will answer, where the caller knows."""
    check_notify(options.notify_url, settings)
    known, clock = Surroundings(settings), SystemClock()
    with ExitStack() as until_done:
        # Where nothing was kept before, a refused submit leaves no folder: the database is made once all rows are in order.
        database = None if is_untouched(settings) else until_done.enter_context(open_database(settings))
        if simulated is None:
            simulated = will_be_simulated(known, database)
        reading = until_done.enter_context(
            read(
                source,
                options,
                simulated=simulated,
                clock=clock,
                progress=progress,
                catalogue=known.catalogue,
                prices=known.prices,
                experience_of=experience(database, simulated=simulated),
            )
        )
        admission = admit(
            database or until_done.enter_context(open_database(settings)),
            reading,
            endpoint=SIMULATED if simulated else known.endpoint_name,
            simulated=simulated,
            clock=clock,
            progress=progress,
        )
    tell_dispatcher(settings)
    return Submission(Batch(admission.batch_id, admission.name, settings), admission)


def check_notify(url: str | None, settings: Settings) -> None:
    """Refuse an address to notify that nothing would ever be sent to.

    Raises:
        InvalidInput: it is so.
    """
    if url is None:
        return
    from promptmill.webhooks import check_url  # noqa: PLC0415  # few ask for it

    try:
        check_url(url, settings.webhook.allowed)
    except InvalidInput as error:
        raise InvalidInput(error.why, field="notify") from None


def notices(admission: Admission) -> list[str]:
    """What a person should know of an admission, in sentences."""
    return [*admission.notices, *left_out(admission.skipped, admission.skipped_count)]


def why_it_rests(moment: Moment) -> str | None:
    """Why a batch that was submitted before does not go on, and what to type; None where it does."""
    row = moment.status.batch
    return moment.hint if row.state is BatchState.PAUSED else why_over(row)


def left_out(first: Sequence[InvalidInput], count: int) -> list[str]:
    """The rows with faults that were left out: the first of them, and how many more."""
    said = [f"left out: {fault}" for fault in first]
    if count > len(said):
        said.append(f"left out: {count - len(said):,} more rows")
    return said


def experience(database: Database | None, *, simulated: bool) -> ExperienceOf:
    """What the answers in a database teach; nothing where there is none."""
    if database is None:
        return nothing_known
    return experience_in(database, simulated=simulated, now=SystemClock().now())


def will_be_simulated(known: Surroundings, database: Database | None) -> bool:
    """Whether a simulator will answer: it is at ANTHROPIC_BASE_URL, or nothing is set and the workers call one.

    Raises:
        ConnectionFailed: nothing answers at ANTHROPIC_BASE_URL.
    """
    if not needs_simulator(known.settings):
        return known.endpoint.simulated
    if database is None:
        return False
    with database.read() as connection:
        alive = workers.live(connection, database_now(connection))
    return any(worker.endpoint == SIMULATED for worker in alive)
