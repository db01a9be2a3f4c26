"""What a submission would use, cost and take, asked before it is made. Nothing is written, not even a data folder.

The prompts are read and checked as `submit` does it. What earlier answers taught is read where there is a
database already; the limits come from the settings, and from the running limiter where one answers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from producers.limits_reader import LimitsReader
from producers.stack import needs_simulator
from producers.submission import options_for
from promptmill.claude.keys import load_keys, rehearsing
from promptmill.clock import SystemClock
from promptmill.dimensions import DIMENSIONS, Amounts, Dimension
from promptmill.errors import ConfigurationError, ConnectionFailed, Unavailable
from promptmill.intake.admit import experience_in, survey
from promptmill.intake.forecast import ExperienceOf, Forecast, Load, nothing_known
from promptmill.intake.options import SubmitOptions
from promptmill.intake.survey import Survey
from promptmill.runtime import SIMULATED, Runtime
from promptmill.settings import Settings, load
from promptmill.store import workers
from promptmill.store.database import Database, database_now

if TYPE_CHECKING:
    from promptmill.limits import PoolState

MINUTE_S = 60.0

Progress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Allowed:
    """What all accounts together allow a model group, per minute.

    Attributes:
        limits: by dimension; None where there is none. A dimension that nobody knows yet is missing.
        accounts: how many add up.
    """

    limits: Mapping[Dimension, float | None]
    accounts: int = 1

    @property
    def unknown(self) -> tuple[Dimension, ...]:
        """The dimensions whose limit the first reply will tell."""
        return tuple(each for each in DIMENSIONS if each not in self.limits)

    def seconds(self, amounts: Amounts) -> tuple[float, Dimension] | None:
        """How long so much takes at these limits, and which of them binds; None where none is known."""
        times = [(MINUTE_S * amounts[each] / limit, each) for each, limit in self.limits.items() if limit]
        return max(times, default=None)


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds at the limits in force, and the model group and limit that bind."""

    low: float
    expected: float
    high: float
    group: str
    bound_by: Dimension


@dataclass(frozen=True, slots=True)
class Outlook:
    """Everything `estimate` shows.

    Attributes:
        found: the prompts, and what they will use and cost.
        simulated: whether a simulated Claude would answer; what it answered teaches nothing about the real one.
        allowed: what the limits are, by model group.
        notices: what a person should know, in sentences.
    """

    found: Survey
    simulated: bool
    allowed: Mapping[str, Allowed]
    notices: tuple[str, ...]

    @property
    def forecast(self) -> Forecast:
        """What the prompts will use and cost."""
        return self.found.forecast

    @property
    def duration(self) -> Duration | None:
        """How long it takes: as long as the slowest model group; None where no limit is known or none holds."""
        durations = [
            _duration(self.allowed[group], load, group) for group, load in self.forecast.loads.items()
        ]
        return max((each for each in durations if each), key=lambda each: each.expected, default=None)


def estimate(source: object, *, settings: Settings | None = None, **options: Any) -> Outlook:
    """What a submission would use, cost and take; nothing is submitted, and no file is left.

    Args:
        source: as in `submit`.
        settings: read from the environment when None.
        options: the options of `submit`, by their names.

    Raises:
        InvalidInput: rows or options are at fault.
        ConfigurationError: a setting is wrong, or a database is set and cannot be used.
    """
    return outlook(source, options_for(**options), settings=settings or load())


def outlook(
    source: object, options: SubmitOptions, *, settings: Settings, progress: Progress | None = None
) -> Outlook:
    """The same, for options that were read already."""
    notices: list[str] = []
    with _database_if_any(settings, notices) as database:
        simulated = _will_be_simulated(settings, database, notices)
        runtime = Runtime(settings, database)  # type: ignore[arg-type]  # asked for prices and models only
        found = survey(
            source,
            options,
            simulated=simulated,
            clock=SystemClock(),
            progress=progress,
            catalogue=runtime.catalogue,
            prices=runtime.prices,
            experience_of=_experience(database, simulated=simulated),
        )
    allowed = _allowed(settings, list(found.forecast.loads), simulated=simulated)
    return Outlook(found, simulated, allowed, (*found.notices, *notices))


@contextmanager
def _database_if_any(settings: Settings, notices: list[str]) -> Iterator[Database | None]:
    """The database, where there is one of this version already."""
    url = settings.effective_database_url
    scheme, _, path = url.partition(":///")
    if scheme.startswith("sqlite") and not Path(path).exists():
        yield None
        return
    database = Database.open(url)
    try:
        try:
            database.check_schema()
        except ConfigurationError as error:
            notices.append(f"earlier answers were not looked at: {error}")
            yield None
            return
        yield database
    finally:
        database.close()


def _experience(database: Database | None, *, simulated: bool) -> ExperienceOf:
    if database is None:
        return nothing_known
    return experience_in(database, simulated=simulated, now=SystemClock().now())


def _will_be_simulated(settings: Settings, database: Database | None, notices: list[str]) -> bool:
    if not needs_simulator(settings):
        try:
            return Runtime(settings, database).endpoint.simulated  # type: ignore[arg-type]  # asks no database
        except ConnectionFailed as error:
            notices.append(f"taken for the real Claude: {error}")
            return False
    if database is None:
        return False
    with database.read() as connection:
        alive = workers.live(connection, database_now(connection))
    return any(worker.endpoint == SIMULATED for worker in alive)


def _allowed(settings: Settings, groups: Sequence[str], *, simulated: bool) -> dict[str, Allowed]:
    states = _states(settings, groups)
    claude = settings.claude
    keys = load_keys(claude.read_api_key(), claude.keys_file)
    accounts = sorted({key.account for key in keys}) or ["default"]
    return {
        group: _sum(
            [
                _of_account(
                    settings,
                    states.get((rehearsing(account) if simulated else account, group)),
                    account,
                    group,
                )
                for account in accounts
            ]
        )
        for group in groups
    }


def _states(settings: Settings, groups: Sequence[str]) -> "dict[tuple[str, str], PoolState]":
    try:
        with LimitsReader(settings) as reader:
            return {(state.pool.account, state.pool.group): state for state in reader.states(groups)}
    except Unavailable:
        return {}


def _of_account(
    settings: Settings, state: "PoolState | None", account: str, group: str
) -> dict[Dimension, float | None]:
    """The limits of one account: what the limiter follows, else what a person set."""
    from promptmill.limits import LimitSource  # noqa: PLC0415  # loaded by the reader already, where one answers

    entry = settings.limits.of(group, account)
    found: dict[Dimension, float | None] = {}
    for dimension, ceiling in zip(DIMENSIONS, (entry.rpm, entry.itpm, entry.otpm), strict=True):
        if state is not None and state[dimension].source is not LimitSource.DEFAULT:
            found[dimension] = state[dimension].limit
        elif ceiling is not None:
            found[dimension] = ceiling or None
    return found


def _sum(accounts: Sequence[Mapping[Dimension, float | None]]) -> Allowed:
    """Accounts add up; one without a limit lifts it for all, one that nobody knows adds nothing yet."""
    limits: dict[Dimension, float | None] = {}
    for dimension in DIMENSIONS:
        known = [each[dimension] for each in accounts if dimension in each]
        if known:
            limits[dimension] = None if None in known else sum(each for each in known if each)
    return Allowed(limits, len(accounts))


def _duration(allowed: Allowed, load: Load, group: str) -> Duration | None:
    expected = allowed.seconds(load.expected)
    low, high = allowed.seconds(load.low), allowed.seconds(load.high)
    if expected is None or low is None or high is None:
        return None
    return Duration(low[0], expected[0], high[0], group, expected[1])
