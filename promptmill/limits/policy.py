"""The words of the limiter: whose limits, how high, how fast to go, and what is granted.

A limit the user configured is a ceiling: the pace follows min(configured, learned), and over any span of
`w` seconds what was granted minus what was settled back stays at most `burst + limit * w` and one call, with
`burst` as `PoolState` states it: what may be caught up, and what is granted a second ahead. Limits are per minute here and per second inside the pool's record.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote, unquote

from promptmill.dimensions import DIMENSIONS, Amounts, Dimension
from promptmill.errors import RequestTooLarge

MINUTE = 60.0

LATELY = 3600.0
"""s after its last use for which a pool is listed."""

DEFAULT_LIMITS = Amounts(requests=50, input_tokens=30_000, output_tokens=8_000)
"""Per minute, while nothing is configured and no header was seen: the smallest tier ever published
(claude-api.md, 5.2), so that the first calls of an unknown account cannot be too many."""


@dataclass(frozen=True, slots=True)
class Pool:
    """What shares one set of limits: an account (organisation or workspace) and a model group."""

    account: str
    group: str

    @property
    def tag(self) -> str:
        """The pool in one word; quoted, so that no name can break a Redis hash tag."""
        return f"{quote(self.account, safe='')}:{quote(self.group, safe='')}"

    @classmethod
    def of_tag(cls, tag: str) -> "Pool":
        """The pool that has this tag."""
        account, _, group = tag.partition(":")
        return cls(unquote(account), unquote(group))


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Limits per minute as configured: a number is a ceiling, None is learned from headers, 0 is no limit."""

    requests: float | None = None
    input_tokens: float | None = None
    output_tokens: float | None = None

    def __post_init__(self) -> None:
        for dimension, ceiling in zip(DIMENSIONS, self, strict=True):
            if ceiling is not None and not 0 <= ceiling < float("inf"):
                raise ValueError(f"a ceiling is a number from 0 up, not {ceiling} ({dimension.value})")

    def __iter__(self) -> Iterator[float | None]:
        return iter((self.requests, self.input_tokens, self.output_tokens))


CeilingsOf = Callable[[Pool], Ceilings]


def learn_everything(_pool: Pool) -> Ceilings:
    """No ceiling in any dimension: everything comes from the headers."""
    return Ceilings()


def check_size(amounts: Amounts, ceilings: Ceilings) -> None:
    """Refuse what no waiting would make possible.

    Output is never refused: it is a guess about an answer, and counted while that is produced.

    Raises:
        RequestTooLarge: an amount is more than a configured bucket holds, which is one minute's worth.
    """
    for dimension, ceiling in zip(DIMENSIONS, ceilings, strict=True):
        if dimension is not Dimension.OUTPUT_TOKENS and ceiling and amounts[dimension] > ceiling:
            raise too_large(dimension, amounts[dimension], ceiling)


def too_large(dimension: Dimension, amount: float, limit: float) -> RequestTooLarge:
    """The error for an amount above `limit` per minute, in words for a person."""
    name = dimension.value.replace("_", " ")
    return RequestTooLarge(
        f"one call needs {amount:,.0f} {name}, the limit is {limit:,.0f} per minute",
        dimension=dimension,
    )


@dataclass(frozen=True, slots=True)
class Permit:
    """The right to make one call now. Opaque to its holder, who settles or releases it.

    Attributes:
        id: unique among all processes.
        amounts: what was reserved.
        granted_at: when the call might begin, on the limiter's monotonic clock.
        generation: grows with every refusal (429) of the pool, and is another when its record was lost; tells a
            first refusal from its echoes.
    """

    id: str
    pool: Pool
    amounts: Amounts
    granted_at: float
    generation: int


@dataclass(frozen=True, slots=True)
class Pacing:
    """Every number of the algorithm, with the values measured in simulation (limiter.md, 6.2).

    Triples are per dimension: requests, input tokens, output tokens. Seconds of a limit ("s worth") are
    tokens or requests divided by the limit per second. Nothing here needs to be equal in all processes.
    """

    horizon: float = 1.0
    """s: a permit starts at most this far ahead, so that what is learned acts on the next second."""
    guard: tuple[float, float, float] = (0.06, 0.25, 0.50)
    """s worth kept as the floor of the mirror."""
    tolerance: tuple[float, float, float] = (0.0, 10.0, 10.0)
    """s of unused pace that may be caught up: most of the burst of the ceiling promise."""
    refill_floor: float = 0.05
    """share of the limit that is ours whatever another program takes."""
    input_sigmas: float = 3.0
    """standard errors of its own input estimate that a call must find in the bucket."""
    unsettled_sigmas: float = 2.0
    """standard errors of what is in flight that a call must find in the bucket."""
    input_reserve_share: float = 0.2
    output_reserve_share: float = 0.4
    lag_share: float = 0.5
    """upper bounds of those reserves, and of what cannot be banked while output lags, as shares of capacity."""

    set_point_share: float = 0.10
    set_point_seconds: float = 1.5
    set_point_max_share: float = 0.4
    """the level to steer to: max(share x capacity, min(seconds x limit, max share x capacity))."""
    set_point_shared: float = 3.0
    set_point_shared_max_share: float = 0.8
    """times the seconds, and the max share, where another program draws on one of the limits, and so on all: headers
    come with the end of an answer, and what it takes until then must be in the bucket (a 5-s bucket, 30 % taken: 7
    refusals in ten minutes become 1)."""
    surplus_time: float = 15.0
    deficit_time: float = 20.0
    """s in which the level is steered down or up to the set point."""
    slowest: float = 0.5
    """share of the pace that steering may take away at most."""
    overdrive: tuple[float, float, float] = (0.0, 0.25, 0.25)
    """how much faster than the refill a saved-up bucket is used; learned limits only, none after a 429."""

    ramp_start: float = 0.2
    ramp_doubling: float = 10.0
    """a start goes at this share of the limit and doubles in this many s (11.7 s of the limit in all)."""
    first_calls: float = 4.0
    """average calls for which tokens need not be waited for once the first headers have said the limits."""
    ramp_after_refusal: float = 0.5
    ramp_floor: float = 0.1
    """a 429 brings the pace down to this share of what it was, not below the floor."""
    idle_restart: float = 120.0
    """s without a grant after which the next start is gentle again."""

    first_capacity: float = 0.5
    default_capacity: float = 60.0
    headerless_capacity: float = 5.0
    headerless_answers: int = 10
    """s worth of bucket believed in before any header; the same of the default limits, which are small; and
    after this many answers without a header."""
    observer_down: float = 1.0
    observer_up: float = 20.0
    """s in which the mirror follows a header that shows less, or more."""
    foreign_time: float = 12.0
    foreign_leak: float = 120.0
    foreign_leak_up: float = 20.0
    foreign_most: float = 0.95
    foreign_noticed: float = 0.02
    foreign_bump: float = 0.03
    """how fast another program's use is believed in, forgotten, and forgotten when headers show plenty;
    its largest share of the limit, the share from which it is taken as real, the step after a token 429."""
    dead_band: tuple[float, float, float] = (0.3, 0.3, 0.5)
    dead_band_foreign: float = 0.2
    """s worth of disagreement with a header that means nothing; times the second when others draw too."""
    token_rounding: float = 500.0
    """half of the 1,000 to which `remaining` is rounded."""
    full_after: int = 3
    """headers below the mirror's level after which the capacity is taken as known."""

    prior_weight: float = 5.0
    prior_error: float = 0.2
    memory: float = 50.0
    first_answers: int = 4
    """estimates begin with this many imagined answers of this relative error, and look back this far; the
    first real answers only set the mean that errors are measured from."""
    little_after: int = 20
    little_slack: float = 1.05
    latency_memory: float = 100.0
    """answers before in-flight output is bounded by Little's law, its slack, and how far back it looks."""

    request_jitter: float = 0.10
    request_jitter_growth: float = 1.5
    request_jitter_most: float = 0.35
    """s of arrival jitter held between requests where the server's bucket holds about one (< 66 RPM)."""
    easing: float = 0.85
    easing_floor: float = 0.5
    easing_interval: float = 2.0
    easing_recovery: float = 0.05
    """a 529 eases the pace by this factor, at most once per interval; it recovers by so much per s."""
    outage_patience: float = 5.0
    """s, and a mean answer, of 529s without an answer to any call that began since: then nothing is thought to succeed.
    The first word of a streamed answer counts, so where calls are answered at all, one is heard of in time."""
    probe_interval: float = 3.0
    """s between two calls of the whole pool while nothing succeeds."""
    outage_pause_most: float = 60.0
    """s for which a `retry-after` of a 529 pauses the pool at most, while nothing succeeds."""

    batch_interval: float = 0.25
    gap: float = 0.1
    round: float = 0.5
    turn_share: float = 0.8
    ticket_longest: float = 2.0
    line_grace: float = 0.25
    """s between two asks of one process, and between two processes at least (the horizon bears both); less where
    so many wait that a round of all would take longer than the third figure, else a dispatcher's window of 2 s is
    empty before all had a turn (5,000 RPM, 32 processes: 3 % of the limit); turns per call that the limits allow;
    the longest ticket while not paused; how late a process may come before its turn is lost."""
    saving_longest: float = 120.0
    """s for which the pool saves up for a call that found the bucket too low for its patience."""

    confirm_after: float = 0.3
    """s of waiting after which a permit is confirmed before it is used."""
    headroom_interval: float = 0.25
    """s between two header reports of one process."""
    clock_back: float = 5.0
    """s by which Redis's clock may go back (NTP, a fail-over) and the pool waits for it; after more it begins anew,
    as one whose record was lost."""
    heartbeat_timeout: float = 20.0
    """s after its last heartbeat at which a process's permits are given up."""
