"""`answer(job_id, dispatch)`: the walk of one job, top to bottom.

Everything before `begin` can be dropped without a trace: the job is still `queued`. From `begin` on there
is a lease and an open attempt, and every way out closes the attempt. Between the two stands the one call
to Claude, made once.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from promptmill.claude.client import ClaudeClient
from promptmill.claude.keys import Key, KeyRing
from promptmill.claude.replies import Reply
from promptmill.dimensions import Amounts
from promptmill.errors import (
    ClaudeError,
    ConnectionFailed,
    LimitReached,
    NoUsableKey,
    Overloaded,
    RateLimited,
    RequestTooLarge,
)
from promptmill.estimates import Estimator
from promptmill.limits import Limiter, Permit, Pool
from promptmill.logs import get_logger
from promptmill.prompts import Prompt
from promptmill.states import JobState
from promptmill.store.jobs import LoadedJob
from promptmill.store.leases import Lease
from workers.compose import compose
from workers.outcomes import Outcomes

log = get_logger(__name__)

KEY_ADVICE = "set ANTHROPIC_API_KEY or PROMPTMILL_KEYS_FILE, restart the workers, then resume the batch"
WITHOUT_KEY_S = 15.0
"""How long a job rests when there is no key to call with."""
LONGEST_REST_S = 5.0
"""How long a job rests whose permit would come too late. What the limiter foresees for it may be hours and
change with the next reply; the dispatcher knows the pace, and sends it out again when there is room."""
OTHER_ENDPOINT_S = 5.0
"""How long a job rests that this worker must not answer."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """A job with everything that must be settled once its call is over."""

    job: LoadedJob
    lease: Lease
    key: Key
    permit: Permit


@dataclass(slots=True)
class Pipeline:
    """What a job needs on its way; one per worker process, used by all jobs of its loop."""

    outcomes: Outcomes
    limiter: Limiter
    client: ClaudeClient
    keys: KeyRing
    estimator: Estimator
    serves: Callable[[LoadedJob], bool]
    patience: float = 15.0
    in_flight: int = 0
    _waiting: set["asyncio.Task[object]"] = field(default_factory=set)
    _draining: bool = False

    async def answer(self, job_id: str, dispatch: int) -> None:
        """Answer one job, or put it back, or record why it failed.

        Raises:
            Deferred: the job went back to `pending` (shown as RETRY in Flower).
            Failed: the job has failed for good (shown as FAILURE).
        """
        job = await self.outcomes.load(job_id)
        if job is None or job.state is not JobState.QUEUED or job.dispatch != dispatch:
            return
        if self._draining or not self.serves(job):
            await self.outcomes.put_back(
                job, after=0.0 if self._draining else OTHER_ENDPOINT_S, why="not for this worker now"
            )
        prompt = compose(job)
        estimate = self.estimator.estimate(prompt, family=job.batch_id)
        key, permit = await self._permit(
            job, Amounts(1, estimate.limited_input_tokens, estimate.output_tokens)
        )
        lease = await self.outcomes.begin(job, key, reserved_nanos=estimate.cost_nanos)
        if lease is None:
            await self.limiter.release(permit)
            return
        reply = await self._call(_Begun(job, lease, key, permit), prompt)
        self.estimator.learn(estimate, reply.usage, family=job.batch_id)
        await self.outcomes.complete(job, lease, reply)

    async def _call(self, begun: "_Begun", prompt: Prompt) -> Reply:
        """The one call. Whatever comes of it, the permit is settled; without a reply, so is the job.

        Raises:
            Deferred, Failed: the call failed, and that is committed.
            CancelledError: the task was revoked; the job went back.
        """
        self.in_flight += 1
        try:
            reply = await self.client.create(prompt, begun.key)
        except ClaudeError as failure:
            await self._after_failure(begun, failure)
        except asyncio.CancelledError:
            await self.limiter.settle(begun.permit, None)
            await self.outcomes.hand_back(begun.job, begun.lease)
            raise
        except Exception as error:
            # A time limit of Celery's, or a fault of ours: the lease must not stay with a job nobody works on.
            log.exception("call_broke", job_id=begun.job.id, error=type(error).__name__)
            await self._after_failure(begun, ConnectionFailed(f"the call broke off: {type(error).__name__}"))
        else:
            used = Amounts(1, reply.usage.limited_input_tokens, reply.usage.output_tokens)
            await self.limiter.settle(begun.permit, used, reply.headroom)
            return reply
        finally:
            self.in_flight -= 1

    async def _after_failure(self, begun: "_Begun", failure: ClaudeError) -> NoReturn:
        await self._settle_failure(begun.permit, failure)
        await self.outcomes.follow(begun.job, begun.lease, begun.key, failure)

    def drain(self) -> None:
        """Begin no further call: what waits for a permit goes back. Call it on the loop."""
        self._draining = True
        for task in self._waiting:
            task.cancel()

    async def _permit(self, job: LoadedJob, amounts: Amounts) -> tuple[Key, Permit]:
        """A key and the right to call now; or the job goes back, or fails."""
        try:
            key = self.keys.pick(job.model_group)
            return key, await self._wait_for_permit(Pool(key.account, job.model_group), amounts)
        except NoUsableKey as error:
            await self.outcomes.hold(job, f"{error}; {KEY_ADVICE}")
            await self.outcomes.put_back(job, after=WITHOUT_KEY_S, why=str(error))
        except RequestTooLarge as error:
            await self.outcomes.refuse(job, error, "request_too_large")
        except LimitReached as error:
            await self.outcomes.put_back(job, after=min(error.retry_after, LONGEST_REST_S), why=str(error))

    async def _wait_for_permit(self, pool: Pool, amounts: Amounts) -> Permit:
        task = asyncio.current_task()
        assert task is not None, "a job always runs in a task"  # noqa: S101  # tells mypy what asyncio guarantees
        self._waiting.add(task)
        try:
            return await self.limiter.acquire(pool, amounts, patience=self.patience)
        except asyncio.CancelledError:
            if not self._draining:
                raise
            task.uncancel()  # the drain cancelled the wait, not the job
            raise LimitReached("the worker is draining") from None
        finally:
            self._waiting.discard(task)

    async def _settle_failure(self, permit: Permit, failure: ClaudeError) -> None:
        """Tell the limiter what a failed call used: nothing when refused, the estimate when nobody knows."""
        match failure:
            case RateLimited(status=429):
                await self.limiter.penalise(
                    permit,
                    status=429,
                    retry_after=failure.retry_after,
                    dimension=failure.dimension,
                    ramp=failure.ramp,
                    headroom=failure.headroom,
                )
            case Overloaded():
                await self.limiter.penalise(
                    permit,
                    status=529,
                    retry_after=failure.retry_after,
                    dimension=None,
                    ramp=False,
                    headroom=failure.headroom,
                )
            case _ if failure.usage is not None:
                used = Amounts(1, failure.usage.limited_input_tokens, failure.usage.output_tokens)
                await self.limiter.settle(permit, used, failure.headroom)
            case _ if failure.status is not None:
                await self.limiter.settle(permit, Amounts(1, 0, 0), failure.headroom)
            case _:
                await self.limiter.settle(permit, None, None)
