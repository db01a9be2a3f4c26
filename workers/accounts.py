"""Several accounts add up: whose key the next call of a model group takes.

Every account has limits of its own, so the next call goes where it would begin first: fewest calls waiting
here for each call that the limits of that account carry. Other processes do the same, and see the same paces.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from promptmill.claude.keys import Key, KeyRing
from promptmill.clock import Clock, SystemClock
from promptmill.dimensions import Amounts, Dimension
from promptmill.errors import NoUsableKey, PromptmillError
from promptmill.limits import Pool, PoolState
from promptmill.logs import get_logger

log = get_logger(__name__)

UNKNOWN_PACE = 1.0
"""Calls per second of an account of which nothing is known; only its relation to others matters."""
OWN_SHARE_LEAST = 0.05
"""Of a limit, however much another program seems to take."""


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """What all accounts together allow a model group: limits per minute (0 = none) and a pause in seconds."""

    per_minute: Amounts = field(default_factory=Amounts)
    paused_s: float = 0.0


@dataclass(slots=True)
class Accounts:
    """The accounts of one worker process, by the keys it may use now.

    Args:
        keys: every key this process knows.
        read_keys: has them read anew, soon; a file may have been replaced a moment ago.
        peek: asks the limiter for the state of a pool.
        clock: says whose rest at a spend limit is over.
    """

    keys: KeyRing
    read_keys: Callable[[], None]
    peek: Callable[[Pool], Awaitable[PoolState]]
    clock: Clock = field(default_factory=SystemClock)
    _states: dict[Pool, PoolState] = field(default_factory=dict)
    _waiting: Counter[Pool] = field(default_factory=Counter)
    _groups: set[str] = field(default_factory=set)

    def in_order(self, group: str, *, resumed_at: datetime | None = None) -> list[Key]:
        """A key of every account, for the next call of a model group: where it would begin first comes first.

        `resumed_at` is when the batch of the call last went on: an account that rests since before is tried again, and
        where no key is left, so are those refused before.
        One that rests without a date comes first now and then, for one call: see `KeyRing.probe`.

        Raises:
            NoUsableKey: there is none.
        """
        self._groups.add(group)
        if resumed_at is not None:
            self.keys.resumed(resumed_at)
        probe = self.keys.probe(group, self.clock.now())
        try:
            usable = self._usable(group, resumed_at)
        except NoUsableKey:
            if probe is None:
                raise
            return [probe]
        in_order = sorted(usable, key=lambda key: self._expected_wait(Pool(key.account, group)))
        return in_order if probe is None else [probe, *in_order]

    def still_fits(self, key: Key, group: str) -> bool:
        """Whether a key that was chosen a while ago may still be called with."""
        return self.keys.still_fits(key, group, self.clock.now() if key.use_until else None)

    @contextmanager
    def waiting(self, pool: Pool) -> Iterator[None]:
        """Count a call among those that wait at a pool, for the length of the block."""
        self._waiting[pool] += 1
        try:
            yield
        finally:
            self._waiting[pool] -= 1

    async def look(self) -> None:
        """Ask how fast each account goes; of use, and done, only where there are several."""
        pools = [pool for group in self._groups if len(self._pools(group)) > 1 for pool in self._pools(group)]
        self._states.update(await self._peek_all(pools))

    async def limits_of(self, group: str) -> tuple[GroupLimits, list[PoolState]]:
        """What all usable accounts together allow a model group, and the state of each; nothing where nobody knows."""
        states = list((await self._peek_all(self._pools(group))).values())
        return add_up(states), states

    async def _peek_all(self, pools: list[Pool]) -> Mapping[Pool, PoolState]:
        found = await asyncio.gather(*(self.peek(pool) for pool in pools), return_exceptions=True)
        states: dict[Pool, PoolState] = {}
        for pool, state in zip(pools, found, strict=True):
            if isinstance(state, PoolState):
                states[pool] = state
            elif isinstance(state, PromptmillError):
                log.warning("limits_unknown", group=pool.group, error=type(state).__name__)
            else:
                raise state
        return states

    def _usable(self, group: str, resumed_at: datetime | None) -> tuple[Key, ...]:
        try:
            return self.keys.usable(group, now=self.clock.now())
        except NoUsableKey:
            self.read_keys()
            if resumed_at is not None:
                self.keys.forgive(resumed_at)
            return self.keys.usable(group, now=self.clock.now())

    def _pools(self, group: str) -> list[Pool]:
        try:
            return [Pool(key.account, group) for key in self.keys.usable(group, now=self.clock.now())]
        except NoUsableKey:
            return []

    def _expected_wait(self, pool: Pool) -> float:
        """Seconds until one more call would begin."""
        state = self._states.get(pool)
        if state is None:
            return (self._waiting[pool] + 1) / UNKNOWN_PACE
        pace = state.calls_per_second()
        if pace is None:
            return state.paused_for
        return state.paused_for + (self._waiting[pool] + 1) / max(1e-9, pace * state.share)


def add_up(states: Iterable[PoolState]) -> GroupLimits:
    """The limits of several accounts as one: sums, without what other programs take; the shortest pause."""
    known = list(states)
    if not known:
        return GroupLimits()
    amounts = (_sum_of(known, dimension) for dimension in Dimension)
    return GroupLimits(Amounts(*amounts), min(state.paused_for for state in known))


def _sum_of(states: Iterable[PoolState], dimension: Dimension) -> float:
    total = 0.0
    for state in states:
        one = state[dimension]
        if one.limit is None:
            return 0.0
        total += max(OWN_SHARE_LEAST * one.limit, one.limit - one.foreign)
    return total
