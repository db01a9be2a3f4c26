"""A worker process from start to end: opens what jobs need, and closes it in the right order.

Order of the end: nothing new goes out, what waits goes back, calls already sent finish, the clients close,
the writer writes what is left, the process signs off. Celery's signals say when; `current()` is how a task finds its pipeline.
"""

import asyncio
import contextlib
import logging
import os
import random
import resource
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

from celery.signals import worker_init, worker_ready, worker_shutdown, worker_shutting_down
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from promptmill import logs, settings
from promptmill.broker import celery_app, publish, queue_length, queued_ids
from promptmill.claude.keys import configured_account
from promptmill.errors import PromptmillError, Unavailable
from promptmill.estimates import Estimator
from promptmill.ids import new_id
from promptmill.logs import get_logger
from promptmill.retries import RetryPolicy, after_loss
from promptmill.runtime import Runtime
from workers import pool
from workers.accounts import Accounts, GroupLimits
from workers.consumer import Consumer
from workers.dispatcher import Dispatcher
from workers.experience import Experiences
from workers.heartbeat import Heartbeat
from workers.leader import Leader
from workers.leadership import Leadership
from workers.limit_changes import LimitChanges
from workers.outcomes import Outcomes
from workers.permits import WatchedLimiter
from workers.pipeline import Pipeline
from workers.put_right import Fault, PutRight
from workers.reaper import Reaper
from workers.reconciliation import Reconciliation
from workers.statements import lock_jobs, pause_held, store_statements
from workers.timekeeping import DatabaseClock
from workers.watchdog import Judge, Signs, Watchdog
from workers.writer import Writer

log = get_logger(__name__)

LIMITER_BEAT_S = 5.0
LOOK_S = 1.0
PEEK_S = 2.0
REDIS_PATIENCE_S = 5.0
ABANDON_S = 8.0
"""Seconds for the jobs of a process whose main thread hangs to be handed back."""
SPARE_FILES = 256
"""Files and sockets beside those of the calls: database, Redis, logs."""


class WorkerProcess:
    """Everything one worker process holds."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.id = new_id("worker")
        self.clock = DatabaseClock()
        worker = runtime.settings.worker
        self.writer = Writer(
            runtime.database.begin,
            store_statements(self.id, self.clock),
            prepare=lock_jobs,
            rows=worker.commit_rows,
            delay=worker.commit_delay_s,
        )
        self.redis = Redis.from_url(
            runtime.redis_url,
            socket_timeout=REDIS_PATIENCE_S,
            socket_connect_timeout=REDIS_PATIENCE_S,
            retry=Retry(NoBackoff(), 0),  # the next round is the retry
        )
        self.keys = runtime.keys()
        self.heartbeat = Heartbeat(
            database=runtime.database,
            worker_id=self.id,
            endpoint=runtime.endpoint_name,
            slots=worker.concurrency,
            clock=self.clock,
            running=lambda: self.pipeline.in_flight if self.pipeline else 0,
            every=worker.heartbeat_s,
        )
        self.limit_changes = LimitChanges()
        self.experiences = Experiences(runtime.database, self.clock)
        self.put_right = PutRight(self.redis)
        self._after_loss = partial(
            after_loss,
            max_losses=worker.max_losses,
            rng=random.Random(),  # noqa: S311  # jitter, not a secret
        )
        self.leader = self._leader()
        self.pipeline: Pipeline | None = None
        self.watchdog: Watchdog | None = None
        self.on_hand: Counter[str] = Counter()
        self._repeating: list[asyncio.Task[None]] = []
        self._draining = False
        self._stopped = False

    def start(self) -> None:
        """Sign in and begin to write; jobs come only after this."""
        self.writer.start()
        self.heartbeat.start()
        self.experiences.start()
        self._say_idle_limits()
        log.info("worker_started", worker_id=self.id, endpoint=self.runtime.endpoint_name)

    def _say_idle_limits(self) -> None:
        """A misspelt account would leave its limits without a word."""
        accounts = {configured_account(key.account) for key in self.runtime.read_keys()}
        if accounts and (idle := self.runtime.settings.limits.not_among(accounts)):
            log.warning("limits_of_no_account", entries=idle, accounts=sorted(accounts))

    async def open_on_loop(self) -> None:
        """Make what belongs to the event loop."""
        worker = self.runtime.settings.worker
        self.limiter = WatchedLimiter(
            self.runtime.redis_url, ceilings=self.runtime.ceilings_of, process=self.id
        )
        self.client = self.runtime.client()
        estimator = Estimator(self.runtime.prices, self.runtime.catalogue)
        self.experiences.attend(asyncio.get_running_loop(), estimator.teach)
        rng = random.Random()  # noqa: S311  # jitter, not a secret
        outcomes = Outcomes(
            writer=self.writer,
            prices=self.runtime.prices,
            policy=RetryPolicy(worker.max_attempts, timedelta(seconds=worker.outage_s)),
            clock=self.clock,
            rng=rng,
            keys=self.keys,
            pause=lambda held: pause_held(self.runtime.database, held, self.clock),
        )
        self.pipeline = Pipeline(
            outcomes=outcomes,
            limiter=self.limiter,
            client=self.client,
            accounts=Accounts(self.keys, self.runtime.read_keys, self.limiter.peek, self.clock),
            estimator=estimator,
            meet=self.experiences.meet,
            serves=lambda job: job.endpoint == self.runtime.endpoint_name,
            patience=self.runtime.settings.worker.patience_s,
        )
        self._repeating = [
            asyncio.create_task(_repeat(self.limiter.beat, LIMITER_BEAT_S)),
            asyncio.create_task(_repeat(self.pipeline.accounts.look, LOOK_S)),
            asyncio.create_task(_repeat(self._reconciliation().compare, worker.reconcile_s)),
        ]

    async def answer(self, job_id: str, dispatch: int) -> None:
        """Answer one job; while this runs, the job is on hand. See `Pipeline.answer`."""
        if self.pipeline is None:
            raise RuntimeError("the worker's event loop has not been opened")
        self.on_hand[job_id] += 1
        try:
            await self.pipeline.answer(job_id, dispatch)
        finally:
            self.on_hand[job_id] -= 1
            if not self.on_hand[job_id]:
                del self.on_hand[job_id]

    def watch(self, consumer: Any) -> None:
        """Begin to watch that Celery's consumer takes messages."""
        worker = self.runtime.settings.worker
        self.watchdog = Watchdog(
            judge=Judge(deaf_after=worker.deaf_after_s, hung_after=worker.hung_after_s),
            signs=lambda: self._signs(consumer),
            restart=partial(self._restart, consumer),
            end=lambda: os.kill(os.getpid(), signal.SIGTERM),
            abandon=partial(self._abandon, consumer),
        )
        self.watchdog.start()

    def _signs(self, consumer: Any) -> Signs:
        try:
            waiting = queue_length(self.redis) > 0
        except Unavailable:
            waiting = None
        return Signs(consumer.turns, consumer.taken, free=consumer.pool.has_free_slot, waiting=waiting)

    def _restart(self, consumer: Any) -> None:
        self.put_right.note(Fault.DEAF_CONSUMER, 1)
        consumer.restart()

    def _abandon(self, consumer: Any) -> None:
        """End without the main thread: hand back what runs, write it, sign off. On the watchdog's thread."""
        self.drain()
        consumer.pool.cancel_running()
        deadline = time.monotonic() + ABANDON_S
        while self.on_hand and time.monotonic() < deadline:
            time.sleep(LOOK_S / 10)
        self.stop()
        logging.shutdown()
        os._exit(os.EX_SOFTWARE)

    async def close_on_loop(self) -> None:
        """Close what belongs to the event loop."""
        for task in self._repeating:
            task.cancel()
        await asyncio.gather(*self._repeating, return_exceptions=True)
        await self.client.aclose()
        await self.limiter.aclose()
        await asyncio.to_thread(self.stop)

    def drain(self) -> None:
        """Begin nothing more; what a second signal asks for is the pool's to do.

        Runs in a handler, perhaps in the middle of itself, so it must neither wait nor take a lock twice.
        """
        if self._draining:
            return
        self._draining = True
        if self.watchdog is not None:
            self.watchdog.stand_down()
        self.leader.step_down()
        if self.pipeline is not None:
            pool.current_loop().call_soon_threadsafe(self.pipeline.drain)

    def stop(self) -> None:
        """Write what is left and sign off; once."""
        if self._stopped:
            return
        self._stopped = True
        self.leader.stop()
        self.experiences.stop()
        self.writer.stop()
        self.heartbeat.stop()
        self.redis.close()

    def _leader(self) -> Leader:
        runtime = self.runtime
        worker = runtime.settings.worker
        app = celery_app(runtime.redis_url)
        dispatcher = Dispatcher(
            database=runtime.database,
            redis=self.redis,
            publish=lambda tickets: publish(app, tickets),
            limits_of=self._limits_of,
            experience_of=self.experiences.of,
            endpoint=runtime.endpoint_name,
            clock=self.clock,
        )
        reaper = Reaper(
            database=runtime.database,
            present=lambda: queued_ids(self.redis),
            clock=self.clock,
            steady_for=self.heartbeat.steady_for,
            after_loss=self._after_loss,
            found=self.put_right.note,
            settle_s=2 * worker.heartbeat_s,
            taken_for=worker.patience_s + worker.dead_after_s,
            dead_after=worker.dead_after_s,
        )
        return Leader(
            leadership=Leadership(self.redis, self.id, runtime.endpoint_name),
            dispatcher=dispatcher,
            reaper=reaper,
            redis_url=runtime.redis_url,
            clock=self.clock,
        )

    def _reconciliation(self) -> Reconciliation:
        return Reconciliation(
            database=self.runtime.database,
            redis=self.redis,
            limiter=self.limiter,
            worker_id=self.id,
            on_hand=lambda: self.on_hand,
            after_loss=self._after_loss,
            put_right=self.put_right,
        )

    def _limits_of(self, group: str) -> GroupLimits:
        """What the limiter says now, asked from the dispatcher's thread; nothing known when it cannot say."""
        if self.pipeline is None:
            return GroupLimits()
        asking = self.pipeline.accounts.limits_of(group)
        try:
            limits, states = asyncio.run_coroutine_threadsafe(asking, pool.current_loop()).result(PEEK_S)
        except (TimeoutError, PromptmillError) as error:
            log.warning("limits_unknown", group=group, error=type(error).__name__)
            return GroupLimits()
        self.limit_changes.look(states)
        return limits


async def _repeat(act: Callable[[], Awaitable[None]], every: float) -> None:
    """Do something again and again. A round that fails is logged: the next may go well, and nobody else does it."""
    while True:
        try:
            await act()
        except Exception as error:  # noqa: BLE001  # without a beat, this process's permits would be taken away
            log.warning("round_missed", act=act.__name__, error=type(error).__name__)
        await asyncio.sleep(every)


_process: WorkerProcess | None = None
_resources = contextlib.ExitStack()


async def answer(job_id: str, dispatch: int) -> None:
    """Answer one job in this process; see `Pipeline.answer`."""
    await current().answer(job_id, dispatch)


def current() -> WorkerProcess:
    """The worker process this code runs in.

    Raises:
        RuntimeError: no worker has been started here.
    """
    if _process is None:
        raise RuntimeError("no worker has been started in this process")
    return _process


@worker_init.connect
def _open(**_: Any) -> None:
    global _process  # noqa: PLW0603  # one worker per process; tasks find it here
    try:
        config = settings.load()
        logs.configure(level=config.log_level, style=config.log_format)
        runtime = _resources.enter_context(Runtime.open(config))
        _raise_file_limit(config.worker.concurrency)
        _process = WorkerProcess(runtime)
        _process.start()
    except PromptmillError as error:
        # Celery logs and forgets an exception of a signal, and would run a worker that can do nothing.
        raise SystemExit(f"promptmill worker: {logs.scrub(str(error))}") from error


def _raise_file_limit(calls: int) -> None:
    """Every call in flight is a socket; the usual soft limit of 1,024 files would end a worker of that size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = calls + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        log.warning("file_limit_too_low", limit=hard, wanted=wanted)
        wanted = hard
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@pool.on_loop_start
async def _open_on_loop() -> None:
    await current().open_on_loop()


@worker_ready.connect
def _lead(sender: Any, **_: Any) -> None:
    current().leader.start()
    if isinstance(sender, Consumer):
        current().watch(sender)


@worker_shutting_down.connect
def _drain(**_: Any) -> None:
    current().drain()


@pool.on_loop_stop
async def _close_on_loop() -> None:
    await current().close_on_loop()


@worker_shutdown.connect
def _close(**_: Any) -> None:
    # After a cold shutdown Celery does not send this; the loop's stop hook has done the work by then.
    current().stop()
    _resources.close()
