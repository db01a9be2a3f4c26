"""The limits: are they known, is any entry for nobody, and can the slots of the workers use what they allow."""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING

from producers.doctor.checks import Check, note, ok, wrong
from producers.limits_groups import strange_groups
from producers.limits_now import set_limits
from producers.limits_reader import LimitsReader
from promptmill.catalogue import Catalogue
from promptmill.errors import PromptmillError, Unavailable
from promptmill.runtime import open_database
from promptmill.settings import Settings
from promptmill.store import totals, workers
from promptmill.store.database import database_now

if TYPE_CHECKING:
    from promptmill.limits import PoolState

FEW_CALLS = 20
"""Fewer say nothing of how long calls take."""


def limits(settings: Settings) -> list[Check]:
    """Whether any limit is known, and whether the workers are as many as it allows."""
    states = _states(settings)
    if any(each.is_set for each in set_limits(settings)):
        known = ok("limits", "set; promptmill limits shows them")
    elif given := sorted({state.pool.group for state in states if _is_set(state)}):
        known = ok("limits", f"set where workers run, for {', '.join(given)}")
    elif learned := sorted({state.pool.group for state in states if _is_known(state)}):
        known = ok("limits", f"learned for {', '.join(learned)}")
    else:
        advice = (
            "set PROMPTMILL_RPM, PROMPTMILL_ITPM and PROMPTMILL_OTPM, or while workers run: "
            "promptmill limits probe; else they are learned from the replies, beginning slowly"
        )
        known = note("limits", "unknown", advice)
    return [known, *_slots(settings, states)]


def groups(settings: Settings) -> list[Check]:
    """Entries for model groups that no model is of."""
    try:
        catalogue = Catalogue(settings.models)
    except PromptmillError as error:
        return [wrong("models", str(error), "correct it in promptmill.toml")]
    advice = (
        "correct the name in promptmill.toml, unless it is a newer model: nothing else follows these limits"
    )
    nearest = "no model that is known here is of this group"
    return [
        note(each.setting, nearest + (f"; the nearest is {each.nearest}" if each.nearest else ""), advice)
        for each in strange_groups(settings.limits, catalogue)
    ]


def judge_slots(
    slots: int, rates: Mapping[str, float], seconds: Mapping[str, Sequence[float]]
) -> list[Check]:
    """Little's law: as many calls are in flight as begin in a second, times the seconds that one takes.

    Args:
        slots: calls that the living workers may have in flight.
        rates: calls a second that the limits allow, by model group.
        seconds: how long the latest calls took, in rising order, by model group.
    """
    typical = {group: took[len(took) // 2] for group, took in seconds.items() if len(took) >= FEW_CALLS}
    needed = ceil(sum(rate * typical[group] for group, rate in rates.items() if group in typical))
    if not slots or needed <= slots:
        return []
    found = (
        f"{slots:,}, and {needed:,} would use the limits at the {max(typical.values()):.0f} s a call takes"
    )
    return [note("slots", found, "start more workers, or raise PROMPTMILL_CONCURRENCY")]


def _slots(settings: Settings, states: "Sequence[PoolState]") -> list[Check]:
    rates: dict[str, float] = {}
    for state in states:
        if _is_known(state) or _is_set(state):
            rate = state.calls_per_second()
            rates[state.pool.group] = rates.get(state.pool.group, 0.0) + (rate or 0.0)
    if not rates:
        return []
    try:
        with open_database(settings) as database, database.read() as connection:
            now = database_now(connection)
            slots = sum(worker.slots for worker in workers.live(connection, now))
            return judge_slots(slots, rates, totals.latest_calls(connection, now))
    except PromptmillError:  # said above
        return []


def _states(settings: Settings) -> "list[PoolState]":
    try:
        with LimitsReader(settings) as reader:
            return list(reader.states())
    except Unavailable:
        return []


def _is_known(state: "PoolState") -> bool:
    from promptmill.limits import LimitSource  # noqa: PLC0415  # loaded by who asked the limiter

    return _has(state, (LimitSource.LEARNED, LimitSource.PROBED))


def _is_set(state: "PoolState") -> bool:
    from promptmill.limits import LimitSource  # noqa: PLC0415  # likewise

    return _has(state, (LimitSource.CONFIGURED,))


def _has(state: "PoolState", sources: Iterable[object]) -> bool:
    return any(each.source in sources for each in state.dimensions)
