"""The server of a rehearsal: the simulator's buckets, and what a real one may add to them.

That is a hidden bucket for input, a cached prefix, and overloads. All of it stands between the network and
the buckets; a refusal debits nothing.
"""

import random
from dataclasses import dataclass

from bench.rehearsal.scene import Job, Scene
from promptmill.dimensions import DIMENSIONS, Amounts, Dimension, Headroom
from promptmill.simulator.limits import Bucket, Ceilings, Pool, Refusal

CACHED_FOR_S = 300.0
CACHED_AFTER_S = 1.5
ROUNDING = 1000


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a call that arrived: admitted with its counted input, or refused, or overloaded."""

    headroom: Headroom
    counted: int = 0
    refusal: Refusal | None = None
    overloaded: bool = False


class Server:
    """Admits, refuses, and answers in virtual time."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._chance = random.Random(scene.seed + 7)
        self._pool = Pool(self._ceilings(scene.enforced), 0.0, [scene.tenant] if scene.tenant else [])
        self._hidden: Bucket | None = None
        if scene.hidden_input is not None:
            self._hidden = Bucket(scene.enforced.input_tokens, scene.hidden_input, 0.0)
        for bucket in (self._pool.requests, self._pool.input, self._pool.output):
            if bucket is not None:
                bucket.level *= scene.level
        self._cached_from = float("inf")
        self._prefix_used = float("-inf")

    def _ceilings(self, per_minute: Amounts) -> Ceilings:
        burst = self._scene.burst
        return Ceilings(
            per_minute=per_minute,
            burst_s=Amounts(burst, burst, burst),
            hidden_request_burst_s=self._scene.hidden_requests,
            acceleration=self._scene.acceleration,
        )

    def change(self, per_minute: Amounts, now: float) -> None:
        """Put other limits in force."""
        self._pool.change(self._ceilings(per_minute), now)

    def arrive(self, job: Job, now: float) -> Reply:
        """Admit a call, or say why not."""
        if self._chance.random() < self._overload(now):
            return Reply(self._headroom(now), overloaded=True)
        counted = job.input_tokens + self._uncached(now)
        refusal = self._refused_secretly(counted, now) or self._pool.admit(now, counted, job.output_tokens)
        if refusal is not None:
            return Reply(self._headroom(now), refusal=refusal)
        if self._hidden is not None:
            self._hidden.level -= counted
        if now - self._prefix_used >= CACHED_FOR_S:
            self._cached_from = now + CACHED_AFTER_S
        self._prefix_used = now
        return Reply(self._headroom(now), counted)

    def produce(self, begins: float, seconds: float, tokens: int) -> None:
        """Debit an answer while it is produced."""
        self._pool.produce(begins, seconds, tokens)

    def _overload(self, now: float) -> float:
        storm = self._scene.storm
        return storm[2] if storm and storm[0] <= now < storm[1] else self._scene.overloaded

    def _uncached(self, now: float) -> int:
        cached = now >= self._cached_from and now - self._prefix_used < CACHED_FOR_S
        return 0 if cached else self._scene.prefix

    def _refused_secretly(self, counted: int, now: float) -> Refusal | None:
        if self._hidden is None:
            return None
        self._hidden.advance(now)
        wait = self._hidden.wait_for(counted)
        return Refusal(Dimension.INPUT_TOKENS, wait) if wait else None

    def _headroom(self, now: float) -> Headroom:
        """What the headers say: whole requests, tokens to the nearest thousand."""
        figures: list[float] = []
        limits = self._pool.ceilings.per_minute
        for dimension, level in zip(DIMENSIONS, self._pool.levels(now), strict=True):
            left = max(0.0, level or 0.0)
            whole = left // 1 if dimension is Dimension.REQUESTS else round(left / ROUNDING) * ROUNDING
            figures += [limits[dimension], whole]
        return Headroom(*figures)
