"""The loop thread: hooks around the jobs, and its lag as a number."""

import asyncio
from collections.abc import Iterator

import pytest

from workers.pool import lag
from workers.pool import loop as pool_loop
from workers.pool.lag import LagMeter
from workers.pool.loop import LoopThread


@pytest.fixture(autouse=True)
def no_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_loop, "_starting", [])
    monkeypatch.setattr(pool_loop, "_stopping", [])


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.stop()


def test_start_hooks_have_run_on_the_loop_when_start_returns(thread: LoopThread) -> None:
    seen: list[asyncio.AbstractEventLoop] = []

    @pool_loop.on_loop_start
    async def hook() -> None:
        await asyncio.sleep(0)
        seen.append(asyncio.get_running_loop())

    thread.start()
    assert seen == [thread.loop]


def test_stop_hooks_run_last_first_and_a_broken_one_stops_nobody(thread: LoopThread) -> None:
    seen: list[str] = []

    async def first() -> None:
        seen.append("first")

    async def broken() -> None:
        raise ValueError

    async def last() -> None:
        seen.append("last")

    for hook in (first, broken, last):
        pool_loop.on_loop_stop(hook)
    thread.start()
    thread.stop()
    thread.stop()
    assert seen == ["last", "first"]
    assert not thread.is_alive


def test_what_a_start_hook_raises_is_raised_by_start_after_the_stop_hooks(thread: LoopThread) -> None:
    seen: list[str] = []

    @pool_loop.on_loop_start
    async def hook() -> None:
        raise ConnectionError("no database")

    @pool_loop.on_loop_stop
    async def close() -> None:
        seen.append("closed")

    with pytest.raises(ConnectionError, match="no database"):
        thread.start()
    assert seen == ["closed"]


def test_what_still_runs_is_cancelled_by_stop(thread: LoopThread) -> None:
    thread.start()
    future = asyncio.run_coroutine_threadsafe(asyncio.sleep(60), thread.loop)
    thread.stop()
    assert future.cancelled()


def test_there_is_no_loop_before_one_is_started(thread: LoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_loop, "_thread", None)
    assert pool_loop.worst_lag() == 0.0
    with pytest.raises(RuntimeError):
        pool_loop.current_loop()
    with pytest.raises(RuntimeError):
        _ = thread.loop


def test_the_process_has_one_loop_and_a_new_one_after_it_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_loop, "_thread", None)
    first = pool_loop.start_loop()
    assert pool_loop.start_loop() is first
    assert pool_loop.current_loop() is first.loop
    pool_loop.stop_loop()
    second = pool_loop.start_loop()
    assert second is not first
    pool_loop.stop_loop()


def test_the_worst_lag_is_that_of_the_last_ten_seconds() -> None:
    meter = LagMeter()
    meter.observe(0.5, now=100.2)
    meter.observe(0.1, now=100.7)
    meter.observe(0.2, now=105.0)
    assert meter.worst(now=106.0) == 0.5
    assert meter.worst(now=111.0) == 0.2
    meter.observe(0.01, now=120.0)
    assert meter.worst(now=120.0) == 0.01
    assert meter.worst(now=140.0) == 0.0


async def test_a_blocked_loop_shows_as_lag_and_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import time  # noqa: PLC0415  # to block on purpose

    monkeypatch.setattr(lag, "TOO_LATE_S", 0.1)
    blocks: list[float] = []

    class Meter(LagMeter):
        def observe(self, lag: float, *, now: float) -> None:
            super().observe(lag, now=now)
            if lag > 0.15:
                blocks.append(lag)

    watch = asyncio.create_task(Meter().watch())
    await asyncio.sleep(0)
    for times in (1, 2):
        time.sleep(0.3)  # noqa: ASYNC251  # what must not happen, so that it is seen
        async with asyncio.timeout(5):
            while len(blocks) < times:  # noqa: ASYNC110  # the meter is read, it tells nobody
                await asyncio.sleep(0.01)
    watch.cancel()
    assert [record.name for record in caplog.records] == ["workers.pool.lag"]
