"""A reply or a failure becomes rows: complete, put back, fail, hold. Acts on what `retries` decided.

Every way out of a begun job closes its attempt, with whatever usage is known. A cost that nobody can know
is None: the answer was cut or lost on the wire after the server may have billed it.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

from promptmill.claude.keys import Key
from promptmill.claude.replies import Reply
from promptmill.clock import Clock
from promptmill.errors import ClaudeError, ConnectionFailed, PromptmillError, ServerFailed
from promptmill.ids import new_id
from promptmill.logs import get_logger, scrub
from promptmill.pricing import PriceBook
from promptmill.retries import GiveUp, Hold, Retry, RetryPolicy, SwapKey, Tries, decide
from promptmill.states import Lane
from promptmill.store.jobs import Completion, Deferral, Failure, LoadedJob
from promptmill.store.leases import Claim, Lease
from promptmill.store.ledger import SUCCEEDED, ClosedAttempt
from promptmill.usage import Usage
from workers.statements import Held
from workers.verdicts import Deferred, Failed
from workers.writer import Write, Writer

log = get_logger(__name__)

INTERRUPTED = "interrupted"
COUNTED = (ServerFailed.kind, ConnectionFailed.kind)


@dataclass(slots=True)
class Outcomes:
    """What a job's end needs: the writer, prices, the policy, and time and chance as parameters."""

    writer: Writer
    prices: PriceBook
    policy: RetryPolicy
    clock: Clock
    rng: random.Random
    retire: Callable[[Key, str, ClaudeError], None]

    async def load(self, job_id: str) -> LoadedJob | None:
        """The job and its prompt."""
        job: LoadedJob | None = await self.writer.put(Write.LOAD, job_id)
        return job

    async def begin(self, job: LoadedJob, key: Key, *, reserved_nanos: int | None) -> Lease | None:
        """Grant the lease and open the attempt; None when the job is not ours to begin."""
        claim = Claim(
            job_id=job.id,
            dispatch=job.dispatch,
            attempt_id=new_id("attempt"),
            key_label=key.label,
            account=key.account,
            model=job.prompt.model,
            reserved_nanos=reserved_nanos,
            simulated=job.simulated,
            opened_at=self.clock.now(),
        )
        lease: Lease | None = await self.writer.put(Write.BEGIN, claim)
        return lease

    async def complete(self, job: LoadedJob, lease: Lease, reply: Reply) -> None:
        """Write the answer with its tokens and exact cost."""
        completion = Completion(
            job_id=job.id,
            token=lease.token,
            attempt=self._closed(
                lease,
                SUCCEEDED,
                usage=reply.usage,
                usage_raw=reply.message.get("usage"),
                cost_nanos=self.price(reply.usage, reply.message),
                request_id=reply.request_id,
                stop_reason=reply.stop_reason,
            ),
            message=reply.message,
            text=reply.text,
            stop_reason=reply.stop_reason,
            model=reply.model,
            simulated=reply.simulated,
        )
        if not await self.writer.put(Write.COMPLETE, completion):
            log.warning("late_answer_not_taken", job_id=job.id, attempt=lease.number)

    def price(self, usage: Usage, message: dict[str, object]) -> int | None:
        """Nano-dollars of a reply, priced by the model that served it."""
        raw = message.get("usage")
        facts = raw if isinstance(raw, dict) else {}
        lane = Lane.BULK if facts.get("service_tier") == "batch" else Lane.REALTIME
        return self.prices.price_of(
            usage,
            model=str(message["model"]),
            lane=lane,
            inference_geo=facts.get("inference_geo"),
            speed=facts.get("speed"),
            at=self.clock.now(),
        )

    async def put_back(self, job: LoadedJob, *, after: float, why: str) -> NoReturn:
        """Send a job that was not begun back to `pending`; never before `after` seconds.

        Raises:
            Deferred: always, once it is committed.
        """
        await self.writer.put(
            Write.DEFER,
            Deferral(
                job_id=job.id,
                dispatch=job.dispatch,
                not_before=self.clock.now() + timedelta(seconds=after) if after > 0 else None,
            ),
        )
        raise Deferred(why)

    async def hand_back(self, job: LoadedJob, lease: Lease) -> None:
        """Send a job whose call was broken off from outside back to `pending`; what it cost is unknown."""
        attempt = self._closed(lease, INTERRUPTED)
        await self.writer.put(
            Write.DEFER, Deferral(job_id=job.id, token=lease.token, attempt=attempt, not_before=None)
        )

    async def hold(self, job: LoadedJob, reason: str) -> None:
        """Pause every batch that calls where this job calls, until a person acts."""
        await self.writer.put(Write.HOLD, Held(endpoint=job.endpoint, reason=scrub(reason)))

    async def refuse(self, job: LoadedJob, error: PromptmillError, kind: str) -> NoReturn:
        """End a job that can never be begun.

        Raises:
            Failed: always, once it is committed.
        """
        await self.writer.put(Write.FAIL, Failure(job_id=job.id, dispatch=job.dispatch, error_kind=kind))
        raise Failed(str(error)) from error

    async def follow(self, job: LoadedJob, lease: Lease, key: Key, failure: ClaudeError) -> NoReturn:
        """Do what `retries.decide` says about a failed call.

        Raises:
            Deferred: the job will be tried again.
            Failed: it will not.
        """
        tries = Tries(
            counted=sum(job.failures.get(kind, 0) for kind in COUNTED),
            total=job.attempts,
            first_opened_at=job.first_opened_at or self.clock.now(),
            deadline=job.deadline,
        )
        decision = decide(failure, tries, self.policy, now=self.clock.now(), rng=self.rng)
        attempt = self._failed(lease, job, failure)
        match decision:
            case Retry(after=after):
                await self._defer(job, lease, attempt, failure, after=after)
            case SwapKey():
                self.retire(key, job.model_group, failure)
                await self._defer(job, lease, attempt, failure, after=0.0)
            case Hold(reason=reason):
                await self.hold(job, reason)
                await self._defer(job, lease, attempt, failure, after=0.0)
            case GiveUp(reason=reason):
                await self._fail(job, lease, attempt, failure, reason)

    async def _defer(
        self, job: LoadedJob, lease: Lease, attempt: ClosedAttempt, failure: ClaudeError, *, after: float
    ) -> NoReturn:
        deferral = Deferral(
            job_id=job.id,
            token=lease.token,
            attempt=attempt,
            error_kind=failure.kind,
            not_before=self.clock.now() + timedelta(seconds=after) if after > 0 else None,
        )
        await self.writer.put(Write.DEFER, deferral)
        raise Deferred(f"{failure.kind}, again in {after:.1f} s")

    async def _fail(
        self, job: LoadedJob, lease: Lease, attempt: ClosedAttempt, failure: ClaudeError, reason: str
    ) -> NoReturn:
        await self.writer.put(
            Write.FAIL,
            Failure(job_id=job.id, token=lease.token, attempt=attempt, error_kind=failure.kind),
        )
        raise Failed(scrub(reason)) from failure

    def _failed(self, lease: Lease, job: LoadedJob, failure: ClaudeError) -> ClosedAttempt:
        """The attempt of a failed call: a refusal cost nothing, what an answer that got lost cost is unknown."""
        cost: int | None = 0
        if failure.usage is not None:
            cost = self.price(failure.usage, {"model": job.prompt.model})
        elif isinstance(failure, ConnectionFailed) and failure.sent and failure.status in {None, 200}:
            cost = None
        return self._closed(
            lease,
            failure.kind,
            usage=failure.usage,
            cost_nanos=cost,
            status=failure.status,
            error_type=failure.error_type,
            error_code=failure.error_code,
            error_message=scrub(str(failure)),
            request_id=failure.request_id,
        )

    def _closed(self, lease: Lease, outcome: str, **facts: object) -> ClosedAttempt:
        return ClosedAttempt(
            attempt_id=lease.attempt_id,
            outcome=outcome,
            closed_at=self.clock.now(),
            price_version=self.prices.version,
            **facts,  # type: ignore[arg-type]  # each caller names fields of ClosedAttempt
        )
