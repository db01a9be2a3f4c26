"""The pool's own bookkeeping, with Celery's hub and no broker."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import ImproperlyConfigured
from kombu.asynchronous import Hub, set_event_loop

from workers.pool import TaskPool
from workers.pool import loop as pool_loop
from workers.pool.bridge import AsyncTask, await_here
from workers.pool.doorbell import Doorbell
from workers.pool.job import Job


class Heard:
    """Stands where Celery's Request stands."""

    def __init__(self) -> None:
        self.accepted: list[str] = []
        self.ended: list[tuple[str, Any]] = []

    def callbacks(self, name: str) -> dict[str, Callable[..., None]]:
        return {
            "accept_callback": lambda _number, _at: self.accepted.append(name),
            "callback": lambda value: self.ended.append((name, value)),
            "error_callback": lambda einfo: self.ended.append((name, einfo.type)),
            "timeout_callback": lambda soft, limit: self.ended.append(
                (name, ("soft" if soft else "hard", limit))
            ),
        }


@pytest.fixture
def app() -> Celery:
    app = Celery("test", set_as_current=False)

    @app.task(base=AsyncTask, name="asynchronous", shared=False)
    async def asynchronous() -> None:
        """Only its kind matters: the pool is given what to call."""

    return app


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    set_event_loop(hub)
    yield hub
    hub.close()
    set_event_loop(None)


@pytest.fixture
def pool(app: Celery, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[TaskPool]:
    monkeypatch.setattr(pool_loop, "_starting", [])
    monkeypatch.setattr(pool_loop, "_stopping", [])
    pool = TaskPool(2, app=app)
    pool.start()
    pool.register_with_event_loop(hub)
    yield pool
    pool.terminate()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def turn_until(hub: Hub) -> Callable[[Callable[[], object]], None]:
    def turn(predicate: Callable[[], object]) -> None:
        turns = hub.create_loop()
        for _ in range(100):
            if predicate():
                return
            next(turns)
        pytest.fail("not true after 100 turns of the hub")

    return turn


def _send(pool: TaskPool, heard: Heard, name: str, body: Callable[[], Any], **options: Any) -> Job:
    job: Job = pool.apply_async(
        lambda _name: await_here(body()), args=("asynchronous",), **heard.callbacks(name), **options
    )
    return job


async def _forever() -> None:
    await asyncio.sleep(3600)


def test_a_job_is_accepted_when_it_begins_and_not_before(
    pool: TaskPool, heard: Heard, turn_until: Callable[..., None]
) -> None:
    gate = asyncio.Event()

    async def body() -> str:
        await gate.wait()
        return "done"

    for name in ("first", "second", "third"):
        _send(pool, heard, name, body)
    assert heard.accepted == ["first", "second"]
    assert pool.info["running"] == 2
    assert pool.info["waiting"] == 1
    pool_loop.current_loop().call_soon_threadsafe(gate.set)
    turn_until(lambda: len(heard.ended) == 3)
    assert heard.accepted == ["first", "second", "third"]
    assert {value for _, value in heard.ended} == {"done"}


def test_a_job_that_waits_is_not_ended_by_a_revoke_but_when_it_is_accepted(
    pool: TaskPool, heard: Heard, turn_until: Callable[..., None]
) -> None:
    running = [_send(pool, heard, name, _forever) for name in ("first", "second")]
    revoked = _send(pool, heard, "third", _forever)
    revoked.on_accepted = lambda number, _at: pool.terminate_job(number)  # as Celery's Request does
    revoked.terminate()
    assert not revoked.is_terminated
    running[0].terminate()
    turn_until(lambda: revoked.is_terminated)
    assert pool.info["running"] == 1
    assert heard.ended == []


def test_more_may_run_after_growing_and_fewer_after_shrinking(pool: TaskPool, heard: Heard) -> None:
    for name in "abcd":
        _send(pool, heard, name, _forever)
    pool.grow(1)
    assert heard.accepted == ["a", "b", "c"]
    pool.shrink(5)
    assert pool.num_processes == 1
    assert pool.info["running"] == 3


def test_nothing_begins_after_close(pool: TaskPool, heard: Heard) -> None:
    for name in "abc":
        _send(pool, heard, name, _forever)
    pool.close()
    _send(pool, heard, "d", _forever)
    assert heard.accepted == ["a", "b"]
    assert pool.info["running"] == 2


def test_a_plain_function_runs_on_a_thread_and_both_ends_are_reported(
    pool: TaskPool, heard: Heard, turn_until: Callable[..., None]
) -> None:
    pool.apply_async(lambda: threading.current_thread().name, **heard.callbacks("plain"))
    pool.apply_async(lambda: int("x"), **heard.callbacks("broken"))
    turn_until(lambda: len(heard.ended) == 2)
    ended = dict(heard.ended)
    assert ended["plain"].startswith("promptmill-plain")
    assert ended["broken"] is ValueError


def test_limits_are_reported_with_their_seconds(
    pool: TaskPool, heard: Heard, turn_until: Callable[..., None]
) -> None:
    _send(pool, heard, "soft", _forever, soft_timeout=0.01)
    _send(pool, heard, "hard", _forever, timeout=0.02)
    turn_until(lambda: pool.info["running"] == 0)
    assert ("soft", ("soft", 0.01)) in heard.ended
    assert ("hard", ("hard", 0.02)) in heard.ended
    assert [value.__name__ for name, value in heard.ended if name == "soft" and isinstance(value, type)] == [
        "SoftTimeLimitExceeded"
    ]


def test_a_callback_that_breaks_does_not_keep_the_slot(
    pool: TaskPool, heard: Heard, turn_until: Callable[..., None]
) -> None:
    async def body() -> None:
        await asyncio.sleep(0)

    def broken(_value: object) -> None:
        raise OSError("the broker is gone")

    pool.apply_async(lambda _name: await_here(body()), args=("asynchronous",), callback=broken)
    turn_until(lambda: pool.info["running"] == 0)
    _send(pool, heard, "next", body)
    turn_until(lambda: heard.ended)


def test_stop_waits_for_what_runs(pool: TaskPool, heard: Heard) -> None:
    async def body() -> str:
        await asyncio.sleep(0.05)
        return "finished"

    _send(pool, heard, "job", body)
    pool.close()
    pool.stop()
    assert heard.ended == [("job", "finished")]


def test_stop_waits_for_what_runs_though_the_broker_is_gone(pool: TaskPool, heard: Heard, hub: Hub) -> None:
    def broken() -> None:
        raise ConnectionError

    async def body() -> str:
        await asyncio.sleep(0.05)
        return "finished"

    with closing(Doorbell()) as transport:
        transport.ring()
        hub.add_reader(transport, broken)
        _send(pool, heard, "job", body)
        pool.close()
        pool.stop()
        hub.remove_reader(transport)
    assert heard.ended == [("job", "finished")]


def test_terminate_cancels_what_runs(pool: TaskPool, heard: Heard) -> None:
    seen: list[str] = []

    async def body() -> None:
        try:
            await _forever()
        finally:
            await asyncio.sleep(0.01)
            seen.append("in order")

    _send(pool, heard, "job", body)
    begun = threading.Event()
    pool_loop.current_loop().call_soon_threadsafe(begun.set)
    begun.wait()
    pool.terminate()
    assert seen == ["in order"]
    assert heard.ended == []


def test_what_was_handed_over_is_known_at_once_and_until_its_end_is_heard(
    pool: TaskPool, heard: Heard, turn_until: Callable[..., None]
) -> None:
    gate = asyncio.Event()

    async def body() -> None:
        await gate.wait()

    for name in "abc":
        _send(pool, heard, name, body, correlation_id=f"job_{name}")
    assert pool.task_ids == {"job_a", "job_b", "job_c"}
    pool_loop.current_loop().call_soon_threadsafe(gate.set)
    turn_until(lambda: len(heard.ended) == 3)
    assert not pool.task_ids


@pytest.fixture
def rings(pool: TaskPool, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One for each time that the pool has rung."""
    rings: list[None] = []
    ring = pool._doorbell.ring
    monkeypatch.setattr(pool._doorbell, "ring", lambda: (rings.append(None), ring()))
    return rings


@pytest.fixture
def end(pool: TaskPool, heard: Heard) -> Callable[[int], object]:
    """Of 300 jobs in 1,000 slots, so many more end, in one turn of the loop."""
    pool.grow(998)
    gates = [asyncio.Event() for _ in range(300)]
    for number, gate in enumerate(gates):
        _send(pool, heard, str(number), gate.wait)

    def end(count: int) -> None:
        for _ in range(count):
            gates.pop().set()

    return partial(pool_loop.current_loop().call_soon_threadsafe, end)


@pytest.fixture
def no_moment_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.pool.doorbell.RING_EVERY_S", 3600)


@pytest.mark.usefixtures("no_moment_passes")
def test_the_first_end_and_a_quarter_of_the_slots_ring_at_once_and_what_is_between_waits(
    pool: TaskPool,
    turn_until: Callable[..., None],
    wait_until: Callable[..., None],
    rings: list[None],
    end: Callable[[int], object],
) -> None:
    end(1)
    turn_until(lambda: pool.info["running"] == 299)
    assert len(rings) == 1
    end(249)
    wait_until(lambda: len(pool._reports) == 249)
    assert len(rings) == 1
    end(1)
    turn_until(lambda: pool.info["running"] == 49)
    assert len(rings) == 2


def test_many_ends_ring_twice_the_second_time_a_moment_later(
    heard: Heard, turn_until: Callable[..., None], rings: list[None], end: Callable[[int], object]
) -> None:
    end(200)
    turn_until(lambda: len(heard.ended) == 200)
    assert len(rings) <= 2


def test_a_broker_without_a_hub_is_refused(app: Celery) -> None:
    set_event_loop(None)
    with pytest.raises(ImproperlyConfigured, match="-P threads"):
        TaskPool(1, app=app).start()
