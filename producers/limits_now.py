"""The limits at one moment: what is set, what the limiter knows, and which jobs wait for it. All as values.

Nothing has to run for this: what cannot be asked is missing, and `silence` says why.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from producers.limits_reader import PAUSE_S, LimitsReader
from promptmill.dimensions import Dimension
from promptmill.errors import PromptmillError, Unavailable
from promptmill.runtime import open_database
from promptmill.settings import GroupLimits, Settings, load
from promptmill.store import backlog, workers
from promptmill.store.backlog import WaitingJobs
from promptmill.store.database import Database, database_now

if TYPE_CHECKING:
    from promptmill.limits import Pool, PoolState

INTERVAL_S = 1.0
COUNT_EVERY_S = 10.0
"""Between two counts of the jobs of a batch for several model groups."""
_MOVES = 0.5
"""Requests per minute from which a pool counts as used."""


@dataclass(frozen=True, slots=True)
class SetLimits:
    """Limits per minute that a person set; None as account or group stands for every other one.

    A number is a ceiling, 0 is no limit, None is learned.
    """

    account: str | None
    group: str | None
    requests: float | None
    input_tokens: float | None
    output_tokens: float | None

    @property
    def is_set(self) -> bool:
        """Whether anything is said at all."""
        return any(each is not None for each in (self.requests, self.input_tokens, self.output_tokens))


@dataclass(frozen=True, slots=True)
class Backlog:
    """What the database tells.

    Attributes:
        jobs: what waits or runs in active batches, by batch and model group.
        workers: worker processes that live.
    """

    jobs: tuple[WaitingJobs, ...] = ()
    workers: int = 0

    def of_group(self, group: str) -> "tuple[WaitingJobs, ...]":
        """The batches with jobs of a model group, those with most waiting jobs first."""
        found = [each for each in self.jobs if each.model_group == group]
        return tuple(sorted(found, key=lambda each: -(each.pending + each.queued)))


@dataclass(frozen=True, slots=True)
class LimitsNow:
    """Everything `promptmill limits` shows.

    Attributes:
        pools: the accounts and model groups that were used within the last hour, as they stand.
        silence: why nobody could be asked for them; None when somebody answered.
        set_limits: what a person set, the widest first.
        backlog: None when the database could not be asked.
        put_right: what workers found wrong and put right, and how often.
    """

    pools: "tuple[PoolState, ...]"
    silence: str | None
    set_limits: tuple[SetLimits, ...]
    backlog: Backlog | None
    put_right: Mapping[str, int] = field(default_factory=dict)

    @property
    def in_use(self) -> "list[PoolState]":
        """The pools through which calls go now, or for which jobs wait."""
        return [state for state in self.pools if _moves(state) or self._waits(state)]

    def _waits(self, state: "PoolState") -> bool:
        if self.backlog is None or not self.backlog.of_group(state.pool.group):
            return False
        return not any(_replaces(other.pool, state.pool) for other in self.pools if _moves(other))


def _replaces(other: "Pool", pool: "Pool") -> bool:
    """Whether another simulator answers an account's model group now; jobs wait for it alone."""
    from promptmill.claude.keys import configured_account, is_rehearsing  # noqa: PLC0415  # 0.4 s of imports

    return (
        other.group == pool.group
        and is_rehearsing(other.account)
        and is_rehearsing(pool.account)
        and configured_account(other.account) == configured_account(pool.account)
    )


def _moves(state: "PoolState") -> bool:
    used = state[Dimension.REQUESTS].used_per_minute >= _MOVES
    return used or bool(state.in_flight or state.processes_waiting or state.paused_for)


class BacklogReader:
    """Asks the database what waits, again and again; it may be made, come and go meanwhile. Close it at the end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._resources = ExitStack()
        self._database: Database | None = None
        self._away_until = float("-inf")
        self._counted = backlog.Counted(keep_s=COUNT_EVERY_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def read(self) -> Backlog | None:
        """What waits now; None when the database could not be asked."""
        scheme, _, path = self._settings.effective_database_url.partition(":///")
        if scheme.startswith("sqlite") and not Path(path).exists():
            return Backlog()
        if time.monotonic() < self._away_until:
            return None
        try:
            self._database = self._database or self._resources.enter_context(open_database(self._settings))
            with self._database.read() as connection:
                alive = workers.live(connection, database_now(connection))
                return Backlog(tuple(backlog.waiting_jobs(connection, self._counted)), len(alive))
        except PromptmillError:
            self._away_until = time.monotonic() + PAUSE_S
            return None


def limits(*, settings: Settings | None = None) -> LimitsNow:
    """The limits as they stand now. Starts nothing, and raises nothing because something is not running."""
    settings = settings or load()
    with LimitsReader(settings) as reader, BacklogReader(settings) as jobs:
        return look(reader, jobs, settings)


def watch_limits(settings: Settings | None = None, *, every_s: float = INTERVAL_S) -> Iterator[LimitsNow]:
    """The limits again and again, without end."""
    settings = settings or load()
    with LimitsReader(settings) as reader, BacklogReader(settings) as jobs:
        while True:
            yield look(reader, jobs, settings)
            time.sleep(every_s)


def look(reader: LimitsReader, jobs: BacklogReader, settings: Settings) -> LimitsNow:
    """One moment, asked through readers that are open already."""
    pools: Sequence[PoolState] = ()
    silence = None
    try:
        pools = reader.states()
    except Unavailable as error:
        silence = str(error)
    put_right = reader.put_right() if silence is None else {}
    return LimitsNow(tuple(pools), silence, set_limits(settings), jobs.read(), put_right)


def set_limits(settings: Settings) -> tuple[SetLimits, ...]:
    """What a person set, for all and for single accounts and model groups."""
    everywhere = settings.limits
    found = [_set(None, None, everywhere.of(""))]
    found += [_set(None, group, entry) for group, entry in everywhere.groups.items()]
    for account, own in everywhere.accounts.items():
        found.append(_set(account, None, own.of("")))
        found += [_set(account, group, entry) for group, entry in own.groups.items()]
    return tuple(found)


def _set(account: str | None, group: str | None, entry: GroupLimits) -> SetLimits:
    return SetLimits(account, group, entry.rpm, entry.itpm, entry.otpm)
