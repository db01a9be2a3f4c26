"""What a submission would use, cost and take, asked before it is made. Nothing is written, not even a data folder.

The prompts are read and checked as `submit` does it. What earlier answers taught is read where there is a
database already; the limits come from the settings, and from the running limiter where one answers.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from producers.forecast_time import Allowed, Duration, duration_of
from producers.limits_reader import LimitsReader
from producers.stack import needs_simulator
from producers.submission import experience, options_for, will_be_simulated
from promptmill.claude.keys import configured_account, declared_keys, is_rehearsing, rehearsing
from promptmill.clock import SystemClock
from promptmill.dimensions import DIMENSIONS, Dimension
from promptmill.encryption import read_vault
from promptmill.errors import ConfigurationError, ConnectionFailed, Unavailable
from promptmill.intake.admit import survey
from promptmill.intake.faults import InvalidRows
from promptmill.intake.forecast import Forecast
from promptmill.intake.options import SubmitOptions
from promptmill.intake.survey import Progress, Survey
from promptmill.runtime import Surroundings
from promptmill.settings import Settings, load
from promptmill.store.database import Database

if TYPE_CHECKING:
    from promptmill.limits import PoolState


@dataclass(frozen=True, slots=True)
class Outlook:
    """Everything `estimate` shows.

    Attributes:
        found: the prompts, and what they will use and cost.
        simulated: whether a simulated Claude would answer; what it answered teaches nothing about the real one.
        allowed: what the limits are, by model group.
        notices: what a person should know, in sentences.
        limiter: whether a running limiter answered.
        budget_nanos: what the batch may cost; None for no budget.
    """

    found: Survey
    simulated: bool
    allowed: Mapping[str, Allowed]
    notices: tuple[str, ...]
    limiter: bool = True
    budget_nanos: int | None = None

    @property
    def forecast(self) -> Forecast:
        """What the prompts will use and cost."""
        return self.found.forecast

    @property
    def duration(self) -> Duration | None:
        """How long it takes: as long as the slowest model group; None where no limit is known or none holds."""
        durations = [
            duration_of(self.allowed[group], load, group) for group, load in self.forecast.loads.items()
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
        known = Surroundings(settings)
        simulated = _will_be_simulated(known, database, notices)
        try:
            found = survey(
                source,
                options,
                simulated=simulated,
                clock=SystemClock(),
                progress=progress,
                catalogue=known.catalogue,
                prices=known.prices,
                experience_of=experience(database, simulated=simulated),
            )
        except InvalidRows as error:
            raise InvalidRows(error.faults, error.count, not_done="estimated") from error
    groups = list(found.forecast.loads)
    states = _states(settings, groups, notices)
    kept = _Kept(states or {}, _simulator(known) if simulated else None, simulated=simulated)
    allowed = _allowed(settings, groups, kept)
    return Outlook(
        found,
        simulated,
        allowed,
        (*found.notices, *notices),
        limiter=states is not None,
        budget_nanos=options.budget_nanos,
    )


@contextmanager
def _database_if_any(settings: Settings, notices: list[str]) -> Iterator[Database | None]:
    """The database, where there is one of this version already."""
    url = settings.effective_database_url
    scheme, _, path = url.partition(":///")
    if scheme.startswith("sqlite") and not Path(path).exists():
        yield None
        return
    database = Database.open(url, read_vault(settings.encryption_keys_file))
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


def _will_be_simulated(known: Surroundings, database: Database | None, notices: list[str]) -> bool:
    try:
        return will_be_simulated(known, database)
    except ConnectionFailed as error:
        notices.append(f"taken for the real Claude: {error}")
        return False


def _simulator(known: Surroundings) -> str | None:
    """Where the simulated Claude is; None where the workers that run have one of their own."""
    return None if needs_simulator(known.settings) else known.endpoint.url


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the limiter keeps: by account, as it names it, and model group.

    Attributes:
        simulator: its address, where that is known.
    """

    states: "Mapping[tuple[str, str], PoolState]"
    simulator: str | None
    simulated: bool

    def of(self, account: str, group: str) -> "PoolState | None":
        """Of an account as a person calls it; of several simulators the one that is called most."""
        if not self.simulated:
            return self.states.get((account, group))
        if self.simulator is not None:
            return self.states.get((rehearsing(account, self.simulator), group))
        of_it = [
            state
            for (name, kept), state in self.states.items()
            if kept == group and is_rehearsing(name) and configured_account(name) == account
        ]
        return max(of_it, key=lambda state: state.in_flight, default=None)


def _allowed(settings: Settings, groups: Sequence[str], kept: _Kept) -> dict[str, Allowed]:
    claude = settings.claude
    keys = declared_keys(claude.api_key, claude.keys_file, api_key_file=claude.api_key_file)
    accounts = sorted({key.account for key in keys}) or ["default"]
    return {
        group: Allowed(
            {account: _of_account(settings, kept.of(account, group), account, group) for account in accounts}
        )
        for group in groups
    }


def _states(
    settings: Settings, groups: Sequence[str], notices: list[str]
) -> "dict[tuple[str, str], PoolState] | None":
    """What the limiter follows; None where none answers, which is worth a notice only where one is set."""
    try:
        with LimitsReader(settings) as reader:
            return {(state.pool.account, state.pool.group): state for state in reader.states(groups)}
    except Unavailable as error:
        if settings.redis_url is not None:
            notices.append(f"what the limiter learned was not looked at: {error}")
        return None


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
