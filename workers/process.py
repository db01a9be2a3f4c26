"""The life of one worker process: what begins when, and what ends after what.

Order of the end: nothing new goes out, what waits goes back, calls already sent finish, the clients close, the writer
writes what is left, the process signs off. `workers.lifecycle` says when; `workers.parts` holds what it is made of.
"""

import asyncio
import logging
import threading
import time
from functools import partial
from typing import Any

from promptmill.claude.keys import configured_account
from promptmill.logs import get_logger
from promptmill.runtime import Runtime
from workers.consumer_watch import ConsumerWatch
from workers.heartbeat import Heartbeat
from workers.leading import leader_of
from workers.loop_side import LoopSide
from workers.parts import Parts
from workers.pipeline import Pipeline
from workers.reports import Reports

log = get_logger(__name__)

ABANDON_S = 8.0
"""Seconds for the jobs of a process whose main thread hangs to be handed back."""
ABANDON_LOOK_S = 0.1


class WorkerProcess:
    """Everything one worker process holds."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.parts = Parts(runtime)
        self.traces = self.parts.traces
        self.on_hand = self.parts.on_hand
        self.recurring = self.parts.recurring
        self.consumer_watch = ConsumerWatch(self.parts)
        self.reports = Reports(self.parts, self.consumer_watch.handed_over)
        self.loop_side = LoopSide(self.parts, self.reports)
        self.heartbeat = self._heartbeat()
        self.leader = leader_of(
            self.parts,
            self.heartbeat,
            limits_of=self.loop_side.limits_of,
            lost=self.consumer_watch.tell_of_lost,
        )
        self.pipeline: Pipeline | None = None
        self._draining = False
        self._stopping = threading.RLock()
        self._stopped = False

    def start(self) -> None:
        """Sign in and begin to write; jobs come only after this."""
        self.parts.writer.start()
        self.heartbeat.start()
        self.parts.experiences.start()
        self.recurring.start()
        self._say_idle_limits()
        log.info("worker_started", worker_id=self.parts.worker_id, endpoint=self.runtime.endpoint_name)

    async def open_on_loop(self) -> None:
        """Make what belongs to the event loop."""
        self.pipeline = await self.loop_side.open()

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
        self.consumer_watch.begin(consumer, abandon=partial(self._abandon, consumer))

    async def close_on_loop(self) -> None:
        """Close what belongs to the event loop."""
        await self.loop_side.close()
        await asyncio.to_thread(self.stop)

    def drain(self) -> None:
        """Begin nothing more; what a second signal asks for is the pool's to do.

        Runs in a handler, perhaps in the middle of itself, so it must neither wait nor take a lock twice.
        """
        if self._draining:
            return
        self._draining = True
        self.consumer_watch.stand_down()
        self.leader.step_down()
        self.recurring.step_down()
        self.loop_side.drain()

    def stop(self) -> None:
        """Write what is left and sign off; once. Whoever comes second waits for the first: the process may end then."""
        with self._stopping:
            if self._stopped:
                return
            self._stopped = True
            self.leader.stop()
            self.recurring.stop()
            self.parts.experiences.stop()
            self.parts.writer.stop()
            self.heartbeat.stop()
            if self.traces is not None:
                self.traces.close()
            self.reports.leave()
            self.parts.close()

    def _abandon(self, consumer: Any) -> None:
        """Hand back what runs, write it, sign off: what can be done without the main thread. On the watchdog's."""
        self.drain()
        consumer.pool.cancel_running()
        deadline = time.monotonic() + ABANDON_S
        while self.on_hand and time.monotonic() < deadline:
            time.sleep(ABANDON_LOOK_S)
        self.stop()
        logging.shutdown()

    def _say_idle_limits(self) -> None:
        """A misspelt account would leave its limits without a word."""
        accounts = {configured_account(key.account) for key in self.runtime.declared_keys()}
        if accounts and (idle := self.runtime.settings.limits.not_among(accounts)):
            log.warning("limits_of_no_account", entries=idle, accounts=sorted(accounts))

    def _heartbeat(self) -> Heartbeat:
        worker = self.runtime.settings.worker
        return Heartbeat(
            database=self.runtime.database,
            worker_id=self.parts.worker_id,
            endpoint=self.runtime.endpoint_name,
            slots=worker.concurrency,
            clock=self.parts.clock,
            running=self.loop_side.in_flight,
            every=worker.heartbeat_s,
        )
