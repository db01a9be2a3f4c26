"""The rows of the table as values: what is asked, how the server behaves, what goes wrong, and the bar.

The ids are those of the table of bars in docs/limits.md. Loads and limits are like a small account's: 600
requests, 450,000 input and 90,000 output tokens per minute, so a row needs less than 15 calls a second.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from realtime.loads import Load

from promptmill.dimensions import Amounts

SMALL = Amounts(600, 450_000, 90_000)
START = Amounts(1_000, 2_000_000, 400_000)

REQUESTS = Load(input_tokens=200, output_tokens=40)
INPUT = Load(input_tokens=1_800, output_tokens=200)
OUTPUT = Load(input_tokens=500, output_tokens=450)
BALANCED = Load(input_tokens=1_500, output_tokens=300)

HALF_WAY = 0.4
"""When something happens, as a share of the time by rate alone: with a saved-up bucket a run ends well before."""

RAMP_S = 24.0
"""How long a gentle start takes, with the first answer before it."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What a row must reach.

    Attributes:
        utilisation: of the binding limit in steady state.
        refused: at most so many 429.
        ratio: makespan over time by rate alone and mean latency; for runs of ten minutes.
        late_s: the last admission after the time by rate alone; for shorter runs.
        stretch: what may be added to that, as a share of the time by rate alone.
        jain: of two batches' calls while both wait, from 5 s after the second came.
        newcomer: the second batch's time over what its share of the limit allows, after 5 s of grace.
    """

    utilisation: float = 0.99
    refused: int = 0
    ratio: float = 1.0
    late_s: float = 15.0
    stretch: float = 0.0
    jain: float = 0.0
    newcomer: float = float("inf")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run. Moments are shares of `seconds`, the time by rate alone.

    Attributes:
        name: its id in the table.
        what: in words.
        loads: the batches.
        limits: of the server, per minute.
        burst_s: what its buckets hold, in seconds of their limits.
        hidden_s: the same for the request bucket that no header shows; None = there is none.
        configured: our ceilings as a multiple of the server's limits; None = learned.
        workers: processes.
        slots: calls in flight per process.
        tokens_per_s: mean speed of an answer.
        token_factor: so many times our formula is what the server counts.
        tenant: the share of the limits that somebody else takes from half-way on.
        change: the limits are multiplied by this half-way.
        refuse_once: the server refuses one call half-way, with a retry-after of so many seconds.
        storm: every so many of the calls gets a 529 for 30 s from half-way on.
        overloaded: the same for the whole run.
        killed: the share of the workers that is killed half-way.
        redis_away_s: Redis is killed half-way and comes back empty after so long.
        clocks: by how many seconds the clock of each worker is off.
        postgres: the store is a Postgres; SQLite otherwise.
        scripts: count what reaches Redis.
        calm_s: seconds after half-way that are left out of the steady state of a short run.
        least_s: a shorter run says nothing: answers are few, their lengths random, and nothing is saved up.
        bar: what it must reach.
    """

    name: str
    what: str
    loads: Sequence[Load]
    limits: Amounts = SMALL
    burst_s: float = 60.0
    hidden_s: float | None = 1.0
    configured: float | None = None
    workers: int = 4
    slots: int = 100
    tokens_per_s: float = 70.0
    token_factor: float = 1.0
    tenant: float = 0.0
    change: float = 1.0
    refuse_once: int = 0
    storm: float = 0.0
    overloaded: float = 0.0
    killed: float = 0.0
    redis_away_s: float = 0.0
    clocks: Sequence[float] = ()
    postgres: bool = False
    scripts: bool = False
    calm_s: float = 0.0
    least_s: float = 0.0
    bar: Bar = Bar()

    def per_minute(self, later: bool) -> Amounts:
        """What is there for us before half-way, or later."""
        share = self.change * (1 - self.tenant) if later else 1.0
        ceiling = float("inf") if self.configured is None else self.configured
        return Amounts(*(limit * min(share, ceiling) for limit in self.limits))


def all_rows() -> list[Row]:
    """Every row that runs in real time, in the order of the table."""
    return [
        *_sunny(),
        *_small_buckets(),
        *_wrong_knowledge(),
        *_failures(),
        *_other_accounts(),
        *_two_batches(),
        *_cost(),
    ]


def _sunny() -> list[Row]:
    kinds = {"1": ("R-bound", REQUESTS), "2": ("I-bound", INPUT), "3": ("O-bound", OUTPUT)}
    kinds["4"] = ("balanced", BALANCED)
    bars = {"1": Bar(utilisation=0.995, ratio=1.03)}
    learned = [
        Row(name=f"{name}-{workers}w", what=what, loads=[load], workers=workers, bar=bars.get(name, Bar()))
        for name, (what, load) in kinds.items()
        for workers in (1, 4, 8)
    ]
    bar = Bar(utilisation=0.985, ratio=1.05)
    configured = [
        Row(
            name=f"4b-{what[0]}",
            what=f"{what}, limits configured",
            loads=[load],
            configured=1.0,
            least_s=200.0 if load is OUTPUT else 0.0,
            bar=bar,
        )
        for what, load in kinds.values()
    ]
    return learned + configured


def _small_buckets() -> list[Row]:
    def balanced(name: str, burst: float, bar: Bar) -> Row:
        return Row(
            name=name,
            what=f"balanced, buckets {burst:g} s",
            loads=[BALANCED],
            burst_s=burst,
            hidden_s=None,
            bar=bar,
        )

    requests = Row(
        name="5",
        what="R-bound, all buckets 1 s",
        loads=[REQUESTS],
        burst_s=1.0,
        hidden_s=None,
        bar=Bar(utilisation=0.995, ratio=1.03),
    )
    return [
        requests,
        balanced("6", 5.0, Bar(utilisation=0.96, ratio=1.08, stretch=0.04)),
        balanced("6b", 10.0, Bar(ratio=1.05)),
        balanced("7", 1.0, Bar(utilisation=0.75, refused=5, ratio=1.40, stretch=0.33)),
    ]


def _wrong_knowledge() -> list[Row]:
    # Our formula and our first guess of 400 tokens an answer are 0.3 times or 3 times what is counted. Limits
    # and speed are in the same proportion, so that a call lasts, and weighs, what it does in a balanced row.
    balanced = [BALANCED]
    more, fewer = 1_333 / 300, 133 / 300
    long = [Load(input_tokens=1_500 * more, output_tokens=1_333)]
    short = [Load(input_tokens=1_500 * fewer, output_tokens=133)]
    large = Amounts(600, 450_000 * more, 90_000 * more)
    little = Amounts(600, 450_000 * fewer, 90_000 * fewer)
    return [
        Row(
            name="8",
            what="estimates x0.3",
            loads=long,
            limits=large,
            tokens_per_s=70 * more,
            token_factor=10 / 3,
        ),
        Row(
            name="9",
            what="estimates x0.3, buckets 5 s",
            loads=long,
            limits=large,
            tokens_per_s=70 * more,
            token_factor=10 / 3,
            burst_s=5.0,
            hidden_s=None,
            bar=Bar(utilisation=0.96, ratio=1.08, stretch=0.04),
        ),
        Row(
            name="10",
            what="estimates x3",
            loads=short,
            limits=little,
            tokens_per_s=70 * fewer,
            token_factor=1 / 3,
            bar=Bar(ratio=1.02),
        ),
        Row(name="11", what="a tenant takes 30 % from half-way", loads=balanced, tenant=0.3),
        Row(
            name="12",
            what="the same, buckets 5 s",
            loads=balanced,
            tenant=0.3,
            burst_s=5.0,
            hidden_s=None,
            bar=Bar(utilisation=0.96, refused=6, ratio=1.08, stretch=0.04),
        ),
        Row(name="13", what="limits lowered to 0.7x half-way", loads=balanced, change=0.7),
        Row(name="14", what="limits raised to 1.4x half-way", loads=balanced, change=1.4),
        Row(name="13c", what="real limits 0.7x of configured", loads=balanced, configured=1 / 0.7),
        Row(
            name="14c",
            what="real limits 1.4x of configured",
            loads=balanced,
            configured=1 / 1.4,
            bar=Bar(utilisation=0.985, ratio=1.05),
        ),
    ]


def _failures() -> list[Row]:
    balanced = [BALANCED]
    return [
        Row(name="15", what="half of the workers killed half-way", loads=balanced, killed=0.5),
        Row(
            name="16",
            what="Redis killed, empty after 3 s",
            loads=balanced,
            redis_away_s=3.0,
            calm_s=3.0 + RAMP_S,
            bar=Bar(utilisation=0.97, late_s=15.0 + 12.0),
        ),
        Row(name="18", what="two clocks off by 5 s", loads=balanced, clocks=(5.0, -5.0), postgres=True),
        Row(
            name="19",
            what="529: 0.2 %, and 30 s at 30 %",
            loads=balanced,
            overloaded=0.002,
            storm=0.3,
            calm_s=30.0 + 15.0,
            bar=Bar(utilisation=0.96, late_s=15.0 + 12.0),
        ),
        Row(
            name="429",
            what="one 429, retry-after 5",
            loads=balanced,
            refuse_once=5,
            calm_s=5.0 + RAMP_S,
            bar=Bar(refused=1, late_s=15.0 + 12.0),
        ),
    ]


def _other_accounts() -> list[Row]:
    return [
        Row(
            name="22",
            what="Start tier, O-bound, 110 in flight",
            loads=[OUTPUT],
            limits=START,
            bar=Bar(ratio=1.02),
        ),
        Row(
            name="24",
            what="unknown cached prefix",
            loads=[replace(BALANCED, prefix=True)],
            bar=Bar(utilisation=0.98),
        ),
    ]


def _two_batches() -> list[Row]:
    large = replace(INPUT, weight=25)
    small = replace(INPUT, weight=3, begins=0.2, tag="second")
    heavy_input, heavy_output = (
        Load(input_tokens=3_000, output_tokens=150, weight=4, tag="reading"),
        Load(input_tokens=300, output_tokens=600, weight=3, tag="writing"),
    )
    return [
        Row(
            name="26", what="large, then small batch", loads=[large, small], bar=Bar(jain=0.99, newcomer=1.1)
        ),
        Row(
            name="26p",
            what="the same, small one of high priority",
            loads=[large, replace(small, priority="high")],
            bar=Bar(newcomer=1.1),
        ),
        Row(
            name="27",
            what="two bottlenecks mixed",
            loads=[heavy_input, heavy_output],
            bar=Bar(utilisation=0.97, ratio=1.02, stretch=0.02),
        ),
        Row(
            name="27b",
            what="15 small for 2 large",
            loads=[
                Load(input_tokens=100, output_tokens=40, weight=7.5, tag="small"),
                Load(input_tokens=6_000, output_tokens=100, weight=1, tag="large"),
            ],
            bar=Bar(ratio=1.06, stretch=0.06),
        ),
    ]


def _cost() -> list[Row]:
    return [
        Row(name="P3", what="scripts per job, 800 idle slots", loads=[REQUESTS], workers=8, scripts=True),
        Row(name="P6", what="64 slots, R-bound", loads=[REQUESTS], workers=4, slots=16),
    ]
