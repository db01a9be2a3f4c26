"""Where the slots of a rehearsal get their jobs: one heap of waiting calls, or what the dispatcher sends out.

`OneQueue` lets every slot wait at the limiter. `Dispatched` puts the decisions of the product's dispatcher in
front of it (`workers.window`, `workers.fairness`), in the rhythm of its leader, so that fairness between
batches is rehearsed too.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from bench.rehearsal.scene import Job
from promptmill.dimensions import Amounts
from promptmill.limits import PoolState
from workers.fairness import Candidate, Queue, pick
from workers.window import GroupLoad, room_in_window

BUSY_S = 0.25
"""Between two looks of the dispatcher while jobs go out: its pause of 0.1 s and a slow database."""
IDLE_S = 0.5
STARTS_SPAN_S = 10.0
HEADS = 200
"""Jobs of a batch that are looked at, at most: the product looks at more, and finds the same mean."""


class Feed(Protocol):
    """What a slot knows of where its jobs come from."""

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take in a new batch."""

    def give_back(self, job: Job) -> None:
        """The job could not be answered now; it is the next of its batch."""

    async def take(self) -> Job:
        """The next job; waits until there is one."""
        ...

    def begun(self) -> None:
        """The call of a job that was taken begins."""

    def over(self, *, begun: bool) -> None:
        """A slot is done with a job, however that ended."""


class OneQueue:
    """First come, first served."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Put jobs behind the others."""
        self._jobs.extend(jobs)
        for _ in jobs:
            self._wake()

    def give_back(self, job: Job) -> None:
        """Put a job before the others."""
        self._jobs.appendleft(job)
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
                return

    async def take(self) -> Job:
        """The next job; waits until there is one."""
        while not self._jobs:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting
        return self._jobs.popleft()

    def begun(self) -> None:
        """Nobody counts."""

    def over(self, *, begun: bool) -> None:
        """Nobody counts."""


class Dispatched:
    """The dispatcher's decisions between the batches and the slots.

    Args:
        slots: calls that all processes together can hold.
        peek: what the limiter knows now.
        amounts_of: what a job will probably take.
    """

    def __init__(
        self, slots: int, peek: Callable[[], Awaitable[PoolState]], amounts_of: Callable[[Job], Amounts]
    ) -> None:
        self._slots = slots
        self._peek = peek
        self._amounts_of = amounts_of
        self._out = OneQueue()
        self._pending: dict[str, deque[Job]] = defaultdict(deque)
        self._times: dict[str, float] = {}
        self._queued = 0
        self._running = 0
        self._starts: deque[float] = deque()
        self._nudged = asyncio.Event()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Jobs wait in the database; the dispatcher is nudged."""
        for job in jobs:
            self._pending[job.batch].append(job)
        self._nudged.set()

    def give_back(self, job: Job) -> None:
        """The job is pending again."""
        self._pending[job.batch].appendleft(job)

    async def take(self) -> Job:
        """The next job that was sent out."""
        return await self._out.take()

    def begun(self) -> None:
        """From queued to running."""
        self._queued -= 1
        self._running += 1
        self._starts.append(asyncio.get_running_loop().time())

    def over(self, *, begun: bool) -> None:
        """Neither queued nor running any more."""
        if begun:
            self._running -= 1
        else:
            self._queued -= 1

    async def lead(self) -> None:
        """Fill the window for ever, as the leader does."""
        while True:
            if await self._fill():
                await asyncio.sleep(BUSY_S)
                continue
            self._nudged.clear()
            try:
                async with asyncio.timeout(IDLE_S):
                    await self._nudged.wait()
            except TimeoutError:
                continue

    async def _fill(self) -> int:
        pending = {name: jobs for name, jobs in self._pending.items() if jobs}
        if not pending:
            return 0
        state = await self._peek()
        limits = Amounts(*((each.limit - each.foreign) if each.limit else 0.0 for each in state.dimensions))
        most = room_in_window(self._load(state, None), slots=self._slots, contended=False)
        heads = {
            name: [self._amounts_of(jobs[place]) for place in range(min(most, HEADS, len(jobs)))]
            for name, jobs in pending.items()
        }
        load = self._load(state, _pace([each for head in heads.values() for each in head], limits))
        room = room_in_window(load, slots=self._slots, contended=False)
        queues = [_queue(name, head) for name, head in heads.items()]
        chosen = pick(queues, self._times, limits, room)
        self._times = chosen.times
        for each in chosen.job_ids:
            name, _, _ = each.partition("#")
            self._queued += 1
            self._out.submit([self._pending[name].popleft()])
        return len(chosen.job_ids)

    def _load(self, state: PoolState, limit_per_s: float | None) -> GroupLoad:
        since = asyncio.get_running_loop().time() - STARTS_SPAN_S
        while self._starts and self._starts[0] < since:
            self._starts.popleft()
        return GroupLoad(
            queued=self._queued,
            running=self._running,
            starts_per_s=len(self._starts) / STARTS_SPAN_S,
            limit_per_s=limit_per_s,
            paused_s=state.paused_for,
        )


def _queue(name: str, head: Sequence[Amounts]) -> Queue:
    return Queue(name, 1.0, [Candidate(f"{name}#{place}", each) for place, each in enumerate(head)])


def _pace(head: Sequence[Amounts], limits: Amounts) -> float | None:
    """Calls per second that the limits allow for jobs like these; None without a limit."""
    if not head:
        return None
    totals = [sum(column) for column in zip(*head, strict=True)]
    paces = [
        limit / 60 * len(head) / total
        for limit, total in zip(limits, totals, strict=True)
        if limit > 0 and total > 0
    ]
    return min(paces, default=None)
