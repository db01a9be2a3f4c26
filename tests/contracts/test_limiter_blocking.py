"""The limiter for plain functions and threads."""

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from promptmill.dimensions import Amounts
from promptmill.errors import LimitReached
from promptmill.limits import (
    BlockingLimiter,
    Ceilings,
    Limiter,
    LocalLimiter,
    LocalPools,
    Pacing,
    Permit,
    Pool,
    RedisLimiter,
)

POOL = Pool("account", "group")
CALL = Amounts(1, 100, 20)
AT_ONCE = Pacing(ramp_start=1.0)
Open = Callable[..., BlockingLimiter]


@pytest.fixture(params=["local", "redis"])
def open_limiter(request: pytest.FixtureRequest) -> Open:
    """`open_limiter(ceilings)` makes one to be used in a `with`."""
    url = request.getfixturevalue("clean_redis") if request.param == "redis" else ""
    pools = LocalPools()

    def make(ceilings: Ceilings) -> BlockingLimiter:
        def limiter() -> Limiter:
            if url:
                return RedisLimiter(url, ceilings=lambda _: ceilings, pacing=AT_ONCE)
            return LocalLimiter(ceilings=lambda _: ceilings, pacing=AT_ONCE, pools=pools)

        return BlockingLimiter(limiter)

    return make


def test_eight_threads_share_one_limit(open_limiter: Open) -> None:
    starts: list[float] = []

    def call(_number: int) -> None:
        with limiter.permit(POOL, CALL, patience=30) as call:
            starts.append(time.monotonic())
            call.used(Amounts(1, 90, 10))

    with open_limiter(Ceilings(1200, 0, 0)) as limiter:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(call, range(40)))
        state = limiter.peek(POOL)
        assert limiter.pools() == [POOL]
    assert len(starts) == 40
    assert max(starts) - min(starts) >= 1.8  # 39 intervals of a twentieth, less what a start may wake late
    assert state.in_flight == 0
    assert round(state.dimensions[1].used_per_minute) == 40 * 90


def test_refused_and_not_sent_calls_are_reported(open_limiter: Open) -> None:
    with open_limiter(Ceilings(6000, 0, 0)) as limiter:
        with limiter.permit(POOL, CALL, patience=1) as call:
            call.not_sent()
        with limiter.permit(POOL, CALL, patience=1) as call:
            call.refused(429, retry_after=30)
        assert limiter.peek(POOL).paused_for > 25
        with pytest.raises(LimitReached), limiter.permit(POOL, CALL, patience=0.1):
            pytest.fail("nothing may be called in a pause")


def test_an_exception_in_the_block_passes_through(open_limiter: Open) -> None:
    with open_limiter(Ceilings(6000, 0, 0)) as limiter:
        with pytest.raises(ConnectionError), limiter.permit(POOL, CALL, patience=1):
            raise ConnectionError
        assert limiter.peek(POOL).in_flight == 0


def test_limits_can_be_taught(open_limiter: Open) -> None:
    with open_limiter(Ceilings()) as limiter:
        limiter.teach(POOL, Ceilings(1000, 450_000, 90_000))
        assert [state.source for state in limiter.peek(POOL).dimensions] == ["probed"] * 3


def test_nothing_is_left_running_after_the_block(open_limiter: Open) -> None:
    before = set(threading.enumerate())
    limiter = open_limiter(Ceilings())
    for _ in range(2):
        with limiter:
            assert len(set(threading.enumerate()) - before) == 1
        assert not set(threading.enumerate()) - before
    with pytest.raises(RuntimeError, match="with"):
        limiter.pools()


def test_a_limiter_that_cannot_be_made_leaves_nothing_running() -> None:
    before = set(threading.enumerate())

    def broken() -> Limiter:
        raise ConnectionError

    with pytest.raises(ConnectionError), BlockingLimiter(broken):
        pytest.fail("never entered")
    assert not set(threading.enumerate()) - before


def test_a_ctrl_c_while_waiting_holds_nothing(open_limiter: Open, wait_until: Callable[..., None]) -> None:
    with open_limiter(Ceilings(6, 0, 0)) as limiter:
        with limiter.permit(POOL, CALL, patience=5) as call:
            call.used(CALL)

        def interrupt() -> None:
            wait_until(lambda: limiter.peek(POOL).waiting)
            os.kill(os.getpid(), signal.SIGINT)

        interrupter = threading.Thread(target=interrupt)
        interrupter.start()
        with pytest.raises(KeyboardInterrupt), limiter.permit(POOL, CALL, patience=60):
            pytest.fail("its turn is ten seconds away")
        interrupter.join()
        assert limiter.peek(POOL).in_flight == 0


@pytest.mark.parametrize("rate", [70, 6], ids=["granted-not-begun", "in-line"])
def test_a_thread_that_waits_when_another_leaves_the_block_is_turned_away(
    open_limiter: Open, wait_until: Callable[..., None], rate: int
) -> None:
    ceilings = Ceilings(rate, 0, 0)
    with ThreadPoolExecutor(1) as threads:
        with open_limiter(ceilings) as limiter:
            with limiter.permit(POOL, CALL, patience=5) as call:
                call.used(CALL)
            waiting = threads.submit(limiter.permit(POOL, CALL, patience=30).__enter__)
            wait_until(lambda: (state := limiter.peek(POOL)).in_flight or state.waiting)
        with pytest.raises(LimitReached, match="closed"):
            waiting.result(timeout=30)
    with open_limiter(ceilings) as again:
        assert again.peek(POOL).in_flight == 0


class InterruptedLimiter(LocalLimiter):
    """Ctrl-C comes when a permit is granted and its thread has not heard of it."""

    async def acquire(self, pool: Pool, amounts: Amounts, *, patience: float) -> Permit:
        permit = await super().acquire(pool, amounts, patience=patience)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)  # noqa: ASYNC251  # the loop is held until the thread has given up
        return permit


def test_a_ctrl_c_in_the_moment_of_the_grant_gives_the_permit_back() -> None:
    with BlockingLimiter(InterruptedLimiter) as limiter:
        with pytest.raises(KeyboardInterrupt), limiter.permit(POOL, CALL, patience=5):
            pytest.fail("interrupted before")
        assert limiter.peek(POOL).in_flight == 0
