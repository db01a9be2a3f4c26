"""From a plain function to an `async def` body and back, inside one asyncio task."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from workers.pool import loop as pool_loop
from workers.pool.bridge import AsyncTask, Interrupts, JobCancelled, await_here, run_ahead, run_in_greenlet

variable: ContextVar[str] = ContextVar("variable", default="unset")


Body = Callable[[], Coroutine[Any, Any, Any]]
Around = Callable[[Callable[[], Any]], Any]
"""Calls what it is given, which asks for the body; stands for Celery's tracer."""


def _just(ask: Callable[[], Any]) -> Any:
    return ask()


async def _inside(body: Body, interrupts: Interrupts | None = None, around: Around = _just) -> Any:
    return await run_in_greenlet(lambda: around(lambda: await_here(body())), interrupts or Interrupts())


async def _ahead(body: Body, interrupts: Interrupts | None = None, around: Around = _just) -> Any:
    class Asynchronous(AsyncTask):
        @staticmethod
        async def run() -> Any:
            return await body()

    task = Asynchronous()
    return await run_ahead(task.body, lambda: around(task.run), interrupts or Interrupts())


@pytest.fixture(params=[_inside, _ahead], ids=["inside the greenlet", "ahead"])
def answer(request: pytest.FixtureRequest) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Runs a body and the plain function around it, in either way."""
    way: Callable[..., Coroutine[Any, Any, Any]] = request.param
    return way


async def _run(call: Callable[[], object], interrupts: Interrupts | None = None) -> object:
    return await run_in_greenlet(call, interrupts or Interrupts())


async def _double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


async def test_a_plain_function_gets_what_the_body_returns(answer: Callable[..., Any]) -> None:
    assert await answer(partial(_double, 20), around=lambda ask: ask() + 2) == 42


async def test_a_plain_function_may_wait_for_several_bodies() -> None:
    assert await _run(lambda: await_here(_double(20)) + await_here(_double(1))) == 42


async def test_a_body_that_ran_ahead_runs_once_and_the_next_call_of_it_anew() -> None:
    runs: list[int] = []

    async def body() -> int:
        runs.append(1)
        await asyncio.sleep(0)
        return len(runs)

    def twice(ask: Callable[[], Any]) -> Any:
        assert ask() == 1
        with pytest.raises(RuntimeError, match="await its body"):
            ask()  # on the loop's own thread it would block

    await _ahead(body, around=twice)
    assert runs == [1]


async def test_a_function_without_a_body_just_returns() -> None:
    assert await _run(lambda: 42) == 42


async def test_what_a_body_raises_passes_through_the_plain_function(answer: Callable[..., Any]) -> None:
    async def body() -> None:
        await asyncio.sleep(0)
        raise KeyError("lost")

    def around(ask: Callable[[], Any]) -> str:
        try:
            ask()
        except KeyError as error:
            return f"caught {error}"
        return "nothing"

    assert await answer(body, around=around) == "caught 'lost'"


async def test_many_bodies_take_turns(answer: Callable[..., Any]) -> None:
    begun, all_have_begun = 0, asyncio.Event()

    async def body(number: int) -> int:
        nonlocal begun
        begun += 1
        if begun == 200:
            all_have_begun.set()
        await all_have_begun.wait()
        return number

    async with asyncio.timeout(60):
        answers = await asyncio.gather(*(answer(partial(body, n)) for n in range(200)))
    assert answers == list(range(200))


async def test_context_variables_set_around_the_body_hold_inside_it_and_not_beside_it() -> None:
    async def body() -> str:
        await asyncio.sleep(0)
        return variable.get() + await asyncio.create_task(_read())

    async def _read() -> str:
        return variable.get()

    def call(value: str) -> str:
        variable.set(value)
        return await_here(body())

    answers = await asyncio.gather(*(asyncio.create_task(_run(partial(call, v))) for v in "ab"))
    assert answers == ["aa", "bb"]
    assert variable.get() == "unset"


async def test_a_soft_limit_is_raised_once_and_the_task_goes_on(answer: Callable[..., Any]) -> None:
    interrupts = Interrupts()

    async def body() -> str:
        try:
            await asyncio.sleep(60)
        except SoftTimeLimitExceeded:
            async with asyncio.timeout(60):
                await asyncio.sleep(0.01)
            return "went on"
        return "slept"

    task = asyncio.create_task(answer(body, interrupts))
    await asyncio.sleep(0)
    interrupts.soft_limit = 1.0
    task.cancel()
    assert await task == "went on"
    assert task.cancelling() == 0


async def test_a_terminated_job_is_cancelled_after_it_has_put_its_things_in_order(
    answer: Callable[..., Any],
) -> None:
    interrupts, seen = Interrupts(), []

    async def body() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            seen.append("in order")

    task = asyncio.create_task(answer(body, interrupts))
    await asyncio.sleep(0)
    interrupts.terminated = True
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["in order"]


async def test_a_body_that_cancels_itself_has_failed(answer: Callable[..., Any]) -> None:
    async def body() -> None:
        raise asyncio.CancelledError

    with pytest.raises(JobCancelled):
        await answer(body)


async def test_a_cancellation_that_the_body_turns_into_something_else_is_its_own_affair(
    answer: Callable[..., Any],
) -> None:
    """The pipeline does so when it drains: what waits for a permit is cancelled and put back."""

    async def body() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
        return "put back"

    task = asyncio.create_task(answer(body))
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "put back"


async def test_what_a_failed_body_held_is_let_go_without_garbage_collection(
    answer: Callable[..., Any],
) -> None:
    class Prompt:
        """Can be watched, unlike a text."""

    watched: list[weakref.ref[Prompt]] = []

    async def body() -> None:
        prompt = Prompt()
        watched.append(weakref.ref(prompt))
        await asyncio.sleep(0)
        raise KeyError

    def trace(ask: Callable[[], Any]) -> None:
        with contextlib.suppress(KeyError):
            ask()

    gc.disable()
    try:
        await answer(body, around=trace)
        assert [prompt() for prompt in watched] == [None]
    finally:
        gc.enable()


async def test_the_error_of_a_body_that_ran_ahead_is_let_go_with_the_tracer() -> None:
    class Unwell(Exception):
        """Can be watched, unlike a built-in error."""

    watched: list[weakref.ref[Unwell]] = []

    async def body() -> None:
        raise Unwell

    def trace(ask: Callable[[], Any]) -> None:
        try:
            ask()
        except Unwell as error:
            kept = error  # as Celery's tracer does
            watched.append(weakref.ref(kept))

    gc.disable()
    try:
        await _ahead(body, around=trace)
        assert [error() for error in watched] == [None]
    finally:
        gc.enable()


async def test_an_asynchronous_task_is_not_called_on_a_loop() -> None:
    with pytest.raises(RuntimeError, match="await its body"):
        await_here(_double(1))


@pytest.fixture
def shared_loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """It may be started, and does not outlive the test: it would write of its lag into other tests' logs."""
    monkeypatch.setattr(pool_loop, "_starting", [])
    monkeypatch.setattr(pool_loop, "_stopping", [])
    yield
    pool_loop.stop_loop()


def test_a_plain_thread_waits_for_a_body_on_the_shared_loop(shared_loop: None) -> None:
    assert await_here(_double(21)) == 42


def test_only_asynchronous_bodies_are_wrapped() -> None:
    class Plain(AsyncTask):
        def run(self) -> str:
            return "plain"

    class Asynchronous(AsyncTask):
        async def run(self) -> str:
            return "asynchronous"

    class Unbound(AsyncTask):
        @staticmethod
        async def run(word: str) -> str:
            return word

    results: list[Awaitable[str] | str] = [Plain().run(), Asynchronous().run(), Unbound().run("unbound")]
    assert results == ["plain", "asynchronous", "unbound"]
    assert [task.body is not None for task in (Plain, Asynchronous, Unbound)] == [False, True, True]
