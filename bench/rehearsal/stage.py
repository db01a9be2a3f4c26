"""Plays a scene: processes with slots, the product's limiter between them and the server.

A slot takes a job, waits for a permit, calls, settles. What goes wrong in a scene goes wrong here; what came of
it is only written down (`Call`), and judged by `figures`.
"""

import asyncio
import math
import random
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Literal

from bench.rehearsal.feeds import Dispatched, Feed, OneQueue
from bench.rehearsal.guesses import Guesses
from bench.rehearsal.scene import Batch, Job, Scene
from bench.rehearsal.server import Reply, Server
from bench.rehearsal.shared import Shared, SharingLimiter
from promptmill.dimensions import Amounts
from promptmill.errors import LimitReached
from promptmill.limits import Ceilings, Permit, Pool
from promptmill.retries import Backoff
from workers.scouts import Scouts

POOL = Pool("account", "group")
PATIENCE_S = 15.0
BEAT_S = 5.0
LONGEST_REST_S = 5.0
REDELIVERED_AFTER_S = 60.0
FIRST_TOKEN_S = 0.9
UNFINISHED = 12.0
"""A scene that takes so many times as long as planned is given up."""
AFTER_REFUSAL, AFTER_OVERLOAD = Backoff(first=0.5, ceiling=5), Backoff(first=2, ceiling=120)


@dataclass(frozen=True, slots=True)
class Call:
    """An admitted call: when, what the server counted, and when its answer was produced."""

    at: float
    batch: str
    input_tokens: int
    output_tokens: int
    begins: float
    ends: float


@dataclass(slots=True)
class Events:
    """What happened in a rehearsal."""

    calls: list[Call]
    answered: list[tuple[float, Job]]
    refusals: int = 0
    overloads: int = 0
    deferred: int = 0
    open_permits: int = 0


class Process:
    """A worker process: a limiter, slots and a heartbeat."""

    def __init__(self, stage: "Stage", number: int) -> None:
        scene = stage.scene
        self.limiter = SharingLimiter(
            stage.shared,
            ceilings=lambda _: scene.ceilings,
            process=f"process-{number}",
            skew=scene.skew if number == 0 else 0.0,
        )
        self._stage = stage
        self._scouts = Scouts(asyncio.get_running_loop().time)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Open the slots."""
        self._tasks = [asyncio.create_task(self._slot()) for _ in range(self._stage.scene.slots)]
        self._tasks.append(asyncio.create_task(self._beat()))

    def die(self) -> None:
        """End at once, without a word."""
        self.limiter.die()
        for task in self._tasks:
            task.cancel()

    async def stop(self) -> None:
        """End in good order."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.limiter.aclose()

    async def _beat(self) -> None:
        while True:
            await self.limiter.beat()
            await asyncio.sleep(BEAT_S)

    async def _slot(self) -> None:
        stage = self._stage
        await asyncio.sleep(stage.chance.uniform(0, 0.05))
        while True:
            job = await stage.feed.take()
            begun = False
            try:
                permit = await self.limiter.acquire(POOL, stage.guesses.of(job), patience=PATIENCE_S)
                begun = True
                stage.feed.begun()
                await self._call(permit, job)
            except LimitReached as refusal:
                stage.events.deferred += 1
                stage.later(job, min(refusal.retry_after, LONGEST_REST_S))
            except asyncio.CancelledError:
                stage.later(job, REDELIVERED_AFTER_S)
                raise
            finally:
                stage.feed.over(begun=begun)

    async def _call(self, permit: Permit, job: Job) -> None:
        stage = self._stage
        await stage.network()
        reply = stage.server.arrive(job, stage.now())
        if reply.overloaded or reply.refusal is not None:
            await stage.network()
            await self._refused(permit, job, reply)
            return
        used = Amounts(1, reply.counted, job.output_tokens)
        if self._scouts.send(POOL):
            await asyncio.gather(stage.produce(job, reply.counted), self._report_early(permit, reply))
            await stage.network()
            await self.limiter.settle(permit, used)
        else:
            await stage.produce(job, reply.counted)
            await stage.network()
            await self.limiter.settle(permit, used, reply.headroom)
        stage.guesses.learn(job, reply.counted)
        stage.answered(job)

    async def _report_early(self, permit: Permit, reply: Reply) -> None:
        """What a scout's headers say, and what is counted of it, when its answer begins."""
        await asyncio.sleep(FIRST_TOKEN_S)
        await self._stage.network()
        await self.limiter.observe(permit, reply.counted, reply.headroom)

    async def _refused(self, permit: Permit, job: Job, reply: Reply) -> None:
        stage, refusal = self._stage, reply.refusal
        status: Literal[429, 529] = 529 if refusal is None else 429
        wait = float(refusal.retry_after) if refusal else None
        await self.limiter.penalise(
            permit,
            status=status,
            retry_after=wait,
            dimension=refusal.dimension if refusal else None,
            ramp=refusal is not None and refusal.dimension is None,
            headroom=reply.headroom,
        )
        stage.events.refusals += refusal is not None
        stage.events.overloads += refusal is None
        backoff = AFTER_REFUSAL if refusal else AFTER_OVERLOAD
        stage.later(job, backoff.delay(job.tries, at_least=wait or 0.0, rng=stage.chance))
        job.tries += 1


class Stage:
    """Runs one rehearsal; make it inside the virtual loop."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.chance = random.Random(scene.seed)
        self.server = Server(scene)
        self.shared = Shared()
        self.guesses = Guesses(scene.prefix)
        self.events = Events([], [])
        self._begins = asyncio.get_running_loop().time()
        self._ended = asyncio.Event()
        self._processes = [Process(self, number) for number in range(scene.processes)]
        self._dispatched: Dispatched | None = None
        if scene.dispatched:
            first = self._processes[0].limiter
            self._dispatched = Dispatched(
                scene.processes * scene.slots, lambda: first.peek(POOL), self.guesses.of
            )
        self.feed: Feed = self._dispatched or OneQueue()
        self._total = sum(batch.jobs for batch in scene.submissions())

    def now(self) -> float:
        """Seconds since the beginning."""
        return asyncio.get_running_loop().time() - self._begins

    async def run(self) -> Events:
        """Play the scene to its end.

        Raises:
            TimeoutError: it does not end.
        """
        if self.scene.taught:
            await self._teach()
        for process in self._processes:
            process.start()
        around = [asyncio.create_task(each) for each in self._around()]
        try:
            async with asyncio.timeout(UNFINISHED * self.scene.seconds):
                await self._ended.wait()
        finally:
            for task in around:
                task.cancel()
            await asyncio.gather(*around, return_exceptions=True)
            self.events.open_permits = (await self._processes[-1].limiter.peek(POOL)).in_flight
            for process in self._processes:
                await process.stop()
        return self.events

    def _around(self) -> list[Coroutine[Any, Any, None]]:
        """Everything that happens beside the calls."""
        scene = self.scene
        jobs = random.Random(scene.seed * 7919 + 13)
        around = [self._submit(batch, scene.jobs(batch, jobs)) for batch in scene.submissions()]
        if self._dispatched is not None:
            around.append(self._dispatched.lead())
        if scene.change is not None:
            around.append(self._change(*scene.change))
        if scene.dying is not None:
            around.append(self._kill(*scene.dying))
        if scene.outage is not None:
            around.append(self.shared.lose(*scene.outage))
        return around

    async def _submit(self, batch: Batch, jobs: list[Job]) -> None:
        await asyncio.sleep(batch.at)
        self.feed.submit(jobs)

    async def _change(self, moment: float, limits: Amounts) -> None:
        await asyncio.sleep(moment)
        self.server.change(limits, self.now())

    async def _kill(self, moment: float, count: int) -> None:
        await asyncio.sleep(moment)
        for process in self._processes[:count]:
            process.die()

    async def _teach(self) -> None:
        """What a probe said before the limits changed."""
        await self._processes[0].limiter.teach(POOL, Ceilings(*self.scene.limits))

    def later(self, job: Job, seconds: float) -> None:
        """A job goes back to its batch after some seconds."""
        asyncio.get_running_loop().call_later(seconds, self.feed.give_back, job)

    def answered(self, job: Job) -> None:
        """One less to do."""
        self.events.answered.append((self.now(), job))
        if len(self.events.answered) >= self._total:
            self._ended.set()

    async def produce(self, job: Job, counted: int) -> None:
        """Let the server answer."""
        admitted = self.now()
        first = self.chance.lognormvariate(math.log(FIRST_TOKEN_S), 0.35)
        seconds = job.output_tokens / self.chance.lognormvariate(math.log(70), 0.2)
        begins, ends = admitted + first, admitted + first + seconds
        self.events.calls.append(Call(admitted, job.batch, counted, job.output_tokens, begins, ends))
        self.server.produce(begins, seconds, job.output_tokens)
        await asyncio.sleep(first + seconds)

    async def network(self) -> None:
        """One way over the network: 20 ms and some, rarely much more."""
        delay = 0.02 + self.chance.gammavariate(2, 0.006)
        if self.chance.random() < 0.01:
            delay += self.chance.uniform(0.05, 0.3)
        await asyncio.sleep(delay)
