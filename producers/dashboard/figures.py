"""One look at everything the page shows, through what the commands ask too.

The one idea: it holds one database and one line to the limiter open, looks when it is told to, from one thread, and hands
out documents. What cannot be asked is missing, and a sentence says why; what was seen last stays, with its time.
"""

import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self

from producers import limits_now, watch
from producers.bottleneck import Bottleneck
from producers.dashboard import documents
from producers.dashboard.beside import Beside
from producers.dashboard.history import History
from producers.dashboard.moments import Moments
from producers.folding import fold
from producers.limits_now import BacklogReader, LimitsNow
from producers.limits_reader import LimitsReader
from promptmill.errors import NotFound, PromptmillError, Unavailable
from promptmill.runtime import open_database
from promptmill.settings import Settings
from promptmill.states import BatchState
from promptmill.store import Connection, batches, stats, workers
from promptmill.store.batches import BatchRow
from promptmill.store.database import Database, database_now

NEWEST = 50
"""Batches that are listed, whatever their state; the ended runs of a schedule count as one."""
LOOKED_AT = 500
"""Batches among which those are found."""
UNFINISHED = 100
"""Batches that are listed because they have not ended, however old; the newest of them."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look has shown, as documents.

    Attributes:
        overview: everything of the first page but the history.
        history: see `history.History`.
        batches: of every batch that was asked for, by the word it was asked for with.
    """

    overview: Mapping[str, Any]
    history: Mapping[str, Any]
    batches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Figures:
    """What there is to see; enter it to open the database."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._resources = ExitStack()
        self._moments = Moments()
        self._history = History()
        self._beside = Beside(settings)
        self._bottlenecks: dict[str, Bottleneck] = {}
        self._last: dict[str, Any] = documents.NOTHING

    def __enter__(self) -> Self:
        self._database: Database = self._resources.enter_context(open_database(self.settings))
        self._limits = self._resources.enter_context(LimitsReader(self.settings))
        self._backlog = self._resources.enter_context(BacklogReader(self.settings))
        return self

    def __exit__(self, *_: object) -> None:
        self._keep_bottlenecks(())
        self._resources.close()

    def check(self) -> None:
        """Ask the database for the time.

        Raises:
            Unavailable: it does not answer.
        """
        with self._database.read() as connection:
            database_now(connection)

    def look(self, wanted: Collection[str] = ()) -> Seen:
        """See everything anew.

        Args:
            wanted: names or ids of batches whose pages are open.
        """
        try:
            self._last = self._overview() | {"silence": None}
        except Unavailable as error:
            self._last = {**self._last, "silence": str(error)}
            away = {name: {"error": str(error), "away": True} for name in wanted}
            return Seen(self._last, self._history.document(), away)
        self._keep_bottlenecks(wanted)
        found = {name: self._batch(name) for name in wanted}
        return Seen(self._last, self._history.document(), found)

    def limits(self) -> LimitsNow:
        """What `promptmill limits` shows."""
        return limits_now.look(self._limits, self._backlog, self.settings)

    def _overview(self) -> dict[str, Any]:
        with self._database.read() as connection:
            now = database_now(connection)
            recent = batches.heads(connection, LOOKED_AT)
            folded = fold(recent, NEWEST)
            rows = _listed(connection, folded)
            standings = {each.id: each for each in stats.standings(connection)}
            alive = workers.live(connection, now)
            statuses = stats.statuses(connection, [row for row in rows if not _is_over(row)], now)
        listed = {row.id for row in rows}
        unlisted = [each for each in standings.values() if each.id not in listed]
        self._history.note([*recent, *rows, *unlisted], at=time.time())
        moments = {each.status.batch.id: each for each in self._moments.of(statuses, alive)}
        return {
            "at": documents.stamp(now),
            "batches": [documents.batch_entry(row, moments.get(row.id), folded.get(row.id)) for row in rows],
            "more": len(unlisted),
            "jobs_left": sum(each.total - each.done for each in standings.values()),
            "limits": documents.limits_entry(self.limits()),
            "workers": [documents.worker_entry(each) for each in alive],
            "keys": self._beside.keys(),
            "schedules": self._beside.schedules(),
        }

    def _batch(self, name: str) -> Mapping[str, Any]:
        try:
            with self._database.read() as connection:
                row = batches.find(connection, name)
            moment = watch.look(self._database, row.id, self._bottlenecks[name], self.settings)
        except NotFound:
            return {"error": f"there is no batch {name!r}"}
        except PromptmillError as error:
            return {"error": str(error)}
        return documents.batch_page(moment)

    def _keep_bottlenecks(self, wanted: Collection[str]) -> None:
        """One for each batch: what one was told last is of its model."""
        for name in [name for name in self._bottlenecks if name not in wanted]:
            self._bottlenecks.pop(name).__exit__()
        for name in wanted:
            self._bottlenecks.setdefault(name, Bottleneck(self.settings))


def _listed(connection: Connection, wanted: Collection[str]) -> list[BatchRow]:
    """Newest first; one that has not ended is left out only for many that are younger."""
    newest = list(batches.those(connection, wanted))
    known = {row.id for row in newest}
    return newest + [row for row in batches.unfinished(connection, UNFINISHED) if row.id not in known]


def _is_over(row: BatchRow) -> bool:
    return row.state is BatchState.ENDED
