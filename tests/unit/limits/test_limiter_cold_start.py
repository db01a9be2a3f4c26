"""Five prompts on an account of which nothing is known, in virtual time: how long a first run takes."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from bench.rehearsal.virtual import LoopClock, run_virtually
from promptmill.clock import Clock
from promptmill.dimensions import DIMENSIONS, Amounts, Dimension, Headroom
from promptmill.limits import Ceilings, LimitSource, LocalLimiter, Pool, PoolState
from promptmill.simulator.limits import Ceilings as ServerLimits
from promptmill.simulator.limits import Pool as Server

POOL = Pool("account", "group")
LIMITS = Amounts(1000, 450_000, 90_000)
LATENCY = 2.0
USED = Amounts(1, 300, 100)
ONLY_REQUESTS = (Dimension.REQUESTS,)


@dataclass
class FirstRun:
    """Some calls at once, each estimated at 1,024 tokens of output, against a server of 1,000 RPM."""

    clock: Clock = field(default_factory=LoopClock)
    calls: int = 5
    ceilings: Ceilings = field(default_factory=Ceilings)
    stated: tuple[Dimension, ...] = DIMENSIONS
    ended: float = 0.0
    refusals: int = 0
    state: PoolState | None = None

    async def run(self) -> "FirstRun":
        server = Server(
            ServerLimits(per_minute=LIMITS, burst_s=Amounts(60, 60, 60), hidden_request_burst_s=1.0), 0.0, []
        )
        begun = self.clock.monotonic()
        async with LocalLimiter(ceilings=lambda _: self.ceilings, clock=self.clock) as limiter:
            await asyncio.gather(*(self._call(limiter, server, begun) for _ in range(self.calls)))
            self.state = await limiter.peek(POOL)
        self.ended = self.clock.monotonic() - begun
        return self

    async def _call(self, limiter: LocalLimiter, server: Server, begun: float) -> None:
        async with limiter.permit(POOL, Amounts(1, 300, 1024), patience=600) as call:
            now = self.clock.monotonic() - begun
            self.refusals += server.admit(now, 300, 100) is not None
            headroom = self._headroom(server.levels(now))
            await self.clock.sleep(LATENCY)
            call.used(USED, headroom)

    def _headroom(self, levels: Any) -> Headroom:
        said: list[float | None] = []
        for dimension, level in zip(DIMENSIONS, levels, strict=True):
            rounded = level if dimension is Dimension.REQUESTS else round(level, -3)
            said += [LIMITS[dimension], rounded] if dimension in self.stated else [None, None]
        return Headroom(*said)


def test_five_prompts_on_an_unknown_account_need_little_more_than_two_answers() -> None:
    run = run_virtually(FirstRun().run())
    assert run.ended <= 5.0  # two calls one after the other: nothing is known before the first answer
    assert run.refusals == 0


def test_a_small_configured_limit_needs_no_gentle_start() -> None:
    run = run_virtually(FirstRun(ceilings=Ceilings(requests=50)).run())
    assert run.ended <= 4 * (60 / 50 + 0.1) + LATENCY + 1.0
    assert run.refusals == 0


def test_a_larger_configured_limit_starts_gently_and_not_below_the_defaults() -> None:
    run = run_virtually(FirstRun(ceilings=Ceilings(requests=1000)).run())
    assert run.ended <= 5.0
    assert run.refusals == 0


def test_what_the_headers_never_state_stops_holding_the_run_up() -> None:
    run = run_virtually(FirstRun(calls=60, stated=ONLY_REQUESTS).run())
    assert run.state is not None
    assert [each.source for each in run.state.dimensions] == [
        LimitSource.LEARNED,
        LimitSource.NONE,
        LimitSource.NONE,
    ]
    assert run.ended <= 35  # 8,000 tokens of output a minute would take six times as long
    assert run.refusals == 0
