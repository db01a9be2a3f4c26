"""What `promptmill list` shows: the newest batches, of a schedule that makes many only the newest."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from producers.folding import Fold, fold
from producers.place import is_untouched
from promptmill.runtime import open_database
from promptmill.settings import Settings, load
from promptmill.store import batches as stored
from promptmill.store.batches import BatchRow

LOOKED_AT = 500
"""Batches among which the listed ones are found; whoever asks for more gets all, none folded."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A batch, and what its line stands for besides."""

    row: BatchRow
    fold: Fold = field(default_factory=Fold)


def listed(limit: int, *, settings: Settings | None = None) -> Sequence[Listed]:
    """The newest first, `limit` at most."""
    settings = settings or load()
    if is_untouched(settings):
        return []
    with open_database(settings) as database, database.read() as connection:
        if limit > LOOKED_AT:
            return [Listed(row) for row in stored.list_recent(connection, limit)]
        folds = fold(stored.heads(connection, LOOKED_AT), limit)
        return [Listed(row, folds[row.id]) for row in stored.those(connection, folds)]
