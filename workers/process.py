"""Everything one worker process holds, from its start to its end.

Order of the end: nothing new goes out, what waits goes back, calls already sent finish, the clients close, the writer
writes what is left, the process signs off. `workers.lifecycle` says when.
"""

import asyncio
import contextlib
import logging
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from promptmill.broker import celery_app, is_redis, nudge, publish
from promptmill.claude.keys import KeyState, configured_account
from promptmill.errors import PromptmillError, Unavailable
from promptmill.estimates import Estimator
from promptmill.ids import new_id
from promptmill.logs import get_logger
from promptmill.retention import Retention
from promptmill.retries import RetryPolicy, after_loss
from promptmill.runtime import Runtime
from promptmill.states import JobState
from workers import pool
from workers.accounts import Accounts, GroupLimits
from workers.broker_queue import BrokerQueue, ForeignQueue, RedisQueue
from workers.dispatcher import Dispatcher
from workers.experience import Experiences
from workers.hands import Hands, InHand
from workers.heartbeat import Heartbeat
from workers.holding import pause_held, resume_for_key
from workers.key_report import KeyReport
from workers.key_watch import KeyWatch
from workers.leader import Leader
from workers.leadership import Leadership
from workers.limit_changes import LimitChanges
from workers.notices import Herald
from workers.other_keys import OtherKeys, StandingBack
from workers.outcomes import Outcomes
from workers.permits import WatchedLimiter
from workers.pipeline import Pipeline
from workers.put_right import Fault, PutRight, RefusedMessages
from workers.reaper import Reaper
from workers.reconciliation import Reconciliation
from workers.recurring import RecurringRuns
from workers.refusals import refused
from workers.run_submission import RunSubmission
from workers.spans import Traces
from workers.statements import lock_jobs, size_of, store_statements
from workers.timekeeping import DatabaseClock
from workers.upkeep import Upkeep
from workers.vitals import Vitals
from workers.watchdog import Judge, Signs, Watchdog
from workers.writer import Writer

log = get_logger(__name__)

LIMITER_BEAT_S = 5.0
LOOK_S = 1.0
PEEK_S = 2.0
REDIS_PATIENCE_S = 5.0
ABANDON_S = 8.0
"""Seconds for the jobs of a process whose main thread hangs to be handed back."""
CALL_SLACK_S = 90.0
"""Above the client's own timeout of a call, when Celery ends its task; see `celeryconfig`."""


class WorkerProcess:
    """Everything one worker process holds."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.id = new_id("worker")
        self.clock = DatabaseClock()
        self.writer = self._writer()
        self.redis = _redis(runtime.redis_url)
        self.app = celery_app(runtime.redis_url, runtime.settings.broker_url)
        self.queue = self._queue()  # for the leader's thread
        self.watched_queue = self._queue()  # for the watchdog's
        self.hands = Hands(self.redis)
        self.keys = runtime.keys()
        self.key_report = KeyReport(self.redis, self.id, runtime.endpoint_name)
        self.standing_back = StandingBack()
        self.heartbeat = self._heartbeat()
        self.traces = Traces.open(runtime.settings.tracing, worker_id=self.id)
        self.limit_changes = LimitChanges()
        self.experiences = Experiences(runtime.database, self.clock)
        self.put_right = PutRight(self.redis)
        self.refused_messages = RefusedMessages(self.redis, refused.take)
        self._after_loss = partial(
            after_loss,
            max_losses=runtime.settings.worker.max_losses,
            rng=random.Random(),  # noqa: S311  # jitter, not a secret
        )
        self.recurring = RecurringRuns(
            runtime, RunSubmission(runtime, self.clock), lambda: nudge(runtime.redis_url)
        )
        self.leader = self._leader()
        self.pipeline: Pipeline | None = None
        self.watchdog: Watchdog | None = None
        self.on_hand: Counter[str] = Counter()
        self._handed_over: Callable[[], frozenset[str]] = frozenset
        self._tell_of_lost: Callable[[Mapping[str, JobState]], None] = lambda _states: None
        self._repeating: list[asyncio.Task[None]] = []
        self._draining = False
        self._stopping = threading.RLock()
        self._stopped = False

    def start(self) -> None:
        """Sign in and begin to write; jobs come only after this."""
        self.writer.start()
        self.heartbeat.start()
        self.experiences.start()
        self.recurring.start()
        self._say_idle_limits()
        log.info("worker_started", worker_id=self.id, endpoint=self.runtime.endpoint_name)

    def _say_idle_limits(self) -> None:
        """A misspelt account would leave its limits without a word."""
        accounts = {configured_account(key.account) for key in self.runtime.declared_keys()}
        if accounts and (idle := self.runtime.settings.limits.not_among(accounts)):
            log.warning("limits_of_no_account", entries=idle, accounts=sorted(accounts))

    async def open_on_loop(self) -> None:
        """Make what belongs to the event loop."""
        worker = self.runtime.settings.worker
        self.limiter = WatchedLimiter(
            self.runtime.redis_url, ceilings=self.runtime.ceilings_of, process=self.id
        )
        self.client = self.runtime.client()
        self.key_watch = self._key_watch()
        await self.key_watch.start()
        self.pipeline = self._pipeline()
        self._repeating = [
            asyncio.create_task(_repeat(self.limiter.beat, LIMITER_BEAT_S)),
            asyncio.create_task(_repeat(self.pipeline.accounts.look, LOOK_S)),
            asyncio.create_task(_repeat(self._tell_on_hand, worker.heartbeat_s)),
            asyncio.create_task(_repeat(self._tell_vitals, worker.heartbeat_s)),
            asyncio.create_task(_repeat(self._tell_keys, worker.heartbeat_s)),
            asyncio.create_task(_repeat(self._tell_refused, worker.heartbeat_s)),
            asyncio.create_task(_repeat(self._reconciliation().compare, worker.reconcile_s)),
        ]

    async def _tell_on_hand(self) -> None:
        """So that nobody takes for lost what waits here for its turn."""
        at = await asyncio.to_thread(self.hands.now)
        await asyncio.to_thread(
            self.hands.tell, self.id, InHand(at, self._handed_over() | frozenset(self.on_hand))
        )

    async def _tell_keys(self) -> None:
        await asyncio.to_thread(self.key_report.tell, self._key_states())

    def _key_states(self) -> list[KeyState]:
        return self.keys.states(self.clock.now())

    async def _go_on(self) -> None:
        """There is a new key. It is told first, so that nobody pauses meanwhile what it lets go on."""
        self.standing_back.over()
        with contextlib.suppress(RedisError):
            await self._tell_keys()
        await asyncio.to_thread(resume_for_key, self.runtime.database, self.runtime.endpoint_name)

    async def _tell_refused(self) -> None:
        await asyncio.to_thread(self.refused_messages.tell)

    async def _tell_vitals(self) -> None:
        await asyncio.to_thread(Vitals(self.redis, self.id, pool.worst_lag).tell)

    def _pipeline(self) -> Pipeline:
        worker = self.runtime.settings.worker
        estimator = Estimator(self.runtime.prices, self.runtime.catalogue)
        self.experiences.attend(asyncio.get_running_loop(), estimator.teach)
        outcomes = Outcomes(
            writer=self.writer,
            prices=self.runtime.prices,
            policy=RetryPolicy(worker.max_attempts, timedelta(seconds=worker.outage_s)),
            clock=self.clock,
            rng=random.Random(),  # noqa: S311  # jitter, not a secret
            keys=self.keys,
            pause=lambda held: pause_held(self.runtime.database, held, self.clock),
            others=OtherKeys(
                self.redis, self.id, self.runtime.endpoint_name, self._key_states, self.key_report
            ),
            standing_back=self.standing_back,
        )
        return Pipeline(
            outcomes=outcomes,
            limiter=self.limiter,
            client=self.client,
            accounts=Accounts(self.keys, self.key_watch.read_soon, self.limiter.peek, self.clock),
            estimator=estimator,
            meet=self.experiences.meet,
            serves=lambda job: job.endpoint == self.runtime.endpoint_name,
            patience=worker.patience_s,
        )

    async def answer(self, job_id: str, dispatch: int) -> None:
        """Answer one job; while this runs, the job is on hand. See `Pipeline.answer`."""
        if self.pipeline is None:
            raise RuntimeError("the worker's event loop has not been opened")
        self.on_hand[job_id] += 1
        try:
            answering = self.pipeline.answer(job_id, dispatch)
            await (self.traces.follow(answering, job_id, dispatch) if self.traces else answering)
        finally:
            self.on_hand[job_id] -= 1
            if not self.on_hand[job_id]:
                del self.on_hand[job_id]

    def watch(self, consumer: Any) -> None:
        """Begin to watch that Celery's consumer takes messages."""
        worker = self.runtime.settings.worker
        self._handed_over = lambda: consumer.task_ids
        consumer.standing_back = self.standing_back
        self._tell_of_lost = consumer.tell_of_lost
        self.watchdog = Watchdog(
            judge=Judge(deaf_after=worker.deaf_after_s, hung_after=worker.hung_after_s),
            signs=lambda: self._signs(consumer),
            restart=partial(self._restart, consumer),
            end=lambda: os.kill(os.getpid(), signal.SIGTERM),
            abandon=partial(self._abandon, consumer),
            on_hand=lambda: len(self.on_hand),
            longest_call=self.runtime.settings.claude.total_timeout_s + CALL_SLACK_S,
        )
        self.watchdog.start()

    def _signs(self, consumer: Any) -> Signs:
        try:
            waiting = self.watched_queue.length() > 0
        except Unavailable:
            waiting = None
        free = consumer.pool.has_free_slot and consumer.is_subscribed and not self.standing_back.is_on
        return Signs(consumer.turns, consumer.taken, free=free, waiting=waiting)

    def _restart(self, consumer: Any) -> None:
        self.put_right.note(Fault.DEAF_CONSUMER, 1)
        consumer.restart()

    def _abandon(self, consumer: Any) -> None:
        """Hand back what runs, write it, sign off: what can be done without the main thread. On the watchdog's."""
        self.drain()
        consumer.pool.cancel_running()
        deadline = time.monotonic() + ABANDON_S
        while self.on_hand and time.monotonic() < deadline:
            time.sleep(LOOK_S / 10)
        self.stop()
        logging.shutdown()

    async def close_on_loop(self) -> None:
        """Close what belongs to the event loop."""
        for task in self._repeating:
            task.cancel()
        await asyncio.gather(*self._repeating, return_exceptions=True)
        await self.key_watch.stop()
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
        self.recurring.step_down()
        if self.pipeline is not None:
            pool.current_loop().call_soon_threadsafe(self.pipeline.drain)

    def stop(self) -> None:
        """Write what is left and sign off; once. Whoever comes second waits for the first: the process may end then."""
        with self._stopping:
            if self._stopped:
                return
            self._stopped = True
            self.leader.stop()
            self.recurring.stop()
            self.experiences.stop()
            self.writer.stop()
            self.heartbeat.stop()
            if self.traces is not None:
                self.traces.close()
            self.refused_messages.tell()
            self.key_report.leave()
            self.queue.close()
            self.watched_queue.close()
            self.redis.close()

    def _queue(self) -> BrokerQueue:
        elsewhere = self.runtime.settings.broker_url
        if elsewhere is None:
            return RedisQueue(self.redis)
        return RedisQueue(_redis(elsewhere)) if is_redis(elsewhere) else ForeignQueue(self.app)

    def _key_watch(self) -> KeyWatch:
        return KeyWatch(
            ring=self.keys,
            declared=self.runtime.declared_keys,
            go_on=self._go_on,
            clock=self.clock,
        )

    def _writer(self) -> Writer:
        worker = self.runtime.settings.worker
        return Writer(
            self.runtime.database.begin,
            store_statements(self.id, self.clock),
            prepare=lock_jobs,
            size=size_of,
            rows=worker.commit_rows,
            delay=worker.commit_delay_s,
        )

    def _heartbeat(self) -> Heartbeat:
        worker = self.runtime.settings.worker
        return Heartbeat(
            database=self.runtime.database,
            worker_id=self.id,
            endpoint=self.runtime.endpoint_name,
            slots=worker.concurrency,
            clock=self.clock,
            running=lambda: self.pipeline.in_flight if self.pipeline else 0,
            every=worker.heartbeat_s,
        )

    def _leader(self) -> Leader:
        runtime = self.runtime
        dispatcher = Dispatcher(
            database=runtime.database,
            redis=self.redis,
            publish=lambda tickets: publish(self.app, tickets),
            limits_of=self._limits_of,
            experience_of=self.experiences.of,
            endpoint=runtime.endpoint_name,
            clock=self.clock,
        )
        return Leader(
            leadership=Leadership(self.redis, self.id, runtime.endpoint_name),
            dispatcher=dispatcher,
            reaper=self._reaper(),
            upkeep=self._upkeep(),
            redis_url=runtime.redis_url,
            clock=self.clock,
            wake_recurring=self.recurring.wake,
        )

    def _upkeep(self) -> Upkeep:
        runtime, kept = self.runtime, self.runtime.settings.retention
        herald = Herald(runtime.database, runtime.webhook_secrets(), runtime.settings.webhook.allowed)
        days = Retention(kept.prompts_days, kept.answers_days, kept.everything_days)
        return Upkeep(runtime.database, herald, days, self.clock)

    def _reaper(self) -> Reaper:
        worker = self.runtime.settings.worker
        return Reaper(
            database=self.runtime.database,
            present=self.queue.ids,
            broker_now=self.hands.now,
            hands=self.hands.of,
            clock=self.clock,
            steady_for=self.heartbeat.steady_for,
            after_loss=self._after_loss,
            found=self.put_right.note,
            lost=lambda states: self._tell_of_lost(states),  # noqa: PLW0108  # there is a consumer later
            settle_s=2 * worker.heartbeat_s,
            taken_for=worker.patience_s + worker.dead_after_s,
            dead_after=worker.dead_after_s,
        )

    def _reconciliation(self) -> Reconciliation:
        return Reconciliation(
            database=self.runtime.database,
            redis=self.redis,
            limiter=self.limiter,
            worker_id=self.id,
            on_hand=lambda: self.on_hand,
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


def _redis(url: str) -> Redis:
    return Redis.from_url(
        url,
        socket_timeout=REDIS_PATIENCE_S,
        socket_connect_timeout=REDIS_PATIENCE_S,
        retry=Retry(NoBackoff(), 0),  # the next round is the retry
    )


async def _repeat(act: Callable[[], Awaitable[None]], every: float) -> None:
    """Do something again and again. A round that fails is logged: the next may go well, and nobody else does it."""
    while True:
        try:
            await act()
        except Exception as error:  # noqa: BLE001  # without a beat, this process's permits would be taken away
            log.warning("round_missed", act=act.__name__, error=type(error).__name__)
        await asyncio.sleep(every)
