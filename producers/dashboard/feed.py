"""What was seen last, for however many pages are open: one look a second while somebody watches, one in five else.

The one idea: a look makes each document once, as bytes; a page that is slow misses some, and holds up nobody. What was
seen last is told with its age, however long a look takes: a server that is slow is no server that is gone.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from producers.dashboard.figures import Seen
from promptmill.logs import get_logger, where

log = get_logger(__name__)

Look = Callable[[tuple[str, ...]], Seen]

WATCHED_S = 1.0
UNWATCHED_S = 5.0
_SHARE = 0.2
"""The most of its time that it looks: a slow database is asked less often."""
LONGEST_REST_S = 5.0
"""The longest it rests between two looks all the same, while somebody watches."""
MOST_BATCHES = 8
"""Batches whose pages may be open at once; those beyond are told to wait."""
PATIENCE_S = 10.0
"""For what was never seen yet; longer where looks take longer."""
BRIEFLY_S = 2.0
"""How long who asks waits for something newer than what was seen last."""


class TooMany(Exception):
    """More pages are open than are served."""


@dataclass(frozen=True, slots=True)
class Published:
    """One look, ready to be sent; `number` grows with every look."""

    number: int
    at: float
    overview: bytes
    history: bytes
    batches: Mapping[str, bytes]

    @property
    def age_s(self) -> float:
        """Seconds since it was seen."""
        return time.monotonic() - self.at


class Feed:
    """Looks, and lets others wait for what it sees."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self.is_ending = False
        self._watched: Counter[str | None] = Counter()
        self._last: Published | None = None
        self.every_s = WATCHED_S
        """Seconds from one look to the next, as it goes now."""
        self._news = asyncio.Condition()
        self._hurry = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="promptmill-page")

    @property
    def last(self) -> Published | None:
        """What was seen last."""
        return self._last

    @property
    def watchers(self) -> int:
        """How many wait for news just now."""
        return self._watched.total()

    async def run(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                began = time.monotonic()
                self._hurry.clear()
                with suppress(Exception):
                    await self._publish(await loop.run_in_executor(self._thread, self._see))
                await self._rest(time.monotonic() - began)
        finally:
            self._thread.shutdown(wait=True)

    @contextmanager
    def watching(self, batch: str | None = None) -> Iterator[None]:
        """Have it look often, and at a batch too, for the length of the block.

        Raises:
            TooMany: so many batches are looked at already.
        """
        batches = {each for each in self._watched if each is not None}
        if batch is not None and batch not in batches and len(batches) >= MOST_BATCHES:
            raise TooMany
        self._watched[batch] += 1
        self._hurry.set()
        try:
            yield
        finally:
            self._watched[batch] -= 1
            if not self._watched[batch]:
                del self._watched[batch]

    async def after(
        self, number: int, batch: str | None = None, *, within_s: float | None = None
    ) -> Published:
        """The next look after that number that has this batch too; enter `watching` first.

        Raises:
            TimeoutError: there was none in so many seconds, or in as long as looks take now.
        """

        def is_news() -> bool:
            last = self._last
            return last is not None and last.number > number and (batch is None or batch in last.batches)

        async with asyncio.timeout(self._patience_s if within_s is None else within_s), self._news:
            await self._news.wait_for(is_news)
            assert self._last is not None  # noqa: S101  # what was waited for
            return self._last

    async def newest(self, batch: str | None = None) -> Published:
        """What was seen lately; what was seen last where nothing newer comes soon.

        Raises:
            TimeoutError: it was never seen, and could not be in time.
            TooMany: see `watching`.
        """
        with self.watching(batch):
            last = self._last
            if last is None or not (batch is None or batch in last.batches):
                return await self.after(last.number if last else 0, batch)
            if last.age_s < 2 * self.every_s:
                return last
            try:
                return await self.after(last.number, batch, within_s=BRIEFLY_S)
            except TimeoutError:
                return last

    @property
    def _patience_s(self) -> float:
        return max(PATIENCE_S, 2 * self.every_s)

    def _see(self) -> Seen:
        wanted = tuple(each for each in list(self._watched) if each is not None)
        try:
            return self._look(wanted)
        except Exception as error:
            log.error("page_look_failed", **where(error))  # noqa: TRY400  # a traceback may quote a row
            raise

    async def _publish(self, seen: Seen) -> None:
        number = self._last.number + 1 if self._last else 1
        self._last = Published(
            number=number,
            at=time.monotonic(),
            overview=encoded(seen.overview),
            history=encoded(seen.history),
            batches={name: encoded(document) for name, document in seen.batches.items()},
        )
        async with self._news:
            self._news.notify_all()

    async def _rest(self, took: float) -> None:
        """One look a second at most; somebody new is a reason to look sooner than in five."""
        rest = max(WATCHED_S - took, min(took / _SHARE - took, LONGEST_REST_S), 0.0)
        self.every_s = took + rest
        await asyncio.sleep(rest)
        if not self._watched:
            with suppress(TimeoutError):
                # Not `wait_for`, which on Python 3.11 loses a cancel that comes together with what it waits for.
                async with asyncio.timeout(UNWATCHED_S - WATCHED_S):
                    await self._hurry.wait()


def encoded(document: Any) -> bytes:
    """A document on one line."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
