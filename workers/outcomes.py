"""A reply or a failure becomes rows: complete, put back, fail, hold. Acts on what `retries` decided.

Every way out of a begun job closes its attempt, with whatever usage is known. A cost that nobody can know
is None: the answer was cut or lost on the wire after the server may have billed it. Unknown stays unknown: what a
cut stream had told of its usage is kept, but it is not the bill.
"""

import random
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import NoReturn

from promptmill.claude.keys import Key, KeyRing, Rest
from promptmill.claude.replies import Reply
from promptmill.clock import Clock
from promptmill.errors import ClaudeError, ConnectionFailed, NoUsableKey
from promptmill.ids import new_id
from promptmill.logs import get_logger, scrub
from promptmill.pricing import PriceBook
from promptmill.retries import (
    TRUNCATED,
    GiveUp,
    Hold,
    Retry,
    RetryPolicy,
    SwapKey,
    Tries,
    asks_again,
    decide,
    outcome_of,
)
from promptmill.states import JobState, Lane
from promptmill.store.jobs import Completion, Deferral, Failure, LoadedJob
from promptmill.store.leases import Claim, Lease, NoRoom
from promptmill.store.ledger import SUCCEEDED, ClosedAttempt
from promptmill.store.unreadable import UnreadableJob
from promptmill.usage import Usage
from workers.compose import compose
from workers.holding import why_closed
from workers.verdicts import Failed, verdict_on
from workers.without_key import WithoutKey
from workers.writer import Write, Writer

log = get_logger(__name__)

INTERRUPTED = "interrupted"
NO_ROOM_REST_S = (2.0, 5.0)
"""How long a job rests for which a budget has no room while other calls may give some back."""
WITHOUT_KEY_S = 3.0
"""How long a job rests when there is no key to call with."""


@dataclass(slots=True)
class Outcomes:
    """What a job's end needs: the writer, prices, the policy, and time and chance as parameters."""

    writer: Writer
    prices: PriceBook
    policy: RetryPolicy
    clock: Clock
    rng: random.Random
    keys: KeyRing
    without_key: WithoutKey

    async def load(self, job_id: str) -> LoadedJob | UnreadableJob | None:
        """The job and its prompt."""
        job: LoadedJob | UnreadableJob | None = await self.writer.put(Write.LOAD, job_id)
        return job

    async def is_queued(self, job: LoadedJob) -> bool:
        """Whether the message of a job may still begin it."""
        return bool(await self.writer.put(Write.LOOK, (job.id, job.dispatch)))

    def begin(
        self, job: LoadedJob, key: Key, *, reserved_nanos: int | None
    ) -> Awaitable[Lease | NoRoom | None]:
        """Have the lease granted and the attempt opened; None when the job is not ours to begin.

        NoRoom when the budget of its batch is used up, or all of it is set aside: then the job went back.
        """
        now = self.clock.now()
        claim = Claim(
            job_id=job.id,
            dispatch=job.dispatch,
            attempt_id=new_id("attempt"),
            key_label=key.label,
            account=key.account,
            model=job.prompt.model,
            reserved_nanos=reserved_nanos,
            simulated=job.simulated,
            opened_at=now,
            again_at=now + timedelta(seconds=self.rng.uniform(*NO_ROOM_REST_S)),
        )
        return self.writer.put(Write.BEGIN, claim)

    async def complete(self, job: LoadedJob, lease: Lease, reply: Reply) -> None:
        """Write the answer with its tokens and exact cost; one that was cut off may be asked for again instead.

        Raises:
            Deferred: the answer was cut off, and the job will be asked again with more room.
            Verdict: the answer came too late to be taken, and the job stands like this.
        """
        max_tokens = compose(job).max_tokens
        if asks_again(reply.stop_reason, max_tokens, job.options):
            await self._ask_again(job, lease, reply, max_tokens)
        completion = self._completion(job, lease, reply, SUCCEEDED)
        if not await self.writer.put(Write.COMPLETE, completion):
            log.warning("late_answer_not_taken", job_id=job.id, attempt=lease.number)
            await self.tell(job, None, "its answer came too late")

    async def _ask_again(self, job: LoadedJob, lease: Lease, reply: Reply, max_tokens: int) -> NoReturn:
        kept = self._completion(job, lease, reply, TRUNCATED)
        became = await self.writer.put(
            Write.DEFER,
            Deferral(
                job_id=job.id,
                token=lease.token,
                attempt=kept.attempt,
                error_kind=TRUNCATED,
                not_before=None,
                kept=kept,
            ),
        )
        await self.tell(job, became, f"cut off at {max_tokens} tokens, asked again with more room")

    async def tell(self, job: LoadedJob | UnreadableJob, became: JobState | None, why: str) -> NoReturn:
        """Say how a job stands now, as the database has it; None where what was written no longer applied to it.

        Raises:
            Verdict: always.
        """
        if became is not None:
            raise verdict_on(became, why, is_ours=True)
        found = await self.load(job.id)
        if found is None:
            raise Failed("there is no such job any more")
        raise verdict_on(found.state, f"{found.state} by another hand")

    def _completion(self, job: LoadedJob, lease: Lease, reply: Reply, outcome: str) -> Completion:
        return Completion(
            job_id=job.id,
            token=lease.token,
            attempt=self._answered(job, lease, reply, outcome),
            message=reply.message,
            text=reply.text,
            stop_reason=reply.stop_reason,
            model=reply.model or job.prompt.model,
            simulated=reply.simulated,
        )

    def _answered(self, job: LoadedJob, lease: Lease, reply: Reply, outcome: str) -> ClosedAttempt:
        """The attempt of a call that was answered, with its exact cost."""
        return self._closed(
            lease,
            outcome,
            usage=reply.usage,
            usage_raw=reply.message.get("usage"),
            cost_nanos=self.price(reply.usage, reply.message, model=reply.model or job.prompt.model),
            request_id=reply.request_id,
            stop_reason=reply.stop_reason,
        )

    def price(self, usage: Usage, message: Mapping[str, object], *, model: str) -> int | None:
        """Nano-dollars of a reply; `model` is the one that served it."""
        raw = message.get("usage")
        facts = raw if isinstance(raw, dict) else {}
        lane = Lane.BULK if facts.get("service_tier") == "batch" else Lane.REALTIME
        return self.prices.price_of(
            usage,
            model=model,
            lane=lane,
            inference_geo=facts.get("inference_geo"),
            speed=facts.get("speed"),
            at=self.clock.now(),
        )

    async def put_back(self, job: LoadedJob | UnreadableJob, *, after: float, why: str) -> NoReturn:
        """Send a job that was not begun back to `pending`; never before `after` seconds.

        Raises:
            Deferred: once it is committed.
            Verdict: the job had ended meanwhile, like this.
        """
        became = await self.writer.put(
            Write.DEFER,
            Deferral(
                job_id=job.id,
                dispatch=job.dispatch,
                not_before=self.clock.now() + timedelta(seconds=after) if after > 0 else None,
            ),
        )
        await self.tell(job, became, why)

    async def hand_back(self, job: LoadedJob, lease: Lease, *, sent: bool) -> None:
        """Send a job that was broken off from outside back to `pending`; once sent, what it cost is unknown."""
        attempt = self._closed(lease, INTERRUPTED, cost_nanos=None if sent else 0)
        await self.writer.put(
            Write.DEFER, Deferral(job_id=job.id, token=lease.token, attempt=attempt, not_before=None)
        )

    async def put_back_without_key(self, job: LoadedJob, none_left: NoUsableKey) -> NoReturn:
        """Send the job back, and unless another worker can call for it pause what has no key to call with.

        Raises:
            Deferred: always, once it is committed.
        """
        waits = none_left.asking or none_left.expecting
        held = not waits and await self.without_key.hold(job, none_left)
        # What a spend limit holds begins again with the batch, at once; a key may be with another worker.
        after = 0.0 if held and none_left.resting else WITHOUT_KEY_S
        await self.put_back(job, after=after, why=scrub(str(none_left)))

    async def leave_unread(self, job: UnreadableJob) -> NoReturn:
        """Send a job back that no key here opens, and pause its batch unless another worker has that key.

        One whose text is damaged ends: nobody can ever open it, and neither its batch nor a worker is to wait for that.

        Raises:
            Deferred: once it is committed.
            Failed: its text is damaged.
        """
        if job.is_damaged:
            await self.refuse(job, f"its text is damaged: key {job.key_id} does not open it", "text_damaged")
        await self.without_key.leave_closed(job)
        await self.put_back(job, after=WITHOUT_KEY_S, why=why_closed(job.key_id))

    async def give_up(self, job: LoadedJob, lease: Lease, kind: str, usage: Usage) -> NoReturn:
        """End a job whose answer was paid for and cannot be stored: asking again would only cost again.

        Raises:
            Failed: always, once it is committed.
        """
        attempt = self._closed(lease, kind, usage=usage)
        became = await self.writer.put(
            Write.FAIL, Failure(job_id=job.id, token=lease.token, attempt=attempt, error_kind=kind)
        )
        await self.tell(job, became, kind)

    async def refuse(self, job: LoadedJob | UnreadableJob, why: str, kind: str) -> NoReturn:
        """End a job that can never be begun.

        Raises:
            Failed: always, once it is committed.
        """
        became = await self.writer.put(
            Write.FAIL, Failure(job_id=job.id, dispatch=job.dispatch, error_kind=kind)
        )
        await self.tell(job, became, why)

    async def follow(
        self, job: LoadedJob, lease: Lease, key: Key, failure: ClaudeError, *, sent_at: datetime
    ) -> NoReturn:
        """Do what `retries.decide` says about a failed call that was sent at that moment.

        Raises:
            Deferred: the job will be tried again.
            Failed: it will not.
        """
        now = self.clock.now()
        tries = Tries(job.first_opened_at or now, job.failures, job.deadline, job.first_failed_at, job.begun)
        decision = decide(failure, tries, self.policy, now=now, rng=self.rng)
        attempt = self._failed(lease, failure)
        match decision:
            case Retry(after=after):
                await self._defer(job, lease, attempt, failure, after=after)
            case SwapKey():
                self._retire(key, job.model_group, failure, sent_at)
                await self._defer(job, lease, attempt, failure, after=0.0)
            case Hold(reason=reason, until=until):
                none_left = self._rest(job, key, Rest(sent_at, until, scrub(reason)))
                try:
                    await self._defer(job, lease, attempt, failure, after=0.0)
                finally:
                    if none_left is not None:
                        await self.without_key.hold(job, none_left)
            case GiveUp():
                log.info("job_given_up", job_id=job.id, kind=failure.kind, request_id=failure.request_id)
                await self._fail(job, lease, attempt, failure)

    def _retire(self, key: Key, group: str, failure: ClaudeError, sent_at: datetime) -> None:
        """401 retires the key, 403 the key for that model group."""
        everywhere = failure.status == HTTPStatus.UNAUTHORIZED or failure.error_type == "authentication_error"
        if self.keys.retire(key, None if everywhere else group, scrub(str(failure)), sent_at):
            log.error("key_retired", key=key.label, group=group, status=failure.status)
        else:
            log.info("old_key_refused", key=key.label, status=failure.status)

    def _rest(self, job: LoadedJob, key: Key, rest: Rest) -> NoUsableKey | None:
        """The account rests, and another takes over; where there is none, the answer says why."""
        self.keys.rest(key.account, rest)
        log.error("account_rests", account=key.account, until=rest.until, why=rest.why)
        try:
            self.keys.usable(job.model_group, now=self.clock.now())
        except NoUsableKey as none_left:
            return none_left
        return None

    async def _defer(
        self, job: LoadedJob, lease: Lease, attempt: ClosedAttempt, failure: ClaudeError, *, after: float
    ) -> NoReturn:
        deferral = Deferral(
            job_id=job.id,
            token=lease.token,
            attempt=attempt,
            error_kind=outcome_of(failure),
            not_before=attempt.closed_at + timedelta(seconds=after) if after > 0 else None,
        )
        became = await self.writer.put(Write.DEFER, deferral)
        await self.tell(job, became, f"{outcome_of(failure)}, again in {after:.1f} s")

    async def _fail(
        self, job: LoadedJob, lease: Lease, attempt: ClosedAttempt, failure: ClaudeError
    ) -> NoReturn:
        became = await self.writer.put(
            Write.FAIL,
            Failure(job_id=job.id, token=lease.token, attempt=attempt, error_kind=outcome_of(failure)),
        )
        # The server's words stay in the attempt: a gateway may quote the prompt in them, and Flower shows this.
        why = f"{failure.kind}, status {failure.status}, request {failure.request_id}"
        await self.tell(job, became, why)

    def _failed(self, lease: Lease, failure: ClaudeError) -> ClosedAttempt:
        """The attempt of a failed call. A refusal cost nothing; what an answer that broke off cost is unknown."""
        refused = failure.status is not None and failure.status >= HTTPStatus.BAD_REQUEST
        never_sent = isinstance(failure, ConnectionFailed) and not failure.sent
        cost = 0 if refused or never_sent else None
        return self._closed(
            lease,
            outcome_of(failure),
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
