"""One look is shared by all who watch."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from producers.dashboard import feed as feeds
from producers.dashboard.feed import MOST_BATCHES, Feed, Look, TooMany
from producers.dashboard.figures import Seen


class Looks:
    """Counts looks, and says what was wanted."""

    def __init__(self, failing: int = 0) -> None:
        self.wanted: list[tuple[str, ...]] = []
        self.failing = failing

    def __call__(self, wanted: tuple[str, ...]) -> Seen:
        self.wanted.append(wanted)
        if len(self.wanted) <= self.failing:
            raise RuntimeError("nothing could be seen")
        return Seen({"look": len(self.wanted)}, {}, {name: {"name": name} for name in wanted})


@asynccontextmanager
async def running(looks: Look) -> AsyncIterator[Feed]:
    feed = Feed(looks)
    task = asyncio.create_task(feed.run())
    try:
        yield feed
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "WATCHED_S", 0.02)
    monkeypatch.setattr(feeds, "UNWATCHED_S", 60.0)


async def test_fifty_pages_cost_one_look_each_time() -> None:
    looks = Looks()
    async with running(looks) as feed:

        async def watch() -> int:
            with feed.watching():
                number = 0
                for _ in range(5):
                    number = (await feed.after(number)).number
            return number

        numbers = await asyncio.gather(*(watch() for _ in range(50)))

    assert max(numbers) <= len(looks.wanted) <= max(numbers) + 1


async def test_nobody_watches_and_it_looks_seldom() -> None:
    looks = Looks()
    async with running(looks) as feed:
        await feed.newest()
        await asyncio.sleep(0.2)

    assert len(looks.wanted) <= 2


async def test_a_page_of_a_batch_is_looked_at_while_it_is_open() -> None:
    looks = Looks()
    async with running(looks) as feed:
        with feed.watching("mine"):
            assert (await feed.after(0, "mine")).batches["mine"] == b'{"name":"mine"}'
        number = (await feed.newest()).number
        with feed.watching():
            await feed.after(number + 1)

    assert looks.wanted[-1] == ()


async def test_a_look_that_fails_is_followed_by_the_next() -> None:
    async with running(Looks(failing=2)) as feed:
        with feed.watching():
            assert (await feed.after(0)).overview == b'{"look":3}'


async def test_pages_of_too_many_batches_are_refused() -> None:
    feed = Feed(Looks())
    held = [feed.watching(f"batch-{number}") for number in range(MOST_BATCHES)]
    for each in held:
        each.__enter__()

    with pytest.raises(TooMany), feed.watching("one-more"):
        pass
    with feed.watching("batch-0"):
        assert feed.watchers == MOST_BATCHES + 1


async def test_a_look_that_hangs_leaves_what_was_seen_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "BRIEFLY_S", 0.05)
    go_on = threading.Event()
    looks = Looks()

    def look(wanted: tuple[str, ...]) -> Seen:
        seen = looks(wanted)
        if len(looks.wanted) > 1:
            go_on.wait()
        return seen

    async with running(look) as feed:
        with feed.watching():
            await feed.after(0)
            monkeypatch.setattr(feed, "every_s", 0.0)  # what was seen is old at once
            found = await feed.newest()
        go_on.set()

    assert (found.overview, found.number) == (b'{"look":1}', 1)


@pytest.mark.parametrize(("took", "every"), [(0.001, 0.02), (0.5, 2.5), (4.0, 9.0), (20.0, 25.0)])
async def test_slow_looks_are_fewer_but_never_far_apart(
    took: float, every: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sleep(_seconds: float) -> None:
        pass

    feed = Feed(Looks())
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with feed.watching():
        await feed._rest(took)

    assert feed.every_s == pytest.approx(every)


@pytest.mark.parametrize("turns", range(4))
async def test_one_that_is_ended_in_the_moment_when_somebody_comes_ends(turns: int) -> None:
    feed = Feed(Looks())
    resting = asyncio.create_task(feed._rest(0.0))
    while not feed._hurry._waiters:  # noqa: ASYNC110  # nothing else tells that it waits
        await asyncio.sleep(0)

    with feed.watching():
        for _ in range(turns):  # so far the word has come
            await asyncio.sleep(0)
        has_rested = resting.done()
        resting.cancel()
        await asyncio.wait([resting])

    assert has_rested or resting.cancelled()
