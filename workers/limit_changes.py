"""Says in the log when a limit changes, once: only the process that leads looks."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from promptmill.limits import DimensionState, LimitSource, Pool, PoolState
from promptmill.logs import get_logger

log = get_logger(__name__)

SAME = 1e-6
"""Relative difference below which two limits are the same."""
FOREIGN_NOTICED = 0.05
"""Share of a limit from which what another program takes is worth a line; half of it ends the episode."""


@dataclass(slots=True)
class LimitChanges:
    """Remembers the limits it saw last, pool by pool."""

    _seen: dict[Pool, PoolState] = field(default_factory=dict)
    _shared: set[tuple[Pool, str]] = field(default_factory=set)

    def look(self, states: Iterable[PoolState]) -> None:
        """Compare with what was seen before, and log what is different."""
        for state in states:
            before = self._seen.get(state.pool)
            self._seen[state.pool] = state
            for place, now in enumerate(state.dimensions):
                if before is not None:
                    _compare(state.pool, before.dimensions[place], now)
                self._look_for_others(state.pool, now)

    def _look_for_others(self, pool: Pool, now: DimensionState) -> None:
        place = (pool, now.dimension.value)
        share = now.foreign / now.limit if now.limit else 0.0
        if share >= FOREIGN_NOTICED and place not in self._shared:
            self._shared.add(place)
            log.warning("limit_shared", **_where(pool, now), taken_per_minute=round(now.foreign))
        elif share < FOREIGN_NOTICED / 2 and place in self._shared:
            self._shared.discard(place)
            log.warning("limit_ours_again", **_where(pool, now))


def _compare(pool: Pool, before: DimensionState, now: DimensionState) -> None:
    old, new = before.limit, now.limit
    if old == new or (old and new and abs(new - old) <= SAME * old):
        return
    facts = {
        **_where(pool, now),
        "before": old and round(old),
        "now": new and round(new),
        "source": now.source.value,
    }
    if before.source is LimitSource.DEFAULT:
        log.info("limit_learned", **facts)
    else:
        log.warning("limit_changed", **facts)


def _where(pool: Pool, now: DimensionState) -> dict[str, str]:
    return {"account": pool.account, "group": pool.group, "dimension": now.dimension.value}
