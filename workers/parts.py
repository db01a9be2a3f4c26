"""The parts of a worker process that last from its start to its end: built and wired here, begun by nobody yet.

The idea to keep in mind: here is what stands on nothing that comes later. What needs the event loop is in
`workers.loop_side`, what needs Celery's consumer in `workers.consumer_watch`; `workers.process` says when.
"""

from collections import Counter
from collections.abc import Sequence

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from promptmill.broker import celery_app, is_redis, nudge
from promptmill.claude.keys import KeyState
from promptmill.ids import new_id
from promptmill.runtime import Runtime
from workers.broker_queue import BrokerQueue, ForeignQueue, RedisQueue
from workers.experience import Experiences
from workers.hands import Hands
from workers.key_report import KeyReport
from workers.other_keys import StandingBack
from workers.put_right import PutRight
from workers.recurring import RecurringRuns
from workers.run_submission import RunSubmission
from workers.spans import Traces
from workers.statements import lock_jobs, size_of, store_statements
from workers.timekeeping import DatabaseClock
from workers.writer import Writer

REDIS_PATIENCE_S = 5.0


class Parts:
    """What one worker process is made of.

    Attributes:
        on_hand: how often each job is being worked on now, from before its lease until after its end.
        queue: for the leader's thread.
        watched_queue: for the watchdog's.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.worker_id = new_id("worker")
        self.on_hand: Counter[str] = Counter()
        self.clock = DatabaseClock()
        self.writer = self._writer()
        self.redis = _redis(runtime.redis_url)
        self.app = celery_app(runtime.redis_url, runtime.settings.broker_url)
        self.queue = self._queue()
        self.watched_queue = self._queue()
        self.hands = Hands(self.redis)
        self.keys = runtime.keys()
        self.key_report = KeyReport(
            self.redis, self.worker_id, runtime.endpoint_name, runtime.database.key_ids
        )
        self.standing_back = StandingBack()
        self.traces = Traces.open(runtime.settings.tracing, worker_id=self.worker_id)
        self.experiences = Experiences(runtime.database, self.clock)
        self.put_right = PutRight(self.redis)
        self.recurring = RecurringRuns(
            runtime, RunSubmission(runtime, self.clock), lambda: nudge(runtime.redis_url)
        )

    def key_states(self) -> Sequence[KeyState]:
        """How the keys of this process stand now."""
        return self.keys.states(self.clock.now())

    def close(self) -> None:
        """Close the connections; after everything that uses them has stopped."""
        self.queue.close()
        self.watched_queue.close()
        self.redis.close()

    def _writer(self) -> Writer:
        worker = self.runtime.settings.worker
        return Writer(
            self.runtime.database.begin,
            store_statements(self.worker_id, self.clock),
            prepare=lock_jobs,
            size=size_of,
            rows=worker.commit_rows,
            delay=worker.commit_delay_s,
        )

    def _queue(self) -> BrokerQueue:
        elsewhere = self.runtime.settings.broker_url
        if elsewhere is None:
            return RedisQueue(self.redis)
        return RedisQueue(_redis(elsewhere)) if is_redis(elsewhere) else ForeignQueue(self.app)


def _redis(url: str) -> Redis:
    return Redis.from_url(
        url,
        socket_timeout=REDIS_PATIENCE_S,
        socket_connect_timeout=REDIS_PATIENCE_S,
        retry=Retry(NoBackoff(), 0),  # the next round is the retry
    )
