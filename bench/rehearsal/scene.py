"""The conditions of a rehearsal: an account, a load, and what goes wrong. Values only.

The figures are those of the simulation behind the bars (`bars.py`), so that both can be compared: three
published tiers, four loads of lognormal sizes, an estimate of the input that is off by 10 %, one of the output
that is the mean of the batch.
"""

import math
import random
from dataclasses import dataclass, field

from promptmill.dimensions import Amounts
from promptmill.limits import Ceilings
from promptmill.simulator.limits import Tenant

TIER_2 = Amounts(1000, 450_000, 90_000)
TIER_1 = Amounts(50, 30_000, 8_000)
START = Amounts(1000, 2_000_000, 400_000)
BUILD = Amounts(5000, 5_000_000, 1_000_000)

LONGEST_PROMPT, LONGEST_ANSWER = 60_000, 4096
INPUT_NOISE = 0.10


@dataclass(frozen=True, slots=True)
class Load:
    """Mean tokens and spread (sigma of the logarithm) of prompts and of answers."""

    sent: float
    sent_spread: float
    produced: float
    produced_spread: float

    def jobs_in(self, seconds: float, limits: Amounts) -> int:
        """How many such calls the limits allow in that time."""
        each = max(1 / limits.requests, self.sent / limits.input_tokens, self.produced / limits.output_tokens)
        return max(20, int(seconds / 60 / each))


LOADS = {
    "requests": Load(200, 0.6, 40, 0.5),
    "input": Load(1800, 0.9, 200, 0.6),
    "output": Load(500, 0.8, 450, 0.6),
    "balanced": Load(1500, 0.9, 300, 0.6),
    "short": Load(150, 0.3, 120, 0.3),
}


@dataclass(frozen=True, slots=True)
class Batch:
    """Jobs that are submitted together, `at` seconds after the beginning."""

    name: str
    load: str
    jobs: int
    at: float = 0.0


@dataclass(slots=True, eq=False)
class Job:
    """One call: what it takes, and what is thought beforehand that it takes.

    Attributes:
        input_tokens: without the prefix that all prompts share.
        guess: the raw estimate, of the whole prompt; nothing learned.
    """

    batch: str
    input_tokens: int
    output_tokens: int
    guess: Amounts
    tries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One rehearsal. Moments are seconds after its beginning.

    Attributes:
        load, seconds: one batch that takes this long at the limits; or else `batches`.
        limits: of the account, per minute; the server enforces `real` times as much.
        taught: the limiter was told `limits` beforehand.
        ceilings: what is configured; nothing by default.
        burst: seconds that each bucket holds.
        hidden_requests, hidden_input: seconds that a second bucket holds which no header shows; None = none.
        level: share of the buckets that is filled at the start.
        acceleration: the server refuses a sharp rise.
        overloaded: share of the calls that gets a 529; a storm is (from, to, share).
        change: other limits come into force at a moment.
        prefix: tokens that all prompts begin with, cached by the server, unknown to the estimate.
        guess: the factor by which estimates are wrong.
        dying: at a moment this many processes die.
        outage: from a moment on Redis is away for some seconds, and comes back empty.
        skew: seconds by which the clock of one process is wrong.
        dispatched: the dispatcher keeps a small window of jobs at the slots, as in the product; or else every
            slot holds a job and waits at the limiter.
    """

    load: str = "balanced"
    seconds: float = 600.0
    batches: tuple[Batch, ...] = ()
    limits: Amounts = TIER_2
    real: float = 1.0
    taught: bool = False
    ceilings: Ceilings = field(default_factory=Ceilings)
    burst: float = 60.0
    hidden_requests: float | None = 1.0
    hidden_input: float | None = None
    level: float = 1.0
    acceleration: bool = False
    overloaded: float = 0.0
    storm: tuple[float, float, float] | None = None
    tenant: Tenant | None = None
    change: tuple[float, Amounts] | None = None
    prefix: int = 0
    guess: float = 1.0
    processes: int = 16
    slots: int = 8
    dying: tuple[float, int] | None = None
    outage: tuple[float, float] | None = None
    skew: float = 0.0
    dispatched: bool = True
    seed: int = 1

    @property
    def enforced(self) -> Amounts:
        """What the server really allows per minute."""
        return Amounts(*(limit * self.real for limit in self.limits))

    def submissions(self) -> tuple[Batch, ...]:
        """The batches of this scene; the one of `load` and `seconds` when none is named."""
        if self.batches:
            return self.batches
        return (Batch("only", self.load, LOADS[self.load].jobs_in(self.seconds, self.enforced)),)

    def jobs(self, batch: Batch, chance: random.Random) -> list[Job]:
        """The jobs of a batch."""
        longest = int(min(LONGEST_PROMPT, 0.8 * min(self.limits.input_tokens, self.enforced.input_tokens)))
        return [self._job(batch, longest, chance) for _ in range(batch.jobs)]

    def _job(self, batch: Batch, longest: int, chance: random.Random) -> Job:
        load = LOADS[batch.load]
        sent = int(_lognormal(load.sent, load.sent_spread, chance))
        produced = int(_lognormal(load.produced, load.produced_spread, chance))
        sent = min(longest, max(10, sent))
        noise = chance.lognormvariate(0, INPUT_NOISE)
        guess = Amounts(
            1, max(5.0, self.guess * (sent * noise + self.prefix)), max(1.0, self.guess * load.produced)
        )
        return Job(batch.name, sent, min(LONGEST_ANSWER, max(1, produced)), guess)


def _lognormal(mean: float, spread: float, chance: random.Random) -> float:
    return chance.lognormvariate(math.log(mean) - spread**2 / 2, spread)
