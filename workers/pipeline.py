"""`answer(job_id, dispatch)`: the walk of one job, top to bottom.

Everything before `begin` can be dropped without a trace: the job is still `queued`. From `begin` on there
is a lease and an open attempt, and every way out closes the attempt. Between the two stands the one call
to Claude, made once.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import NoReturn, TypeVar

from promptmill.claude.client import ClaudeClient
from promptmill.claude.keys import Key
from promptmill.claude.replies import Reply
from promptmill.dimensions import Amounts, Headroom
from promptmill.errors import (
    ClaudeError,
    ConnectionFailed,
    LimitReached,
    NoUsableKey,
    Overloaded,
    RateLimited,
    RequestTooLarge,
)
from promptmill.estimates import Estimate, Estimator
from promptmill.limits import Limiter, Permit, Pool
from promptmill.logs import concern, get_logger, where
from promptmill.prompts import Prompt
from promptmill.states import JobState
from promptmill.store.jobs import LoadedJob
from promptmill.store.leases import Lease, NoRoom
from promptmill.store.ledger import LOST
from promptmill.store.unreadable import UnreadableJob
from promptmill.tracing import BEGUN, CLOSED, LOADED, PERMITTED, mark, note
from promptmill.usage import Usage
from workers.accounts import Accounts
from workers.compose import compose
from workers.experience import family_of
from workers.outcomes import Outcomes
from workers.scouts import Scouts
from workers.suspects import REST_S, Suspects
from workers.verdicts import Deferred, Failed, Verdict, verdict_on
from workers.waiting import Waiting

log = get_logger(__name__)
T = TypeVar("T")

LONGEST_REST_S = 5.0
"""How long a job rests whose permit would come too late. What the limiter foresees for it may be hours and
change with the next reply; the dispatcher knows the pace, and sends it out again when there is room."""
RESETS_IN_A_ROW = 10
"""So many calls of this process broke off in a pool without an answer: something is wrong there, and each may be billed."""
OTHER_ENDPOINT_S = 5.0
"""How long a job rests that this worker must not answer."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """A job with everything that must be settled once its call is over."""

    job: LoadedJob
    lease: Lease
    key: Key
    permit: Permit
    estimate: Estimate
    sent_at: datetime


@dataclass(slots=True)
class Pipeline:
    """What a job needs on its way; one per worker process, used by all jobs of its loop."""

    outcomes: Outcomes
    limiter: Limiter
    client: ClaudeClient
    accounts: Accounts
    estimator: Estimator
    meet: Callable[[LoadedJob], Awaitable[None]]
    serves: Callable[[LoadedJob | UnreadableJob], bool]
    patience: float = 15.0
    scouts: Scouts = field(default_factory=Scouts)
    suspects: Suspects = field(default_factory=Suspects)
    in_flight: int = 0
    _waiting: Waiting = field(default_factory=Waiting)
    _broken: Counter[Pool] = field(default_factory=Counter)
    _draining: bool = False

    async def answer(self, job_id: str, dispatch: int) -> None:
        """Answer one job, or put it back, or record why it failed.

        Raises:
            Deferred: the job went back to `pending` (shown as RETRY in Flower).
            Failed: the job has failed for good (shown as FAILURE).
            Verdict: it stands otherwise, by another hand than this call's.
        """
        concern(job_id=job_id)
        job = await self.outcomes.load(job_id)
        if job is None:
            raise Failed("there is no such job")
        note(batch_id=job.batch_id, forgiven=job.forgiven)
        if not _is_queued(job, dispatch):
            raise verdict_on(job.state, f"{job.state} since this was sent out")
        if self._draining or not self.serves(job):
            await self.outcomes.put_back(
                job, after=0.0 if self._draining else OTHER_ENDPOINT_S, why="not for this worker now"
            )
        if isinstance(job, UnreadableJob):
            await self.outcomes.leave_unread(job)
        with self.suspects.among(job.failures.get(LOST, 0)) as has_room:
            if not has_room:
                rest = self.outcomes.rng.uniform(*REST_S)
                await self.outcomes.put_back(job, after=rest, why="it may be what ends processes")
            await self._answer(job)

    async def _answer(self, job: LoadedJob) -> None:
        concern(batch_id=job.batch_id)
        mark(LOADED)
        prompt = compose(job)
        await self.meet(job)
        estimate = self.estimator.estimate(prompt, family=family_of(job.batch_id, job.model_group))
        key, permit = await self._permit(
            job, Amounts(1, estimate.limited_input_tokens, estimate.output_tokens)
        )
        mark(PERMITTED, account=key.account, key=key.label)
        lease = await self._begin(job, key, permit, estimate)
        if lease is None:
            await self.outcomes.tell(job, None, "not to be begun any more")
        concern(attempt=lease.number)
        mark(BEGUN, attempt=lease.number, model=prompt.model)
        begun = _Begun(job, lease, key, permit, estimate, self.outcomes.clock.now())
        self.accounts.keys.called(key, begun.sent_at)
        await self._call(begun, prompt)

    async def _begin(self, job: LoadedJob, key: Key, permit: Permit, estimate: Estimate) -> Lease | None:
        """The lease, or None for a job that is not ours; the permit is released where no call follows.

        Raises:
            Deferred: the budget of the batch has no room, and the job went back.
        """
        beginning = asyncio.ensure_future(
            self.outcomes.begin(job, key, reserved_nanos=estimate.cost_high_nanos)
        )
        answer: Lease | NoRoom | None = None
        try:
            answer = await _to_the_end(beginning)
        except (Exception, asyncio.CancelledError):
            # What was handed to the writer is written: a lease that nobody waited for must be given back.
            if beginning.exception() is None and isinstance(unwanted := beginning.result(), Lease):
                await _to_the_end(self.outcomes.hand_back(job, unwanted, sent=False))
            raise
        finally:
            if not isinstance(answer, Lease):
                await self.limiter.release(permit)
        if answer is None or (isinstance(answer, NoRoom) and answer.stopped is not None):
            await self._call_off_stale(job.batch_id)
        if isinstance(answer, NoRoom):
            if answer.stopped is not None:
                log.warning("budget_used_up", batch_id=job.batch_id, reason=answer.stopped)
            raise Deferred(answer.stopped or "the rest of the budget is set aside for calls in flight")
        return answer

    async def _call_off_stale(self, batch_id: str) -> None:
        """A job that could not begin is seldom the only one: its batch may be paused, and the others of it too late."""
        with self._waiting.checked(batch_id) as waiting:
            queued = await asyncio.gather(*(self.outcomes.is_queued(job) for job in waiting))
            # By dispatch too: a job that was sent out anew waits here twice, and only its older message is stale.
            stale = {(job.id, job.dispatch) for job, still in zip(waiting, queued, strict=True) if not still}
            self._waiting.call_off(lambda job: (job.id, job.dispatch) in stale)

    async def _call(self, begun: "_Begun", prompt: Prompt) -> None:
        """The one call, and whatever comes of it: every way out of here closes the attempt.

        Raises:
            Deferred, Failed: the call failed, and that is committed.
            CancelledError: the task was revoked; the job went back.
        """
        self.in_flight += 1
        try:
            reply = await self._ask(begun, prompt)
        except ClaudeError as failure:
            await _to_the_end(self._after_failure(begun, failure))
        except asyncio.CancelledError:
            await _to_the_end(self._after_interruption(begun))
            raise
        except Exception as error:  # noqa: BLE001  # a time limit of Celery's, or a fault of ours
            log.error("call_broke", job_id=begun.job.id, **where(error))  # noqa: TRY400  # its text may quote a prompt
            broke = ConnectionFailed(f"the call broke off: {type(error).__name__}")
            await _to_the_end(self._after_failure(begun, broke))
        else:
            await _to_the_end(self._after_reply(begun, reply))
        finally:
            self.in_flight -= 1

    async def _ask(self, begun: "_Begun", prompt: Prompt) -> Reply:
        """Call Claude; now and then as a stream, whose headers come at once and not with the end of the answer."""
        scout = self.scouts.send(begun.permit.pool)

        def tell(headroom: Headroom, so_far: Usage) -> None:
            counted = so_far.limited_input_tokens
            self.scouts.keep(asyncio.create_task(self.limiter.observe(begun.permit, counted, headroom)))

        return await self.client.create(prompt, begun.key, stream=True if scout else None, tell=tell)

    async def _after_reply(self, begun: "_Begun", reply: Reply) -> None:
        """The answer is stored first: it is paid for, and all else can be made good."""
        mark(CLOSED, usage=reply.usage, request_id=reply.request_id, stop_reason=reply.stop_reason)
        self.accounts.keys.answered(begun.key.account, begun.sent_at)
        try:
            await self.outcomes.complete(begun.job, begun.lease, reply)
        except Verdict:
            raise
        except Exception as error:  # noqa: BLE001  # no error may leave a lease with a job nobody works on
            log.error("reply_not_stored", job_id=begun.job.id, **where(error))  # noqa: TRY400  # likewise
            await self.outcomes.give_up(begun.job, begun.lease, "reply_not_stored", reply.usage)
        finally:
            used = Amounts(1, reply.usage.limited_input_tokens, reply.usage.output_tokens)
            # A stream has told its headers when it began.
            await self.limiter.settle(begun.permit, used, None if reply.streamed else reply.headroom)
        self._broken.pop(begun.permit.pool, None)
        family = family_of(begun.job.batch_id, begun.job.model_group)
        self.estimator.learn(begun.estimate, reply.usage, family=family)

    async def _after_failure(self, begun: "_Begun", failure: ClaudeError) -> NoReturn:
        """Stored first, as an answer is; then the limiter is told."""
        mark(
            CLOSED,
            kind=failure.kind,
            status=failure.status,
            request_id=failure.request_id,
            usage=failure.usage,
        )
        try:
            await self.outcomes.follow(begun.job, begun.lease, begun.key, failure, sent_at=begun.sent_at)
        finally:
            await self._settle_failure(begun.permit, failure)

    async def _after_interruption(self, begun: "_Begun") -> None:
        mark(CLOSED, kind="interrupted")
        try:
            await self.outcomes.hand_back(begun.job, begun.lease, sent=True)
        finally:
            await self.limiter.settle(begun.permit, None)

    def drain(self) -> None:
        """Begin no further call: what waits for a permit goes back. Call it on the loop."""
        self._draining = True
        self._waiting.call_off()

    async def _permit(self, job: LoadedJob, amounts: Amounts) -> tuple[Key, Permit]:
        """A key and the right to call now; or the job goes back, or fails."""
        try:
            return await self._fitting_permit(job, amounts)
        except NoUsableKey as error:
            await self.outcomes.put_back_without_key(job, error)
        except RequestTooLarge as error:
            await self.outcomes.refuse(job, str(error), "request_too_large")
        except LimitReached as error:
            await self.outcomes.put_back(job, after=min(error.retry_after, LONGEST_REST_S), why=str(error))

    async def _fitting_permit(self, job: LoadedJob, amounts: Amounts) -> tuple[Key, Permit]:
        """As `_first_permit`; for another key, if that one was refused or replaced while the job waited."""
        while True:
            key, permit = await self._first_permit(job, amounts)
            if self.accounts.still_fits(key, job.model_group):
                self.outcomes.without_key.over()
                return key, permit
            await self.limiter.release(permit)

    async def _first_permit(self, job: LoadedJob, amounts: Amounts) -> tuple[Key, Permit]:
        """From the first account that can hold such a call at all.

        Raises:
            NoUsableKey, LimitReached: see `Accounts.in_order` and `Limiter.acquire`.
            RequestTooLarge: it is too large for every account.
        """
        *others, last = self.accounts.in_order(job.model_group, resumed_at=job.resumed_at)
        for key in others:
            with contextlib.suppress(RequestTooLarge):
                return key, await self._wait_for_permit(job, key, amounts)
        return last, await self._wait_for_permit(job, last, amounts)

    async def _wait_for_permit(self, job: LoadedJob, key: Key, amounts: Amounts) -> Permit:
        pool = Pool(key.account, job.model_group)
        with self._waiting.waits(job), self.accounts.waiting(pool):
            return await self.limiter.acquire(pool, amounts, patience=self.patience)

    async def _settle_failure(self, permit: Permit, failure: ClaudeError) -> None:
        """Tell the limiter what a failed call used, and what the server thinks of our pace."""
        if isinstance(failure, RateLimited | Overloaded) or _never_arrived(failure):
            if failure.usage is not None:
                # Refused in the middle of its answer: the server counted it, so it is not taken back.
                await self.limiter.settle(permit, _counted(permit, failure.usage), failure.headroom)
            refused = isinstance(failure, RateLimited)
            await self.limiter.penalise(
                permit,
                status=429 if refused else 529,
                retry_after=failure.retry_after,
                dimension=failure.dimension if isinstance(failure, RateLimited) else None,
                ramp=isinstance(failure, RateLimited) and failure.ramp,
                headroom=failure.headroom,
            )
        elif failure.usage is not None:
            await self.limiter.settle(permit, _counted(permit, failure.usage), failure.headroom)
        elif failure.status is not None and failure.status >= HTTPStatus.BAD_REQUEST:
            await self.limiter.settle(permit, Amounts(1, 0, 0), failure.headroom)
        else:
            await self.limiter.settle(permit, None, failure.headroom)
        if isinstance(failure, ConnectionFailed) and failure.sent:
            self._broken[permit.pool] += 1
            if self._broken[permit.pool] >= RESETS_IN_A_ROW:
                await self.limiter.penalise(permit, status=529, retry_after=None)


def _is_queued(job: LoadedJob | UnreadableJob, dispatch: int) -> bool:
    """Whether a message with that number may begin the job."""
    return job.state is JobState.QUEUED and job.dispatch == dispatch


def _never_arrived(failure: ClaudeError) -> bool:
    """Nobody is there: nothing was used, and the pace eases as for an overload."""
    return isinstance(failure, ConnectionFailed) and not failure.sent


def _counted(permit: Permit, partial: Usage) -> Amounts:
    """What the server counted of an answer that broke off: its input is known, of its output only a part."""
    produced = max(permit.amounts.output_tokens, partial.output_tokens)
    return Amounts(1, partial.limited_input_tokens, produced)


async def _to_the_end(concluding: Awaitable[T]) -> T:
    """Run what must not be left half done to its end, whatever breaks in meanwhile; that is raised after it.

    A cancellation is one such thing, and it may come twice; a soft time limit of Celery's is another.
    """
    task = asyncio.ensure_future(concluding)
    broke_in: BaseException | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # whatever it is, it has to wait
            broke_in = broke_in or error
    try:
        result = task.result()
        if broke_in is not None:
            raise broke_in
        return result
    finally:
        del (
            task,
            broke_in,
        )  # what is raised refers to this frame by its traceback, and to all that the job brought along
