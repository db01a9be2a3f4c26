"""Purging as a person asks for it: one batch, or all that ended long enough ago.

The one idea: what would go is found first, as values, so that it can be shown before anything is deleted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from producers.place import is_untouched, no_batch
from producers.terms import duration_of
from promptmill import retention
from promptmill.clock import SystemClock
from promptmill.errors import InvalidInput, InvalidTransition
from promptmill.logs import get_logger
from promptmill.runtime import open_database
from promptmill.settings import Settings, load
from promptmill.states import BatchState
from promptmill.store import batches, purging
from promptmill.store.batches import BatchRow
from promptmill.store.database import Database, database_now
from promptmill.store.purging import Part

log = get_logger(__name__)

_LOG_PATIENCE_S = 3.0
_LOG_WAITS = "somebody keeps reading; a worker empties it within the hour, or the last to close the database"

Progress = Callable[[BatchRow, int], object]


@dataclass(frozen=True, slots=True)
class Purge:
    """A batch, and what of it is to be deleted; nothing where it is gone already."""

    batch: BatchRow
    parts: frozenset[Part]


def parts_of(words: str) -> frozenset[Part]:
    """`prompts,answers` or `everything` as parts.

    Raises:
        InvalidInput: a word names no part.
    """
    named = [word.strip() for word in words.split(",") if word.strip()]
    for word in named:
        if word not in list(Part):
            raise InvalidInput(f"{word} is none of {', '.join(Part)}", field="what")
    if not named:
        raise InvalidInput(f"say what: {', '.join(Part)}", field="what")
    return frozenset(Part(word) for word in named)


def purge(
    of: str | None = None,
    *,
    older_than: str | timedelta | None = None,
    what: str = "prompts,answers",
    dry_run: bool = False,
    settings: Settings | None = None,
) -> Sequence[Purge]:
    """Delete prompts and answers of batches that have ended; what was, or would be, deleted.

    Args:
        of: the name or id of one batch.
        older_than: instead of one batch all that ended so long ago: `"30d"`, or a timedelta.
        what: `prompts`, `answers` or both, whose ledger stays; or `everything`, the ledger and the batch too.
        dry_run: delete nothing.
        settings: read from the environment when None.

    Raises:
        InvalidInput: not exactly one of `of` and `older_than` is given, or a word has no meaning.
        InvalidTransition: the batch has not ended.
        NotFound: there is no such batch.
    """
    settings = settings or load()
    found = find(of, older_than=older_than, what=what, settings=settings)
    if not dry_run:
        carry_out(found, settings=settings)
    return found


def find(
    of: str | None, *, older_than: str | timedelta | None, what: str, settings: Settings
) -> Sequence[Purge]:
    """What `purge` would delete; arguments and errors as there."""
    wanted = parts_of(what)
    if (of is None) == (older_than is None):
        if of is None:
            raise InvalidInput("name a batch, or say --older-than 30d instead")
        raise InvalidInput("name a batch or say --older-than, not both")
    age = duration_of(older_than, field="older-than") if isinstance(older_than, str) else older_than
    if is_untouched(settings):
        if of is not None:
            raise no_batch(settings)
        return []
    # Removing all of a batch opens no text, so it is the way out where its key is lost.
    with (
        open_database(settings, reads_texts=Part.EVERYTHING not in wanted) as database,
        database.read() as connection,
    ):
        if age is None:
            rows: Sequence[BatchRow] = [_ended(batches.find(connection, str(of)))]
        else:
            before = _before(database_now(connection), age)
            rows = purging.old(connection, dict.fromkeys(wanted, before))
    found = [Purge(row, retention.to_delete(row, wanted)) for row in rows]
    return found if age is None else [each for each in found if each.parts]


def carry_out(purges: Sequence[Purge], *, settings: Settings, progress: Progress | None = None) -> None:
    """Delete what was found; `progress` is called with a batch and the jobs gone through."""
    clock = SystemClock()
    reads_texts = not all(Part.EVERYTHING in each.parts for each in purges)
    with open_database(settings, reads_texts=reads_texts) as database:
        for each in purges:
            if not each.parts:
                continue

            def show(jobs: int, _of: int, row: BatchRow = each.batch) -> None:
                if progress:
                    progress(row, jobs)

            retention.purge(database, each.batch, each.parts, clock=clock, progress=show)
        forget(database)


def forget(database: Database) -> None:
    """Empty SQLite's log of what was deleted, or say that it waits for who is reading."""
    if not retention.forget(database, clock=SystemClock(), patience=_LOG_PATIENCE_S):
        log.warning("former_text_still_in_log", why=_LOG_WAITS)


def _before(now: datetime, age: timedelta) -> datetime:
    try:
        return now - age
    except OverflowError:  # before the first year nothing ended
        return datetime.min.replace(tzinfo=UTC)


def _ended(row: BatchRow) -> BatchRow:
    if row.state is not BatchState.ENDED:
        raise InvalidTransition(
            f"{row.name} is {row.state}: only a batch that has ended can be purged; wait for it, or cancel it"
        )
    return row
