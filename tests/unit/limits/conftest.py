"""Virtual time, and a rehearsal: many waiting calls against the rules of the documented server.

The event loop's clock jumps to the next timer instead of waiting for it, so the very limiter that runs in
production is tried for ten minutes in a second. The server's rules are the simulator's, written by others.
"""

import asyncio
import math
import random
import selectors
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from promptmill.dimensions import DIMENSIONS, Amounts, Headroom
from promptmill.errors import LimitReached
from promptmill.limits import Ceilings, Limiter, LocalLimiter, LocalPools, Pool
from promptmill.simulator.limits import Ceilings as ServerLimits
from promptmill.simulator.limits import Pool as Server
from promptmill.simulator.limits import Tenant

POOL = Pool("account", "group")
TIER = Amounts(1000, 450_000, 90_000)
LOADS = {  # mean and spread of input, of output
    "requests": (200, 0.6, 40, 0.5),
    "input": (1800, 0.9, 200, 0.6),
    "output": (500, 0.8, 450, 0.6),
    "balanced": (1500, 0.9, 300, 0.6),
    "short": (150, 0.3, 120, 0.3),
}


class JumpingSelector(selectors.SelectSelector):
    """Never waits: time goes on by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is not None:
            self.time += max(0.0, timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is the selector's."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._jumping.time


class LoopClock:
    """The running loop's time as a Clock."""

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.monotonic(), UTC)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


@pytest.fixture
def virtually() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """`virtually(coroutine)` runs it in virtual time and returns its result."""

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(coroutine)

    return run


@pytest.fixture
def loop_clock() -> LoopClock:
    return LoopClock()


@dataclass
class Job:
    input_tokens: int
    output_tokens: int
    guess: Amounts


@dataclass
class Rehearsal:
    """What is rehearsed, and what came of it."""

    load: str = "balanced"
    seconds: float = 300.0
    limits: Amounts = TIER
    burst: float = 60.0
    ceilings: Ceilings = field(default_factory=Ceilings)
    processes: int = 8
    slots: int = 16
    guess: float = 1.0
    tenant: Tenant | None = None
    change: tuple[float, Amounts] | None = None
    forget_at: float | None = None
    dying: tuple[float, int] | None = None
    seed: int = 1

    makespan: float = 0.0
    latency: float = 0.0
    refusals: int = 0
    deferred: int = 0
    last_start: float = 0.0
    least: float = 0.0  # seconds that the limits allow as the shortest
    utilisation: float = 0.0
    open_permits: int = 0

    @property
    def ratio(self) -> float:
        return self.makespan / (self.least + self.latency)


class Stage:
    """Runs one rehearsal on limiters that share their pools like processes share a Redis."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self.plan = rehearsal
        self.chance = random.Random(rehearsal.seed)
        self.begins = asyncio.get_running_loop().time()
        self.server = Server(
            self._limits(rehearsal.limits), 0.0, [rehearsal.tenant] if rehearsal.tenant else []
        )
        self.pools = LocalPools()
        self.jobs = deque(self._jobs())
        self.total = len(self.jobs)
        self.starts: list[tuple[float, Job]] = []
        self.latencies: list[float] = []
        self.ended = asyncio.Event()
        self.learned = [1.0, 1.0]

    def now(self) -> float:
        return asyncio.get_running_loop().time() - self.begins

    def _limits(self, per_minute: Amounts) -> ServerLimits:
        burst = self.plan.burst
        return ServerLimits(
            per_minute=per_minute, burst_s=Amounts(burst, burst, burst), hidden_request_burst_s=1.0
        )

    def _jobs(self) -> list[Job]:
        sent, spread, produced, unevenness = LOADS[self.plan.load]
        limits = self.plan.limits
        each = max(1 / limits.requests, sent / limits.input_tokens, produced / limits.output_tokens)
        return [
            self._job(sent, spread, produced, unevenness) for _ in range(int(self.plan.seconds / 60 / each))
        ]

    def _job(self, sent: float, spread: float, produced: float, unevenness: float) -> Job:
        size = self.chance.lognormvariate(math.log(sent) - spread**2 / 2, spread)
        size = int(min(60_000, max(10, size)))
        length = self.chance.lognormvariate(math.log(produced) - unevenness**2 / 2, unevenness)
        guess = Amounts(
            1, size * self.plan.guess * self.chance.lognormvariate(0, 0.1), produced * self.plan.guess
        )
        return Job(size, int(min(4096, max(1, length))), guess)

    def estimate(self, job: Job) -> Amounts:
        """What the Estimator of the product does: past errors correct the next guess."""
        return Amounts(1, job.guess.input_tokens * self.learned[0], job.guess.output_tokens * self.learned[1])

    def learn(self, job: Job) -> None:
        for place, (used, guessed) in enumerate(
            ((job.input_tokens, job.guess.input_tokens), (job.output_tokens, job.guess.output_tokens))
        ):
            self.learned[place] += 0.02 * (used / guessed - self.learned[place])

    async def run(self) -> Rehearsal:
        plan = self.plan
        processes = [
            LocalLimiter(ceilings=lambda _: plan.ceilings, clock=LoopClock(), pools=self.pools)
            for _ in range(plan.processes)
        ]
        tasks = [
            [asyncio.create_task(self._slot(limiter)) for _ in range(plan.slots)] for limiter in processes
        ]
        beats = [asyncio.create_task(self._beat(limiter)) for limiter in processes]
        events = [asyncio.create_task(event) for event in self._events(tasks, beats)]
        async with asyncio.timeout(20 * plan.seconds):
            await self.ended.wait()
        everything = [task for group in (*tasks, beats, events) for task in group]
        for task in everything:
            task.cancel()
        await asyncio.gather(*everything, return_exceptions=True)
        self._conclude((await processes[0].peek(POOL)).in_flight)
        for limiter in processes:
            await limiter.aclose()
        return plan

    def _events(
        self, tasks: list[list[asyncio.Task[None]]], beats: list[asyncio.Task[None]]
    ) -> list[Coroutine[Any, Any, None]]:
        plan, events = self.plan, []
        if plan.change:
            moment, limits = plan.change
            events.append(self._at(moment, lambda: self.server.change(self._limits(limits), self.now())))
        if plan.forget_at:
            events.append(self._at(plan.forget_at, self.pools.forget))
        if plan.dying:
            moment, count = plan.dying
            dead = [task for group in (*tasks[:count], beats[:count]) for task in group]
            events.append(self._at(moment, lambda: [task.cancel() for task in dead]))
        return events

    async def _at(self, moment: float, act: Callable[[], object]) -> None:
        await asyncio.sleep(moment)
        act()

    async def _beat(self, limiter: Limiter) -> None:
        while True:
            await limiter.beat()
            await asyncio.sleep(5)

    async def _slot(self, limiter: Limiter) -> None:
        while True:
            if not self.jobs:
                await asyncio.sleep(0.05)
                continue
            job = self.jobs.popleft()
            await self._answer(limiter, job)
            self.total -= 1
            if not self.total:
                self.ended.set()

    async def _answer(self, limiter: Limiter, job: Job) -> None:
        while True:
            try:
                permit = await limiter.acquire(POOL, self.estimate(job), patience=15)
            except LimitReached as refusal:
                self.plan.deferred += 1
                await asyncio.sleep(max(0.1, refusal.retry_after))
                continue
            except asyncio.CancelledError:
                self.jobs.append(job)
                raise
            try:
                await self._network()
                refused = self.server.admit(self.now(), job.input_tokens, job.output_tokens)
                if refused is None:
                    await self._produce(limiter, permit, job)
                    return
            except asyncio.CancelledError:
                self.jobs.append(job)  # the process died; its jobs come back
                raise
            self.plan.refusals += 1
            await limiter.penalise(
                permit, status=429, retry_after=refused.retry_after, dimension=refused.dimension
            )
            await asyncio.sleep(refused.retry_after + self.chance.random() / 2)

    async def _produce(self, limiter: Limiter, permit: Any, job: Job) -> None:
        admitted, headroom = self.now(), self._headroom()
        self.starts.append((admitted, job))
        first = self.chance.lognormvariate(math.log(0.9), 0.35)
        duration = job.output_tokens / self.chance.lognormvariate(math.log(70), 0.2)
        self.server.produce(admitted + first, duration, job.output_tokens)
        await asyncio.sleep(first + duration)
        await self._network()
        await limiter.settle(permit, Amounts(1, job.input_tokens, job.output_tokens), headroom)
        self.learn(job)
        self.latencies.append(self.now() - admitted)

    async def _network(self) -> None:
        delay = 0.02 + self.chance.gammavariate(2, 0.006)
        if self.chance.random() < 0.01:
            delay += self.chance.uniform(0.05, 0.3)
        await asyncio.sleep(delay)

    def _headroom(self) -> Headroom:
        figures: list[float] = []
        limits = self.server.ceilings.per_minute
        for dimension, level in zip(DIMENSIONS, self.server.levels(self.now()), strict=True):
            left = max(0.0, level or 0.0)
            left = math.floor(left) if dimension is DIMENSIONS[0] else round(left / 1000) * 1000
            figures += [limits[dimension], left]
        return Headroom(*figures)

    def _conclude(self, in_flight: int) -> None:
        plan = self.plan
        plan.makespan, plan.open_permits = self.now(), in_flight
        plan.latency = sum(self.latencies) / len(self.latencies)
        plan.last_start = self.starts[-1][0]
        steady = (min(60.0, plan.last_start / 4), self.starts[int(len(self.starts) * 0.95)][0])
        shares, spans = [], []
        for place, limit in enumerate(plan.limits):
            used = [(at, self._cost(job)[place]) for at, job in self.starts]
            spans.append(self._time_for(sum(cost for _, cost in used), limit / 60))
            within = sum(cost for at, cost in used if steady[0] <= at < steady[1])
            shares.append(within / self._supply(steady, limit / 60))
        binding = spans.index(max(spans))
        plan.least, plan.utilisation = spans[binding], shares[binding]

    @staticmethod
    def _cost(job: Job) -> tuple[int, int, int]:
        return (1, job.input_tokens, job.output_tokens)

    def _supply(self, span: tuple[float, float], rate: float) -> float:
        tenant = self.plan.tenant
        taken = 0.0
        if tenant:
            taken = max(0.0, span[1] - max(span[0], tenant.begins)) * tenant.share
        return (span[1] - span[0] - taken) * rate

    def _time_for(self, amount: float, rate: float) -> float:
        tenant = self.plan.tenant
        if not tenant or amount <= rate * tenant.begins:
            return amount / rate
        return tenant.begins + (amount - rate * tenant.begins) / (rate * (1 - tenant.share))


@pytest.fixture
def rehearse(virtually: Callable[[Awaitable[Rehearsal]], Rehearsal]) -> Callable[..., Rehearsal]:
    """`rehearse(load=…, …)` plays a batch through and says how it went."""

    async def stage(rehearsal: Rehearsal) -> Rehearsal:
        return await Stage(rehearsal).run()

    return lambda **plan: virtually(stage(Rehearsal(**plan)))
