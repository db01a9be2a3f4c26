"""What of a worker process belongs to its event loop: limiter, client, keys, the way of a job, and what is repeated.

The idea to keep in mind: all of it is made on the loop and closed on it, the last first. Other threads may call
`limits_of`, `in_flight` and `drain` at any time, before it is open too.
"""

import asyncio
import contextlib
import random
from datetime import timedelta

from redis.exceptions import RedisError

from promptmill.errors import PromptmillError
from promptmill.estimates import Estimator
from promptmill.logs import get_logger
from promptmill.retries import RetryPolicy
from workers import pool
from workers.accounts import Accounts, GroupLimits
from workers.holding import pause_held, resume_for_key, resume_for_opened
from workers.key_watch import KeyWatch
from workers.limit_changes import LimitChanges
from workers.other_keys import OtherKeys
from workers.outcomes import Outcomes
from workers.parts import Parts
from workers.permits import WatchedLimiter
from workers.pipeline import Pipeline
from workers.reconciliation import Reconciliation
from workers.repeating import Repeating
from workers.reports import Reports
from workers.without_key import WithoutKey

log = get_logger(__name__)

LIMITER_BEAT_S = 5.0
LOOK_S = 1.0
PEEK_S = 2.0


class LoopSide:
    """The loop's side of one process.

    Attributes:
        pipeline: None until it is open.
        limiter: likewise there once it is open.
    """

    limiter: WatchedLimiter

    def __init__(self, parts: Parts, reports: Reports) -> None:
        self._parts = parts
        self._reports = reports
        self.pipeline: Pipeline | None = None
        self._limit_changes = LimitChanges()
        self._resources = contextlib.AsyncExitStack()

    async def open(self) -> Pipeline:
        """Make it, on the loop."""
        runtime, closing = self._parts.runtime, self._resources.push_async_callback
        self.limiter = WatchedLimiter(
            runtime.redis_url, ceilings=runtime.ceilings_of, process=self._parts.worker_id
        )
        closing(self.limiter.aclose)
        client = runtime.client()
        closing(client.aclose)
        key_watch = self._key_watch()
        closing(key_watch.stop)
        await key_watch.start()
        accounts = Accounts(self._parts.keys, key_watch.read_soon, self.limiter.peek, self._parts.clock)
        self.pipeline = Pipeline(
            outcomes=self._outcomes(),
            limiter=self.limiter,
            client=client,
            accounts=accounts,
            estimator=self._estimator(),
            meet=self._parts.experiences.meet,
            serves=lambda job: job.endpoint == runtime.endpoint_name,
            patience=runtime.settings.worker.patience_s,
        )
        closing(self._repeating(accounts).stop)
        return self.pipeline

    async def close(self) -> None:
        """Close it, on the loop; as much as was made."""
        await self._resources.aclose()

    def drain(self) -> None:
        """Begin nothing more. From any thread, a signal's handler too."""
        if self.pipeline is not None:
            pool.current_loop().call_soon_threadsafe(self.pipeline.drain)

    def in_flight(self) -> int:
        """How many calls have been sent and not ended."""
        return self.pipeline.in_flight if self.pipeline else 0

    def limits_of(self, group: str) -> GroupLimits:
        """What the limiter says now, asked from the dispatcher's thread; nothing known when it cannot say."""
        if self.pipeline is None:
            return GroupLimits()
        asking = self.pipeline.accounts.limits_of(group)
        try:
            limits, states = asyncio.run_coroutine_threadsafe(asking, pool.current_loop()).result(PEEK_S)
        except (TimeoutError, PromptmillError) as error:
            log.warning("limits_unknown", group=group, error=type(error).__name__)
            return GroupLimits()
        self._limit_changes.look(states)
        return limits

    def _repeating(self, accounts: Accounts) -> Repeating:
        worker, reports, repeating = self._parts.runtime.settings.worker, self._reports, Repeating()
        repeating.begin(self.limiter.beat, LIMITER_BEAT_S)
        repeating.begin(accounts.look, LOOK_S)
        for tell in (reports.tell_in_hand, reports.tell_vitals, reports.tell_keys, reports.tell_refused):
            repeating.begin(tell, worker.heartbeat_s)
        repeating.begin(self._reconciliation().compare, worker.reconcile_s)
        if self._parts.runtime.database.key_ids:
            repeating.begin(self._take_up_opened, worker.heartbeat_s)
        return repeating

    def _estimator(self) -> Estimator:
        estimator = Estimator(self._parts.runtime.prices, self._parts.runtime.catalogue)
        self._parts.experiences.attend(asyncio.get_running_loop(), estimator.teach)
        return estimator

    def _outcomes(self) -> Outcomes:
        parts, runtime = self._parts, self._parts.runtime
        worker = runtime.settings.worker
        return Outcomes(
            writer=parts.writer,
            prices=runtime.prices,
            policy=RetryPolicy(worker.max_attempts, timedelta(seconds=worker.outage_s)),
            clock=parts.clock,
            rng=random.Random(),  # noqa: S311  # jitter, not a secret
            keys=parts.keys,
            without_key=self._without_key(),
        )

    def _without_key(self) -> WithoutKey:
        parts, runtime = self._parts, self._parts.runtime
        return WithoutKey(
            keys=parts.keys,
            clock=parts.clock,
            pause=lambda held: pause_held(runtime.database, held, parts.clock),
            others=OtherKeys(
                parts.redis, parts.worker_id, runtime.endpoint_name, parts.key_states, parts.key_report
            ),
            standing_back=parts.standing_back,
        )

    def _key_watch(self) -> KeyWatch:
        return KeyWatch(
            ring=self._parts.keys,
            declared=self._parts.runtime.declared_keys,
            go_on=self._go_on,
            clock=self._parts.clock,
        )

    async def _go_on(self) -> None:
        """There is a new key. It is told first, so that nobody pauses meanwhile what it lets go on."""
        self._parts.standing_back.over()
        with contextlib.suppress(RedisError):
            await self._reports.tell_keys()
        runtime = self._parts.runtime
        await asyncio.to_thread(resume_for_key, runtime.database, runtime.endpoint_name)

    async def _take_up_opened(self) -> None:
        runtime = self._parts.runtime
        await asyncio.to_thread(resume_for_opened, runtime.database, runtime.endpoint_name)

    def _reconciliation(self) -> Reconciliation:
        parts = self._parts
        return Reconciliation(
            database=parts.runtime.database,
            redis=parts.redis,
            limiter=self.limiter,
            worker_id=parts.worker_id,
            on_hand=lambda: parts.on_hand,
            put_right=parts.put_right,
        )
