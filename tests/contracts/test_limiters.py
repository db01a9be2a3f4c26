"""Waiting for permits, the same for `LocalLimiter` and `RedisLimiter`, in real time."""

import asyncio
import time
from collections.abc import Callable

import pytest

from promptmill.dimensions import Amounts, Headroom
from promptmill.errors import LimitReached, RequestTooLarge
from promptmill.limits import Ceilings, Limiter, LocalLimiter, Pacing, Pool

POOL = Pool("account", "group")
CALL = Amounts(1, 100, 20)
MakeLimiter = Callable[..., Limiter]


async def in_flight(limiter: Limiter) -> int:
    return (await limiter.peek(POOL)).in_flight


async def test_a_permit_is_granted_at_once_where_there_is_room(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter()
    permit = await limiter.acquire(POOL, CALL, patience=1)
    assert permit.pool == POOL
    assert permit.amounts == CALL
    assert await in_flight(limiter) == 1


async def test_a_permit_is_handed_out_when_its_call_may_begin(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter(Ceilings(600, 0, 0))
    begun = time.monotonic()
    for _ in range(6):
        await limiter.acquire(POOL, CALL, patience=5)
    assert time.monotonic() - begun >= 0.49  # five intervals of a tenth


async def test_waiting_calls_are_served_in_order(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter()
    permits = await asyncio.gather(*(limiter.acquire(POOL, CALL, patience=10) for _ in range(150)))
    # Their ids count up as they are asked for. A busy machine wakes two that are late in any order, and
    # `granted_at` is as much later as Redis's answer was.
    asked = [int(permit.id.rpartition("-")[2], 16) for permit in permits]
    assert asked == sorted(set(asked))


async def test_a_permit_counts_at_least_one_request(make_limiter: MakeLimiter) -> None:
    permit = await make_limiter().acquire(POOL, Amounts(input_tokens=5), patience=1)
    assert permit.amounts.requests == 1


async def test_who_would_wait_too_long_is_told_for_what_and_how_long(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter(Ceilings(6, 0, 0))
    permit = await limiter.acquire(POOL, CALL, patience=1)
    begun = time.monotonic()
    with pytest.raises(LimitReached) as refusal:
        await limiter.acquire(POOL, CALL, patience=5)
    told = time.monotonic()
    assert told - begun < 2.5
    assert refusal.value.dimension == "requests"
    asked = permit.granted_at + 10 - refusal.value.retry_after
    assert begun - 1.5 < asked < told + 1.5
    assert await in_flight(limiter) == 1


async def test_patience_ends_in_the_middle_of_the_line(make_limiter: MakeLimiter) -> None:
    limiter, patience, every = make_limiter(Ceilings(600, 0, 0)), 3.0, 0.1
    await limiter.acquire(POOL, CALL, patience=30)
    over = time.monotonic() + patience
    calls = [asyncio.create_task(limiter.acquire(POOL, CALL, patience=patience)) for _ in range(60)]
    ended = await asyncio.gather(*calls, return_exceptions=True)
    refused = [each for each in ended if isinstance(each, LimitReached)]
    begins = [each.granted_at for each in ended if not isinstance(each, BaseException)]
    # From the first answer on, which a busy machine may get late.
    assert 2 / 3 <= len(begins) / ((over - min(begins)) / every) <= 1.8
    assert all(refusal.retry_after > 0 for refusal in refused)
    assert len(ended) - len(refused) == len(begins)
    assert await in_flight(limiter) == len(begins) + 1


async def test_more_than_a_bucket_holds_is_refused_by_name(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter(Ceilings(60, 1000, 0))
    with pytest.raises(RequestTooLarge, match=r"1,001 input tokens.*1,000 per minute") as refusal:
        await limiter.acquire(POOL, Amounts(1, 1001, 0), patience=1)
    assert refusal.value.dimension == "input_tokens"


async def test_more_than_a_learned_bucket_holds_is_refused_by_name(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter(Ceilings())
    permit = await limiter.acquire(POOL, CALL, patience=2)
    await limiter.settle(permit, CALL, Headroom(1000, 999, 50_000, 50_000, 90_000, 90_000))
    with pytest.raises(RequestTooLarge, match=r"50,000 per minute"):
        await limiter.acquire(POOL, Amounts(1, 60_000, 0), patience=2)
    await limiter.acquire(POOL, CALL, patience=5)


async def test_a_canceled_waiter_leaves_nothing_behind(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter(Ceilings(300, 0, 0))
    calls = [asyncio.create_task(limiter.acquire(POOL, CALL, patience=10)) for _ in range(30)]
    await calls[0]
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    kept = sum(not call.cancelled() for call in calls)
    await limiter.acquire(POOL, CALL, patience=5)
    assert await in_flight(limiter) == kept + 1


async def test_a_refusal_stops_every_process_until_the_wait_is_over(make_limiter: MakeLimiter) -> None:
    one, other = make_limiter(Ceilings(600, 0, 0)), make_limiter(Ceilings(600, 0, 0))
    permit = await one.acquire(POOL, CALL, patience=1)
    # More than a machine that stands still for seconds would let through before the refusal is told.
    waiting = [asyncio.create_task(other.acquire(POOL, CALL, patience=60)) for _ in range(100)]
    await waiting[0]
    refused_at = time.monotonic()
    await one.penalise(permit, status=429, retry_after=2.0)
    told_at = time.monotonic()
    begins = [refused_at]
    for call in asyncio.as_completed(waiting):
        begins.append((await call).granted_at)
        if begins[-1] >= refused_at + 2.0:
            break
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    # What was to start within the confirmation span may have been on its way already.
    assert not [begin for begin in begins if told_at + 0.4 < begin < refused_at + 2.0]
    assert max(begins) >= refused_at + 2.0


async def test_a_shorter_wait_does_not_shorten_a_longer_one(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter()
    first, second = [await limiter.acquire(POOL, CALL, patience=5) for _ in range(2)]
    await limiter.penalise(first, status=429, retry_after=3600)
    await limiter.penalise(second, status=429, retry_after=1)
    assert (await limiter.peek(POOL)).paused_for > 3000


async def test_who_cannot_wait_out_a_pause_is_told_at_once(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter()
    permit = await limiter.acquire(POOL, CALL, patience=1)
    await limiter.penalise(permit, status=429, retry_after=3600)
    begun = time.monotonic()
    ended = await asyncio.gather(
        *(limiter.acquire(POOL, CALL, patience=60) for _ in range(50)), return_exceptions=True
    )
    assert time.monotonic() - begun < 8
    assert all(isinstance(each, LimitReached) and each.retry_after > 3500 for each in ended)
    assert (await limiter.peek(POOL)).paused_for == pytest.approx(3600, abs=5)


async def test_a_refusal_that_does_not_say_how_long_pauses_for_a_second(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter()
    permit = await limiter.acquire(POOL, CALL, patience=1)
    refused_at = time.monotonic()
    await limiter.penalise(permit, status=429, retry_after=None)
    left = (await limiter.peek(POOL)).paused_for
    looked_at = time.monotonic()
    assert max(0.0, refused_at + 0.99 - looked_at) <= left <= 1.0
    assert (await limiter.acquire(POOL, CALL, patience=30)).granted_at >= refused_at + 0.99


async def test_headers_are_taken_in_at_most_four_times_a_second(make_limiter: MakeLimiter) -> None:
    assert Pacing().headroom_interval == 0.25
    # Longer here: between two lines a machine may stand still for as long.
    limiter = make_limiter(Ceilings(), Pacing(ramp_start=1.0, headroom_interval=60))
    first = await limiter.acquire(POOL, CALL, patience=3)
    second = await limiter.acquire(POOL, CALL, patience=3)
    await limiter.settle(first, CALL, Headroom(1000, 999, 450_000, 450_000, 90_000, 90_000))
    await limiter.settle(second, CALL, Headroom(2000, 1999, 450_000, 450_000, 90_000, 90_000))
    state = await limiter.peek(POOL)
    assert state.dimensions[0].limit == pytest.approx(1000)


async def test_what_is_known_at_the_beginning_of_an_answer_can_be_reported(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter(Ceilings())
    permit = await limiter.acquire(POOL, CALL, patience=3)
    await limiter.observe(permit, 50, Headroom(1000, 999, 450_000, 450_000, 90_000, 90_000))
    assert (await limiter.peek(POOL)).dimensions[0].limit == pytest.approx(1000)
    assert await in_flight(limiter) == 1
    await limiter.settle(permit, Amounts(1, 50, 10))
    assert await in_flight(limiter) == 0


async def test_the_waiting_are_counted_and_turned_away_on_closing(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter(Ceilings(6, 0, 0))
    calls = [asyncio.create_task(limiter.acquire(POOL, CALL, patience=60)) for _ in range(5)]
    await calls[0]
    assert (await limiter.peek(POOL)).waiting >= 3
    await limiter.aclose()
    ended = await asyncio.gather(*calls[2:], return_exceptions=True)
    assert all(isinstance(each, LimitReached) for each in ended)


async def test_pools_do_not_share_their_limits(make_limiter: MakeLimiter) -> None:
    limiter = make_limiter(Ceilings(6, 0, 0))
    for group in ("opus", "sonnet", "haiku"):
        await limiter.acquire(Pool("account", group), CALL, patience=1)
    await limiter.acquire(Pool("other", "opus"), CALL, patience=1)


async def test_two_processes_share_a_pool_fairly(make_limiter: MakeLimiter) -> None:
    limiters = [make_limiter(Ceilings(1800, 0, 0)) for _ in range(2)]
    served: list[list[float]] = [[], []]

    async def call(place: int) -> None:
        permit = await limiters[place].acquire(POOL, CALL, patience=10)
        served[place].append(permit.granted_at)

    await asyncio.gather(*(call(place) for place in (0, 1) for _ in range(60)))
    begun = min(map(min, served))
    # The first second, the horizon, belongs to who came first.
    shared = [sum(begun + 1.2 < moment < begun + 2.8 for moment in each) for each in served]
    assert 0.35 <= shared[0] / sum(shared) <= 0.65


async def test_who_is_cancelled_while_being_turned_away_is_cancelled() -> None:
    limiter = LocalLimiter(ceilings=lambda _: Ceilings(6, 0, 0))
    await limiter.acquire(POOL, CALL, patience=1)
    waiting = asyncio.create_task(limiter.acquire(POOL, CALL, patience=60))
    await asyncio.sleep(0.05)
    await limiter.aclose()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
