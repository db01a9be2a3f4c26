"""The buckets: what is admitted, what is refused, and how output is debited while it is produced."""

from hypothesis import given, settings
from hypothesis import strategies as st

from promptmill.clock import ManualClock
from promptmill.dimensions import Amounts, Dimension
from promptmill.simulator.headers import rate_limit_headers
from promptmill.simulator.limits import Ceilings, Pool, Tenant

SIXTY = Amounts(60, 60, 60)


def pool(
    rpm: float = 0,
    itpm: float = 0,
    otpm: float = 0,
    *,
    burst: Amounts = SIXTY,
    hidden: float | None = None,
    acceleration: bool = False,
    tenants: tuple[Tenant, ...] = (),
) -> Pool:
    ceilings = Ceilings(
        per_minute=Amounts(rpm, itpm, otpm),
        burst_s=burst,
        hidden_request_burst_s=hidden,
        acceleration=acceleration,
    )
    return Pool(ceilings, 0.0, tenants)


def test_a_full_bucket_admits_its_capacity_and_then_what_it_refills() -> None:
    limits, clock = pool(rpm=60), ManualClock()
    assert [limits.admit(clock.monotonic(), 1) for _ in range(60)] == [None] * 60
    assert limits.admit(clock.monotonic(), 1) is not None
    clock.advance(1)
    assert limits.admit(clock.monotonic(), 1) is None
    assert limits.admit(clock.monotonic(), 1) is not None


def test_a_limit_of_zero_is_no_limit() -> None:
    limits = pool()
    assert all(limits.admit(0.0, 1_000_000) is None for _ in range(1_000))
    assert rate_limit_headers(limits, 0.0) == {}


def test_a_refused_call_debits_nothing() -> None:
    limits = pool(rpm=60, itpm=100)
    assert limits.admit(0.0, 90) is None
    before = limits.levels(0.0)
    refusal = limits.admit(0.0, 20)
    assert refusal is not None
    assert refusal.dimension is Dimension.INPUT_TOKENS
    assert limits.levels(0.0) == before


def test_a_prompt_larger_than_the_bucket_is_admitted_when_it_is_full_and_takes_it_below_zero() -> None:
    limits = pool(itpm=100)
    assert limits.admit(0.0, 250) is None
    assert limits.levels(0.0)[1] == -150
    assert limits.admit(0.0, 1) is not None


def test_a_call_is_admitted_after_its_retry_after() -> None:
    limits = pool(itpm=6_000)
    limits.admit(0.0, 6_000)
    refusal = limits.admit(0.0, 250)
    assert refusal is not None
    assert refusal.retry_after == 3
    assert limits.admit(2.4, 250) is not None
    assert limits.admit(float(refusal.retry_after), 250) is None


def test_the_hidden_bucket_admits_one_second_of_requests() -> None:
    limits = pool(rpm=600, hidden=1)
    assert sum(limits.admit(0.0, 1) is None for _ in range(100)) == 10


def test_output_is_debited_while_it_is_produced() -> None:
    limits = pool(otpm=60_000, burst=Amounts(60, 60, 2))
    limits.produce(begins=1.0, seconds=4.0, tokens=8_000)
    assert limits.levels(1.0)[2] == 2_000
    assert limits.levels(2.0)[2] == 1_000
    assert limits.levels(5.0)[2] == -2_000
    assert limits.levels(7.0)[2] == 0


def test_calls_are_refused_while_the_output_level_is_not_above_zero() -> None:
    limits = pool(otpm=60_000, burst=Amounts(60, 60, 2))
    limits.produce(begins=0.0, seconds=1.0, tokens=5_000)
    assert limits.admit(0.4, 1) is None
    refusal = limits.admit(1.0, 1)
    assert refusal is not None
    assert refusal.dimension is Dimension.OUTPUT_TOKENS
    assert limits.admit(3.1, 1) is None


def test_another_tenant_takes_a_share_for_a_while() -> None:
    limits = pool(itpm=6_000, tenants=(Tenant(0.3, begins=10, ends=20),))
    limits.admit(0.0, 6_000)
    assert limits.levels(10.0)[1] == 1_000
    assert round(limits.levels(20.0)[1] or 0) == 1_700
    assert round(limits.levels(30.0)[1] or 0) == 2_700


def test_a_sharp_rise_is_refused_though_the_bucket_is_full() -> None:
    limits = pool(rpm=600, acceleration=True)
    first = sum(limits.admit(0.0, 1) is None for _ in range(200))
    second = sum(limits.admit(10.0, 1) is None for _ in range(200))
    assert (first, second) == (40, 80)
    refusal = limits.admit(12.0, 1)
    assert refusal is not None
    assert refusal.dimension is None
    assert refusal.retry_after == 8


def test_new_limits_keep_the_level_as_far_as_they_hold_it() -> None:
    limits = pool(itpm=6_000)
    limits.admit(0.0, 4_000)
    limits.change(pool(itpm=600).ceilings, 0.0)
    assert limits.levels(0.0)[1] == 600
    limits.change(pool(itpm=60_000).ceilings, 0.0)
    assert limits.levels(0.0)[1] == 600
    assert limits.levels(1.0)[1] == 1_600


def test_a_limit_that_comes_and_goes_forgets_no_running_answer() -> None:
    limits = pool(otpm=60_000)
    limits.produce(begins=0.0, seconds=10.0, tokens=20_000)
    limits.change(pool().ceilings, 2.0)
    limits.change(pool(otpm=60_000).ceilings, 4.0)
    assert limits.levels(10.0)[2] == 60_000 - 6_000
    assert limits.levels(11.0)[2] == 60_000 - 5_000


def test_token_levels_are_rounded_to_thousands_in_the_headers() -> None:
    limits = pool(rpm=50, itpm=30_000, otpm=8_000)
    limits.admit(0.0, 1_234)
    limits.produce(0.0, 0.0, 400)
    limits.advance(0.0)
    headers = rate_limit_headers(limits, 1_000_000_000.0)
    assert headers["anthropic-ratelimit-requests-limit"] == "50"
    assert headers["anthropic-ratelimit-requests-remaining"] == "49"
    assert headers["anthropic-ratelimit-input-tokens-remaining"] == "29000"
    assert headers["anthropic-ratelimit-input-tokens-reset"] == "2001-09-09T01:46:43Z"
    assert headers["anthropic-ratelimit-output-tokens-remaining"] == "8000"
    assert headers["anthropic-ratelimit-tokens-limit"] == "38000"


arrivals = st.lists(st.tuples(st.floats(0, 5), st.integers(1, 3_000)), min_size=1, max_size=60)


@given(arrivals, st.integers(60, 6_000), st.floats(0.5, 60))
@settings(max_examples=100, deadline=None)
def test_no_span_admits_more_than_capacity_plus_refill(
    calls: list[tuple[float, int]], itpm: int, burst_s: float
) -> None:
    limits = pool(rpm=120, itpm=itpm, burst=Amounts(burst_s, burst_s, burst_s))
    now, admitted = 0.0, []
    for pause, tokens in calls:
        now += pause
        if limits.admit(now, tokens) is None:
            admitted.append((now, tokens))
    capacity = itpm / 60 * burst_s
    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            inside = admitted[first : last + 1]
            span = inside[-1][0] - inside[0][0]
            largest = max(tokens for _, tokens in inside)
            # A level may go below zero by one call that was larger than the bucket.
            assert sum(tokens for _, tokens in inside) <= max(capacity, largest) + itpm / 60 * span + 1e-3
            assert len(inside) <= max(1.0, 2 * burst_s) + 2 * span + 1e-3


answers = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 80), st.integers(1, 4_000)), min_size=1, max_size=12
)


@given(answers, st.lists(st.integers(0, 150), max_size=10))
@settings(max_examples=60, deadline=None)
def test_the_output_level_is_what_small_steps_of_time_would_give(
    plans: list[tuple[int, int, int]], looks: list[int]
) -> None:
    """Times are tenths of a second, so that steps of a tenth are exact between changes of slope."""
    limits = pool(otpm=60_000)
    for begin, length, tokens in plans:
        limits.produce(begin / 10, length / 10, tokens)
    level, seen = 60_000.0, {}
    for step in range(151):
        level -= sum(tokens for begin, length, tokens in plans if begin == step and length == 0)
        seen[step] = level
        drain = sum(tokens / length for begin, length, tokens in plans if begin <= step < begin + length)
        level = min(60_000.0, level + 100 - drain)
    for look in sorted(looks):
        assert abs((limits.levels(look / 10 + 1e-9)[2] or 0) - seen[look]) < 0.1
