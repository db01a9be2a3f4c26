"""Answers: what came back for each prompt, in the order in which the prompts were submitted.

A Result is read from the database page by page, so a batch of a million takes no more memory than one of ten.
"""

import json
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from promptmill.errors import InvalidInput, NotFound
from promptmill.runtime import open_database
from promptmill.settings import Settings
from promptmill.states import JobState
from promptmill.store import batches
from promptmill.store import results as stored
from promptmill.store.purging import Part, gone, why_gone
from promptmill.store.results import ResultError, ResultRow
from promptmill.usage import Usage

PARSE = "parse"
"""The batch option that says how an answer is read into `Result.parsed`; its one value is `json`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one prompt.

    Attributes:
        custom_id: your name for the prompt, or the one it was given.
        text: the text of the answer; None unless the job succeeded.
        message: the whole message as Anthropic sent it; None unless the job succeeded.
        parsed: the answer as an object, where the batch has a schema.
        usage: tokens, summed over all attempts.
        cost: US dollars, exact, of the attempts whose cost is known; None when none is.
        error: why the job failed; None when nothing did.
        input: your own row, as it was read.
        simulated: True when the simulated Claude answered.
    """

    custom_id: str
    job_id: str
    state: JobState
    text: str | None
    message: Mapping[str, Any] | None
    parsed: Any
    usage: Usage
    cost: Decimal | None
    attempts: int
    error: ResultError | None
    input: Mapping[str, Any] | None
    simulated: bool


def read(name_or_id: str, only: str | Collection[str] | None, *, settings: Settings) -> Iterator[Result]:
    """The results of a batch in submission order, read as they are asked for.

    Raises:
        NotFound: there is no such batch, or its answers were purged; once they are asked for.
        InvalidInput: `only` names a state that does not exist.
    """
    return _read(name_or_id, _states(only), settings)


def _read(name_or_id: str, wanted: frozenset[JobState] | None, settings: Settings) -> Iterator[Result]:
    with open_database(settings) as database, database.read() as connection:
        batch = batches.find(connection, name_or_id)
        if Part.ANSWERS in gone(batch.options) and (why := why_gone(batch)):
            raise NotFound(
                f"{why}; what they cost is still there: promptmill status {shlex.quote(batch.name)}"
            )
        reads_json = batch.options.get(PARSE) == "json"
        for row in stored.iterate(connection, batch.id, wanted):
            yield _result(row, reads_json=reads_json)


def dollars(nanos: int | None) -> Decimal | None:
    """Nano-dollars as exact dollars; None stays None."""
    return None if nanos is None else Decimal(nanos).scaleb(-9)


def _states(only: str | Collection[str] | None) -> frozenset[JobState] | None:
    if only is None:
        return None
    names = [only] if isinstance(only, str) else list(only)
    for name in names:
        if name not in list(JobState):
            raise InvalidInput(f"{name} is none of {', '.join(JobState)}", field="only")
    return frozenset(JobState(name) for name in names)


def _parsed(row: ResultRow) -> Any:
    """The answer as an object; None where it was cut off or is none, which the batch's policy decides about."""
    try:
        return json.loads(row.text or "")
    except ValueError:
        return None


def _result(row: ResultRow, *, reads_json: bool) -> Result:
    return Result(
        custom_id=row.custom_id,
        job_id=row.job_id,
        state=row.state,
        text=row.text,
        message=row.message,
        parsed=_parsed(row) if reads_json and row.parsed is None else row.parsed,
        usage=row.usage,
        cost=dollars(row.cost_nanos),
        attempts=row.attempts,
        error=row.error,
        input=row.source,
        simulated=row.simulated,
    )
