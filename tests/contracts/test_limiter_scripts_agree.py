"""The Lua scripts and the Python model say the same, step by step, over thousands of random steps."""

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from promptmill.dimensions import DIMENSIONS, Amounts, Headroom
from promptmill.limits import Ceilings, LocalPools, Pacing, Pool
from promptmill.limits.desk import Ask, Desk, Penalty, Release, Report, Settlement
from promptmill.limits.local import LocalDesk
from promptmill.limits.rates import in_outage
from promptmill.limits.records import POOL_FIELDS
from promptmill.limits.redis_desk import RedisDesk
from promptmill.limits.wire import Wire

POOL = Pool("account", "model group")
LIMITS = (1000.0, 450_000.0, 90_000.0)
NAMES = ("ann", "bob", "cid")


@dataclass
class Held:
    process: int
    permit: str
    amounts: Amounts
    generation: int


@dataclass
class Pair:
    """The same desk twice, for three processes, at a moment that the test sets."""

    wire: Wire
    chance: random.Random
    now: float = 1_790_000_000.0
    ceilings: dict[str, Ceilings] = field(default_factory=dict)
    held: list[Held] = field(default_factory=list)
    missing: float = 0.05  # how often a header leaves a dimension out
    outage: bool = False  # nothing is answered
    outages: int = 0  # comparisons while the pool knew that
    asked: int = 0
    granted: int = 0
    denied: int = 0

    def __post_init__(self) -> None:
        pools = LocalPools()
        self.configure()
        self.desks = [(self._local(pools, name), self._shared(name)) for name in NAMES]

    def _local(self, pools: LocalPools, name: str) -> Desk:
        return LocalDesk(
            pools,
            POOL,
            process=name,
            ceilings=lambda: self.ceilings[name],
            pacing=Pacing(),
            now=lambda: self.now,
        )

    def _shared(self, name: str) -> Desk:
        return RedisDesk(
            self.wire,
            POOL,
            process=name,
            ceilings=lambda: self.ceilings[name],
            pacing=Pacing(),
            now=lambda: self.now,
        )

    async def acquire(self) -> None:
        process = self.chance.randrange(len(self.desks))
        asks = [self._ask() for _ in range(self.chance.choice((0, 1, 1, 1, 2, 4)))]
        local, shared = [await desk.acquire(asks) for desk in self.desks[process]]
        assert local.waits == pytest.approx(shared.waits, abs=1e-6)
        assert local.pulse.generation == shared.pulse.generation
        assert (local.denial is None) == (shared.denial is None)
        if local.denial and shared.denial:
            self.denied += 1
            assert local.denial.dimension == shared.denial.dimension
            assert local.denial.ticket == pytest.approx(shared.denial.ticket, abs=1e-5)
            assert local.denial.starts_in == pytest.approx(shared.denial.starts_in, abs=1e-5)
            assert local.denial.too_large == pytest.approx(shared.denial.too_large)
        for ask, _ in zip(asks, local.waits, strict=False):
            self.granted += 1
            self.held.append(Held(process, ask.id, ask.amounts, local.pulse.generation))

    def _ask(self) -> Ask:
        self.asked += 1
        tokens = self.chance.choice((50, 1800, 1800, 9000, 500_000 if self.chance.random() < 0.02 else 300))
        amounts = Amounts(1, tokens * self.chance.uniform(0.7, 1.4), self.chance.randrange(20, 900))
        return Ask(f"permit-{self.asked}", amounts, self.chance.choice((0.2, 15.0, float("inf"))))

    async def report(self) -> None:
        if not self.held:
            return
        held = self.held[self.chance.randrange(len(self.held))]
        report = self._report_on(held)
        if not (isinstance(report, Settlement) and not report.final) and self.chance.random() < 0.9:
            self.held.remove(held)  # else it is reported on again, which must change nothing
        for desk in self.desks[held.process]:
            await desk.report(report)

    def _report_on(self, held: Held) -> Report:
        kind = self.chance.random()
        if kind < 0.05:
            return Release(held.permit)
        if self.outage and kind > 0.07:
            wait = 90.0 if self.chance.random() < 0.003 else self.chance.choice((0.0, 0.2))
            return Penalty(held.permit, held.generation, False, wait, None, None)
        if kind < 0.07:
            dimension = self.chance.choice((*DIMENSIONS, None))
            refused = self.chance.random() < 0.5
            wait = self.chance.choice((0.2, 2.0))
            return Penalty(held.permit, held.generation, refused, wait, dimension, self._headroom())
        used = Amounts(
            1, held.amounts.input_tokens * self.chance.uniform(0.3, 2), self.chance.randrange(1, 1500)
        )
        known = None if self.chance.random() < 0.05 else used
        if self.chance.random() < 0.05:
            known = Amounts(1, 0, 0)
        return Settlement(held.permit, known, self._headroom(), final=self.chance.random() < 0.8)

    def _headroom(self) -> Headroom | None:
        if self.chance.random() < 0.5:
            return None
        factor = 0.7 if self.chance.random() < 0.02 else 1.0
        said: list[float | None] = []
        for limit in LIMITS:
            missing = self.chance.random() < self.missing
            lowest = 0.0 if self.chance.random() < 0.1 else 0.9 * limit
            said += [None if missing else limit * factor, round(self.chance.uniform(lowest, limit), -1)]
        return Headroom(*said)

    async def teach(self) -> None:
        said = Ceilings(*(self.chance.choice((None, 0.0, limit, 0.8 * limit)) for limit in LIMITS))
        for desk in self.desks[self.chance.randrange(len(self.desks))]:
            await desk.teach(said)

    async def beat(self) -> None:
        for desk in self.desks[self.chance.randrange(len(self.desks))]:
            await desk.beat()

    def configure(self) -> None:
        """The same for all processes, or for some of them, as in the middle of a restart."""
        stated = [self._stated(), self._stated()]
        disagree = self.chance.random() < 0.5
        self.ceilings = {name: stated[self.chance.randrange(2) if disagree else 0] for name in NAMES}

    def _stated(self) -> Ceilings:
        choices: tuple[float | None, ...] = (None, 0.0, 1.0)
        limits = [
            None if (choice := self.chance.choice(choices)) is None else limit * choice for limit in LIMITS
        ]
        return Ceilings(*limits)

    async def compare(self) -> None:
        (local, here), (shared, there) = [await desk.peek() for desk in self.desks[0]]
        assert here == there
        self.outages += in_outage(local, here, Pacing())
        for name in POOL_FIELDS:
            ours, theirs = getattr(local, name), getattr(shared, name)
            assert theirs == pytest.approx(ours, rel=1e-6, abs=1e-6), (name, self.asked)
        assert [name for name, _ in local.line] == [name for name, _ in shared.line]


@pytest.fixture
async def wire(clean_redis: str) -> AsyncIterator[Wire]:
    wire = Wire(clean_redis, Pacing())
    yield wire
    await wire.aclose()


@pytest.mark.parametrize("seed", [1, 4])
async def test_the_scripts_keep_the_same_record_as_the_model(wire: Wire, seed: int) -> None:
    pair = Pair(wire, random.Random(seed))
    for step in range(2600):
        pair.now += pair.chance.expovariate(8) + (200.0 if pair.chance.random() < 0.001 else 0.0)
        if pair.chance.random() < 0.003:
            pair.now -= pair.chance.choice((2.0, 40.0))
        kind = pair.chance.random()
        if step % 400 == 0:
            pair.configure()
            pair.missing = pair.chance.choice((0.05, 0.6))
        pair.outage = 1000 <= step < 1300
        if kind < 0.55:
            await pair.acquire()
        elif kind < 0.985:
            await pair.report()
        elif kind < 0.99:
            await pair.teach()
        else:
            await pair.beat()
        if step % 5 == 0:
            await pair.compare()
    assert pair.granted > 150
    assert pair.denied > 100
    assert pair.outages > 20
