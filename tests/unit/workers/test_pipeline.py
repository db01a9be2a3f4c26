"""The walk of one job: whatever is cancelled or breaks, the job, its attempt and its permit end somewhere."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from pydantic import SecretStr
from structlog.testing import capture_logs

from promptmill.claude.keys import Key, KeyRing, Rest
from promptmill.claude.replies import Reply
from promptmill.clock import SystemClock
from promptmill.dimensions import Amounts, Headroom
from promptmill.errors import (
    ClaudeError,
    ConnectionFailed,
    KeyRejected,
    Overloaded,
    PromptRejected,
    RateLimited,
    SpendCapReached,
    Unavailable,
)
from promptmill.estimates import Estimator
from promptmill.limits import Ceilings, LocalLimiter, Permit, Pool
from promptmill.pricing import PriceBook
from promptmill.prompts import Prompt
from promptmill.retries import RetryPolicy, truncation_policy
from promptmill.states import BatchState, JobState, Lane, PausedBy
from promptmill.store.jobs import LoadedJob
from promptmill.store.leases import Lease, NoRoom
from promptmill.store.unreadable import UnreadableJob
from promptmill.testing import a_prompt
from promptmill.usage import Usage
from workers.accounts import Accounts
from workers.holding import Held
from workers.outcomes import Outcomes
from workers.pipeline import RESETS_IN_A_ROW, Pipeline
from workers.pool.bridge import Interrupts, await_here, run_in_greenlet
from workers.scouts import Scouts
from workers.verdicts import Answered, Deferred, Elsewhere, Failed, Verdict, Withdrawn
from workers.without_key import WithoutKey
from workers.writer import Write

GROUP = "claude-sonnet-5"
POOL = Pool("account", GROUP)
LIFTS = datetime(2126, 12, 1, tzinfo=UTC)
MISSING = object()
KEY = Key(label="main", secret=SecretStr("sk"), account="account")
REPLY = Reply(
    message={"type": "message", "model": GROUP, "content": [{"type": "text", "text": "4"}], "usage": {}},
    usage=Usage(input_tokens=10, output_tokens=5),
    headroom=None,
    request_id="req_1",
    simulated=True,
    streamed=False,
)
JOB = LoadedJob(
    id="job",
    batch_id="batch",
    batch_name="a batch",
    batch_state=BatchState.ACTIVE,
    custom_id="row",
    state=JobState.QUEUED,
    dispatch=1,
    token=0,
    attempts=0,
    model_group=GROUP,
    prompt=a_prompt(),
    lane=Lane.REALTIME,
    endpoint="simulated",
    simulated=True,
    deadline=None,
    priority=1.0,
    estimated_input_tokens=10,
    estimated_output_tokens=10,
    options={},
)


class Rows:
    """Stands for the writer: remembers what was written, and can hold or break one kind of write."""

    def __init__(self, job: LoadedJob | UnreadableJob) -> None:
        self.job = job
        self.written: list[tuple[Write, Any]] = []
        self.gates: dict[Write, asyncio.Event] = {}
        self.reached: dict[Write, asyncio.Event] = {kind: asyncio.Event() for kind in Write}
        self.broken: set[Write] = set()
        self.refuse = False
        self.stopped: Any = MISSING
        self.became = {Write.DEFER: JobState.PENDING, Write.FAIL: JobState.ERRORED}

    async def put(self, kind: Write, value: Any) -> Any:
        self.reached[kind].set()
        if kind in self.gates:
            await self.gates[kind].wait()
        if kind in self.broken:
            raise ValueError("a bad row")
        self.written.append((kind, value))
        if kind is Write.LOAD:
            return self.job
        if kind is Write.LOOK:
            return (self.job.state, self.job.dispatch) == (JobState.QUEUED, value[1])
        if kind is Write.BEGIN and self.stopped is not MISSING:
            return NoRoom(job_id=value.job_id, attempt_id=value.attempt_id, stopped=self.stopped)
        if kind is Write.BEGIN and self.refuse:
            return None
        if kind is Write.BEGIN:
            return Lease(job_id=value.job_id, token=1, attempt_id=value.attempt_id, number=1)
        return self.became.get(kind, True)

    def only(self, kind: Write) -> Any:
        [value] = [value for written, value in self.written if written is kind]
        return value

    def of(self, kind: Write) -> list[Any]:
        return [value for written, value in self.written if written is kind]

    def kinds(self) -> list[Write]:
        return [kind for kind, _ in self.written]


class Claude:
    """Stands for the client: answers, fails, or waits to be cancelled."""

    def __init__(self) -> None:
        self.outcome: Reply | BaseException | None = REPLY
        self.called = asyncio.Event()
        self.streamed: list[bool] = []
        self.asked: list[Prompt] = []
        self.keys: list[Key] = []

    async def create(
        self, prompt: Prompt, key: Key, *, stream: bool | None, tell: Callable[[Headroom, Usage], None]
    ) -> Reply:
        self.called.set()
        self.asked.append(prompt)
        self.keys.append(key)
        self.streamed.append(bool(stream))
        if stream:
            tell(Headroom(requests_limit=60_000, requests_remaining=59_000), Usage(input_tokens=10))
        if self.outcome is None:
            await asyncio.Event().wait()
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        assert isinstance(self.outcome, Reply)
        return self.outcome


class Others:
    """Stands for other workers: they can call, and have one key for texts at rest."""

    async def can_call(self, _group: str, *, but: frozenset[str], anew: bool) -> bool:
        return not but and not anew

    async def can_open(self, key_id: str | None) -> bool:
        return key_id == "theirs"


class Bench:
    """A pipeline with its surroundings."""

    def __init__(self) -> None:
        self.rows = Rows(JOB)
        self.claude = Claude()
        self.held: list[Held] = []
        self.met: list[str] = []
        self.limiter = LocalLimiter(ceilings=lambda _pool: Ceilings(0, 0, 0))
        self.keys = KeyRing([KEY])
        outcomes = Outcomes(
            writer=self.rows,  # type: ignore[arg-type]  # all the pipeline asks of it is `put`
            prices=PriceBook(),
            policy=RetryPolicy(),
            clock=SystemClock(),
            rng=random.Random(1),
            keys=self.keys,
            without_key=WithoutKey(self.keys, SystemClock(), pause=self.hold),
        )
        self.pipeline = Pipeline(
            outcomes=outcomes,
            limiter=self.limiter,
            client=self.claude,  # type: ignore[arg-type]  # all the pipeline asks of it is `create`
            accounts=Accounts(self.keys, lambda: None, self.limiter.peek),
            estimator=Estimator(),
            meet=self.meet,
            serves=lambda job: job.endpoint == "simulated",
        )

    def hold(self, held: Held) -> None:
        self.held.append(held)

    async def meet(self, job: LoadedJob) -> None:
        self.met.append(job.id)

    def start(self) -> "asyncio.Task[None]":
        return asyncio.create_task(self.pipeline.answer("job", 1))

    async def open_permits(self) -> int:
        return (await self.limiter.peek(POOL)).in_flight


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_an_answer_is_stored_and_the_permit_settled(bench: Bench) -> None:
    await bench.start()
    assert bench.rows.kinds() == [Write.LOAD, Write.BEGIN, Write.COMPLETE]
    assert bench.rows.only(Write.COMPLETE).attempt.cost_nanos == 10 * 2000 + 5 * 10_000
    assert await bench.open_permits() == 0


async def test_a_stale_message_is_dropped_without_a_trace(bench: Bench) -> None:
    with pytest.raises(Elsewhere):
        await asyncio.create_task(bench.pipeline.answer("job", 99))
    assert bench.rows.kinds() == [Write.LOAD]


@pytest.mark.parametrize(
    ("state", "verdict"),
    [
        (JobState.PENDING, Deferred),
        (JobState.RUNNING, Elsewhere),
        (JobState.SUCCEEDED, Answered),
        (JobState.ERRORED, Failed),
        (JobState.CANCELED, Withdrawn),
        (JobState.EXPIRED, Withdrawn),
    ],
)
async def test_a_message_that_comes_too_late_ends_as_its_job_stands(
    bench: Bench, state: JobState, verdict: type[Verdict]
) -> None:
    bench.rows.job = replace(JOB, state=state)
    with pytest.raises(verdict):
        await bench.start()


async def test_a_failure_in_a_batch_that_is_being_canceled_ends_as_the_database_has_it(bench: Bench) -> None:
    bench.claude.outcome = Overloaded("busy", status=529)
    bench.rows.became[Write.DEFER] = JobState.CANCELED
    with pytest.raises(Withdrawn, match="canceled"):
        await bench.start()


async def test_a_failure_after_an_answer_that_was_kept_is_a_success(bench: Bench) -> None:
    bench.claude.outcome = PromptRejected("no", status=400)
    bench.rows.became[Write.FAIL] = JobState.SUCCEEDED
    with pytest.raises(Answered):
        await bench.start()


async def test_a_job_that_may_be_what_ends_processes_waits_until_it_can_run_alone(bench: Bench) -> None:
    bench.rows.job = replace(JOB, failures={"lost": 3})
    bench.claude.outcome = None
    first = bench.start()
    await bench.claude.called.wait()
    before = SystemClock().now()
    with pytest.raises(Deferred):
        await bench.start()
    after = SystemClock().now()
    least, most = timedelta(seconds=1), timedelta(seconds=10)
    assert before + least < bench.rows.only(Write.DEFER).not_before <= after + most
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    bench.claude.outcome = REPLY
    await bench.start()
    assert bench.rows.kinds()[-1] is Write.COMPLETE


async def test_a_job_cancelled_while_it_begins_is_handed_back_and_cost_nothing(bench: Bench) -> None:
    bench.rows.gates[Write.BEGIN] = asyncio.Event()
    task = bench.start()
    await bench.rows.reached[Write.BEGIN].wait()
    task.cancel()
    await asyncio.sleep(0)
    bench.rows.gates[Write.BEGIN].set()
    with pytest.raises(asyncio.CancelledError):
        await task
    attempt = bench.rows.only(Write.DEFER).attempt
    assert (attempt.outcome, attempt.cost_nanos) == ("interrupted", 0)
    assert await bench.open_permits() == 0


async def test_a_job_cancelled_in_its_call_is_handed_back_with_an_unknown_cost(bench: Bench) -> None:
    bench.claude.outcome = None
    task = bench.start()
    await bench.claude.called.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    attempt = bench.rows.only(Write.DEFER).attempt
    assert (attempt.outcome, attempt.cost_nanos) == ("interrupted", None)
    assert await bench.open_permits() == 0


async def test_an_answer_is_stored_although_the_job_is_cancelled_meanwhile(bench: Bench) -> None:
    bench.rows.gates[Write.COMPLETE] = asyncio.Event()
    task = bench.start()
    await bench.rows.reached[Write.COMPLETE].wait()
    task.cancel()
    await asyncio.sleep(0)
    bench.rows.gates[Write.COMPLETE].set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.rows.only(Write.COMPLETE).text == "4"
    assert await bench.open_permits() == 0


async def broken_into(bench: Bench, kind: Write, breaks: "list[type[BaseException]]") -> BaseException:
    """Answer one job as the pool does, and break into it while `kind` waits in the writer; what it ends with."""
    bench.rows.gates[kind] = asyncio.Event()
    interrupts = Interrupts()

    async def in_pool() -> None:
        await run_in_greenlet(lambda: await_here(bench.pipeline.answer("job", 1)), interrupts)

    answering = asyncio.create_task(in_pool())
    await bench.rows.reached[kind].wait()
    for each in breaks:
        if each is SoftTimeLimitExceeded:
            interrupts.soft_limit = 960.0
        else:
            interrupts.terminated = True
        answering.cancel()
        for _ in range(20):  # turns of the loop, of which it takes a few to get where the job waits
            await asyncio.sleep(0)
        assert not answering.done()
    bench.rows.gates[kind].set()
    [ended] = await asyncio.gather(answering, return_exceptions=True)
    assert isinstance(ended, BaseException)
    return ended


INTERRUPTIONS = [
    [SoftTimeLimitExceeded],
    [SoftTimeLimitExceeded, asyncio.CancelledError],
    [asyncio.CancelledError, asyncio.CancelledError],
]


@pytest.mark.parametrize("breaks", INTERRUPTIONS)
async def test_an_answer_in_the_writer_is_waited_for_whatever_breaks_in(
    bench: Bench, breaks: list[type[BaseException]]
) -> None:
    assert type(await broken_into(bench, Write.COMPLETE, breaks)) is breaks[0]
    assert bench.rows.only(Write.COMPLETE).text == "4"
    assert await bench.open_permits() == 0


@pytest.mark.parametrize("breaks", INTERRUPTIONS)
async def test_a_lease_that_is_granted_after_something_broke_in_is_handed_back(
    bench: Bench, breaks: list[type[BaseException]]
) -> None:
    assert type(await broken_into(bench, Write.BEGIN, breaks)) is breaks[0]
    attempt = bench.rows.only(Write.DEFER).attempt
    assert (attempt.outcome, attempt.cost_nanos) == ("interrupted", 0)
    assert not bench.claude.called.is_set()
    assert await bench.open_permits() == 0


async def test_an_answer_that_cannot_be_stored_ends_the_job_and_is_not_paid_for_again(bench: Bench) -> None:
    bench.rows.broken.add(Write.COMPLETE)
    with pytest.raises(Failed, match="reply_not_stored"):
        await bench.start()
    assert bench.rows.only(Write.FAIL).attempt.usage == REPLY.usage
    assert await bench.open_permits() == 0


@pytest.mark.parametrize("stopped", [None, "budget of $5.00: $4.98 spent"])
async def test_without_room_in_the_budget_nothing_is_asked_and_the_permit_is_given_back(
    bench: Bench, stopped: str | None
) -> None:
    bench.rows.stopped = stopped
    with pytest.raises(Deferred, match="budget"):
        await bench.start()
    assert bench.rows.kinds() == [Write.LOAD, Write.BEGIN]
    assert not bench.claude.called.is_set()
    assert await bench.open_permits() == 0


async def test_without_room_a_job_that_is_cancelled_meanwhile_has_nothing_to_hand_back(bench: Bench) -> None:
    bench.rows.stopped = None
    bench.rows.gates[Write.BEGIN] = asyncio.Event()
    task = bench.start()
    await bench.rows.reached[Write.BEGIN].wait()
    task.cancel()
    await asyncio.sleep(0)
    bench.rows.gates[Write.BEGIN].set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.rows.kinds() == [Write.LOAD, Write.BEGIN]
    assert await bench.open_permits() == 0


async def test_a_job_without_room_rests_a_random_while_and_sets_aside_what_it_may_cost(bench: Bench) -> None:
    await bench.start()
    claim = bench.rows.only(Write.BEGIN)
    estimate = bench.pipeline.estimator.estimate(JOB.prompt, family="another")
    assert 2 <= (claim.again_at - claim.opened_at).total_seconds() <= 5
    assert claim.reserved_nanos == estimate.cost_high_nanos > estimate.cost_nanos


async def test_an_unexpected_error_in_a_call_is_a_failed_connection(bench: Bench) -> None:
    bench.claude.outcome = RuntimeError("a fault of ours")
    with pytest.raises(Deferred):
        await bench.start()
    attempt = bench.rows.only(Write.DEFER).attempt
    assert (attempt.outcome, attempt.cost_nanos) == ("connection_failed", None)


@pytest.mark.parametrize(
    ("failure", "verdict", "cost"),
    [
        (PromptRejected("bad", status=400), Failed, 0),
        (Overloaded("busy", status=529), Deferred, 0),
        (Overloaded("busy", status=200, usage=Usage(input_tokens=10, output_tokens=1)), Deferred, None),
    ],
)
async def test_a_refusal_cost_nothing_and_an_answer_that_broke_off_is_unknown(
    bench: Bench, failure: ClaudeError, verdict: type[Exception], cost: int | None
) -> None:
    bench.claude.outcome = failure
    with pytest.raises(verdict):
        await bench.start()
    ended = bench.rows.only(Write.FAIL if verdict is Failed else Write.DEFER)
    assert ended.attempt.cost_nanos == cost
    assert await bench.open_permits() == 0


async def test_a_refused_key_is_retired_and_without_another_the_batch_waits(bench: Bench) -> None:
    bench.claude.outcome = KeyRejected("no", status=401)
    with pytest.raises(Deferred):
        await bench.start()
    with pytest.raises(Deferred):
        await bench.start()
    [held] = bench.held
    assert (held.batch_id, held.endpoint) == ("batch", None)
    assert held.reason == "key main was refused (no)"


@pytest.mark.parametrize(("status", "begun"), [(401, 1), (403, 2)])
async def test_a_key_that_is_refused_for_one_model_is_called_with_for_another(
    bench: Bench, status: int, begun: int
) -> None:
    bench.claude.outcome = KeyRejected("no", status=status)
    for group in (GROUP, GROUP, "another", "another"):
        bench.rows.job = replace(JOB, model_group=group)
        with pytest.raises(Deferred):
            await bench.start()
    assert len(bench.rows.of(Write.BEGIN)) == begun


async def test_a_key_that_a_server_quotes_is_not_written_down(bench: Bench) -> None:
    bench.claude.outcome = PromptRejected("400: you sent sk-ant-api03-abcdef", status=400)
    with pytest.raises(Failed):
        await bench.start()
    assert bench.rows.only(Write.FAIL).attempt.error_message == "400: you sent [secret]"


async def test_a_key_that_is_replaced_while_a_job_waits_for_its_permit_is_not_called_with(
    bench: Bench,
) -> None:
    new = replace(KEY, secret=SecretStr("new"))
    acquire = bench.limiter.acquire

    async def acquire_late(pool: Pool, amounts: Amounts, *, patience: float) -> Permit:
        permit = await acquire(pool, amounts, patience=patience)
        bench.keys.refresh([new])
        return permit

    bench.limiter.acquire = acquire_late  # type: ignore[method-assign]
    await bench.start()
    assert bench.claude.keys == [new]
    assert await bench.open_permits() == 0


async def test_where_another_worker_can_call_nothing_is_paused_and_jobs_are_left_to_it(bench: Bench) -> None:
    bench.keys.retire(KEY, None, "revoked")
    bench.pipeline.outcomes.without_key.others = Others()  # type: ignore[assignment]  # all that is asked of it
    for _ in range(2):
        with pytest.raises(Deferred):
            await bench.start()
    assert bench.held == []
    assert all(each.not_before is not None for each in bench.rows.of(Write.DEFER))
    standing_back = bench.pipeline.outcomes.without_key.standing_back
    assert standing_back.is_on
    assert standing_back.room(50) == 0
    bench.keys.refresh([replace(KEY, secret=SecretStr("new"))])
    await bench.start()
    assert standing_back.room(50) == 50


def an_unreadable_job(key_id: str | None, *, is_damaged: bool = False) -> UnreadableJob:
    return UnreadableJob(
        id=JOB.id, batch_id=JOB.batch_id, endpoint=JOB.endpoint, state=JobState.QUEUED, dispatch=1, forgiven=0,
        key_id=key_id, is_damaged=is_damaged,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("key_id", "why"),
    [
        ("lost", "encrypted with key lost, which no worker has"),
        (None, "encrypted with a key that no worker has"),
    ],
)
async def test_where_no_worker_can_read_a_job_its_batch_is_paused_and_says_which_key_is_missing(
    bench: Bench, key_id: str | None, why: str
) -> None:
    bench.rows.job = an_unreadable_job(key_id)
    bench.pipeline.outcomes.without_key.others = Others()  # type: ignore[assignment]  # all that is asked of it
    with pytest.raises(Deferred, match=why):
        await bench.start()
    assert bench.held == [Held("batch", None, why, PausedBy.ENCRYPTION)]
    assert bench.rows.kinds() == [Write.LOAD, Write.DEFER]
    assert not bench.pipeline.outcomes.without_key.standing_back.is_on


async def test_where_another_worker_can_read_a_job_nothing_is_paused_and_jobs_are_left_to_it(
    bench: Bench,
) -> None:
    bench.rows.job = an_unreadable_job("theirs")
    bench.pipeline.outcomes.without_key.others = Others()  # type: ignore[assignment]  # likewise
    with capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(Deferred):
                await bench.start()
    assert [(each["event"], each["key"]) for each in logs] == [("key_missing_here", "theirs")]
    assert bench.held == []
    assert all(each.not_before is not None for each in bench.rows.of(Write.DEFER))
    assert bench.pipeline.outcomes.without_key.standing_back.is_on
    bench.rows.job = JOB
    await bench.start()
    assert not bench.pipeline.outcomes.without_key.standing_back.is_on


async def test_a_job_whose_text_is_damaged_ends_and_neither_pauses_its_batch_nor_keeps_workers_back(
    bench: Bench,
) -> None:
    bench.rows.job = an_unreadable_job("theirs", is_damaged=True)
    bench.pipeline.outcomes.without_key.others = Others()  # type: ignore[assignment]  # likewise
    with pytest.raises(Failed, match="theirs does not open it"):
        await bench.start()
    assert bench.rows.only(Write.FAIL).error_kind == "text_damaged"
    assert bench.held == []
    assert not bench.pipeline.outcomes.without_key.standing_back.is_on


async def test_a_job_without_a_key_has_the_files_read(bench: Bench) -> None:
    heard: list[str] = []
    bench.keys.retire(KEY, None, "revoked")
    bench.pipeline.accounts.read_keys = lambda: heard.append("read")
    with pytest.raises(Deferred):
        await bench.start()
    assert heard == ["read"]


async def test_while_a_key_is_on_its_way_a_job_waits_and_nothing_is_paused(bench: Bench) -> None:
    bench.keys.retire(KEY, None, "revoked")
    bench.keys.expecting = lambda: True
    with pytest.raises(Deferred):
        await bench.start()
    assert bench.held == []
    assert bench.rows.only(Write.DEFER).not_before is not None


async def test_a_key_that_comes_while_the_batch_is_paused_lets_it_go_on(bench: Bench) -> None:
    heard: list[str] = []
    bench.keys.retire(KEY, None, "revoked")
    bench.keys.on_held_in_vain = lambda: heard.append("go on")
    bench.pipeline.outcomes.without_key.pause = lambda _held: bench.keys.refresh(
        [replace(KEY, secret=SecretStr("new"))]
    )
    with pytest.raises(Deferred):
        await bench.start()
    assert heard == ["go on"]


async def test_a_spend_cap_pauses_everything_that_calls_the_same_endpoint(bench: Bench) -> None:
    bench.claude.outcome = SpendCapReached("cap", status=429, lifts_at=LIFTS)
    with pytest.raises(Deferred):
        await bench.start()
    [held] = bench.held
    assert (held.endpoint, held.by, held.resume_at) == ("simulated", PausedBy.SPEND_CAP, LIFTS)
    assert held.reason == "spend limit reached; goes on 2126-12-01 00:00 UTC"
    assert bench.rows.only(Write.DEFER).attempt.outcome == "spend_cap_reached"


async def test_at_a_spend_cap_the_attempt_is_closed_before_anything_is_paused(bench: Bench) -> None:
    bench.claude.outcome = SpendCapReached("cap", status=429, lifts_at=LIFTS)
    written: list[list[Write]] = []

    def pause(_held: Held) -> None:
        written.append(bench.rows.kinds())
        raise Unavailable("the database is away")

    bench.pipeline.outcomes.without_key.pause = pause
    with pytest.raises(Deferred):
        await bench.start()
    assert [kinds[-1] for kinds in written] == [Write.DEFER]
    with pytest.raises(
        Deferred
    ):  # without a key to call with, and without a database: it goes back all the same
        await bench.start()
    assert bench.rows.of(Write.DEFER)[-1].dispatch == JOB.dispatch


@pytest.mark.parametrize("outcome", [REPLY, Overloaded("busy", status=529), None])
async def test_what_came_of_a_call_is_stored_before_the_limiter_is_told(
    bench: Bench, outcome: Reply | ClaudeError | None
) -> None:
    bench.claude.outcome = outcome
    kind = Write.COMPLETE if outcome is REPLY else Write.DEFER
    bench.rows.gates[kind] = asyncio.Event()
    answering = bench.start()
    await bench.claude.called.wait()
    if outcome is None:
        answering.cancel()
    await bench.rows.reached[kind].wait()
    assert await bench.open_permits() == 1
    bench.rows.gates[kind].set()
    await asyncio.gather(answering, return_exceptions=True)
    assert await bench.open_permits() == 0


async def test_a_rest_that_ended_elsewhere_pauses_nothing_and_the_account_is_asked_again(
    bench: Bench,
) -> None:
    """Another worker has seen the resume, and this one gets a job of a batch that was never paused."""
    bench.claude.outcome = SpendCapReached("cap", status=402)
    with pytest.raises(Deferred):
        await bench.start()
    [first] = bench.held
    assert first.since is not None
    bench.pipeline.outcomes.without_key.pause = lambda held: (
        held.since and held.since + timedelta(microseconds=1)
    )
    with pytest.raises(Deferred):
        await bench.start()
    bench.claude.outcome = REPLY
    await bench.start()
    assert bench.rows.kinds()[-1] is Write.COMPLETE


async def test_the_rest_began_when_the_refused_call_was_sent(bench: Bench) -> None:
    bench.claude.outcome = None
    answering = bench.start()
    await bench.claude.called.wait()
    bench.keys.resumed(datetime.now(UTC))
    answering.cancel()
    await asyncio.gather(answering, return_exceptions=True)
    begun = datetime.now(UTC)

    async def refuse(*_: object, **__: object) -> Reply:
        bench.keys.resumed(datetime.now(UTC))  # a person says so while the call is on its way
        raise SpendCapReached("cap", status=402)

    bench.pipeline.client.create = refuse  # type: ignore[method-assign]  # the stand-in of this test
    with pytest.raises(Deferred):
        await bench.start()
    assert bench.held == []
    assert bench.keys.usable(GROUP, now=begun)


async def test_while_the_account_is_tried_again_the_others_wait_and_nothing_is_paused(bench: Bench) -> None:
    now = datetime.now(UTC)
    bench.keys.rest("account", Rest(now - timedelta(minutes=11), None, "402"))
    bench.claude.outcome = None
    probe = bench.start()
    await bench.claude.called.wait()
    with pytest.raises(Deferred):
        await bench.start()
    assert bench.held == []
    assert bench.rows.only(Write.DEFER).not_before > now + timedelta(seconds=1)
    await cancelled([probe])


async def test_an_answer_to_such_a_try_ends_the_rest(bench: Bench) -> None:
    bench.keys.rest("account", Rest(datetime.now(UTC) - timedelta(minutes=11), None, "402"))
    await bench.start()
    await bench.start()
    assert bench.rows.kinds().count(Write.COMPLETE) == 2


async def test_at_a_spend_cap_another_account_takes_over(bench: Bench) -> None:
    other = Key(label="other", secret=SecretStr("sk-other"), account="other")
    bench.keys.refresh([KEY, other])
    bench.claude.outcome = SpendCapReached("cap", status=429, lifts_at=LIFTS)
    with pytest.raises(Deferred):
        await bench.start()
    bench.claude.outcome = REPLY
    await bench.start()
    assert bench.held == []
    assert [bench.rows.of(Write.BEGIN)[n].account for n in (0, 1)] == ["account", "other"]


async def test_a_job_whose_batch_was_resumed_tries_an_account_that_rests_once_more(bench: Bench) -> None:
    bench.claude.outcome = SpendCapReached("cap", status=402)
    with pytest.raises(Deferred):
        await bench.start()
    with pytest.raises(Deferred):
        await bench.start()
    assert bench.rows.kinds().count(Write.BEGIN) == 1  # the second was not called at all
    assert bench.held[0].reason == "the account cannot call (cap)"
    bench.claude.outcome = REPLY
    bench.rows.job = replace(JOB, resumed_at=datetime.now(UTC))
    await bench.start()
    assert bench.rows.kinds()[-1] is Write.COMPLETE


async def test_an_answer_that_was_cut_off_is_paid_for_and_asked_again_with_more_room(bench: Bench) -> None:
    prompt = a_prompt(max_tokens=10)
    options = truncation_policy(15)
    bench.claude.outcome = replace(REPLY, message={**REPLY.message, "stop_reason": "max_tokens"})
    bench.rows.job = replace(JOB, prompt=prompt, options=options)
    with pytest.raises(Deferred, match="cut off at 10 tokens"):
        await bench.start()
    attempt = bench.rows.only(Write.DEFER).attempt
    assert (attempt.outcome, attempt.cost_nanos) == ("truncated", 10 * 2000 + 5 * 10_000)
    assert (attempt.usage, attempt.stop_reason) == (REPLY.usage, "max_tokens")
    kept = bench.rows.only(Write.DEFER).kept
    assert (kept.text, kept.attempt, kept.stop_reason) == ("4", attempt, "max_tokens")
    bench.rows.job = replace(JOB, prompt=prompt, options=options, attempts=1, failures={"truncated": 1})
    await bench.start()  # at the cap the answer is kept
    assert bench.claude.asked[-1].max_tokens == 15
    assert bench.rows.only(Write.COMPLETE).stop_reason == "max_tokens"
    assert await bench.open_permits() == 0


async def test_jobs_whose_batch_was_paused_leave_the_line_with_the_first_that_may_not_begin(
    bench: Bench,
) -> None:
    """One call a minute: those behind would wait for their turn only to be refused, and so would a resumed batch."""
    bench.pipeline.limiter = bench.limiter = LocalLimiter(ceilings=lambda _pool: Ceilings(1, 0, 0))
    bench.rows.refuse = True
    bench.rows.gates[Write.BEGIN] = asyncio.Event()
    first = bench.start()
    await bench.rows.reached[Write.BEGIN].wait()
    waiting = [bench.start() for _ in range(3)]
    while len(bench.pipeline._waiting.of("batch")) < 3:  # noqa: ASYNC110  # no event tells it
        await asyncio.sleep(0)
    bench.rows.job = replace(JOB, state=JobState.PENDING)  # the batch was paused
    bench.rows.gates[Write.BEGIN].set()
    with pytest.raises(Deferred):
        await first
    assert [type(each) for each in await asyncio.gather(*waiting, return_exceptions=True)] == [Deferred] * 3
    assert not bench.claude.called.is_set()
    assert await bench.open_permits() == 0


async def waiting_behind_one_that_begins(bench: Bench, number: int) -> "list[asyncio.Task[None]]":
    """One call a minute: the first job is beginning, and so many wait behind it."""
    bench.pipeline.limiter = bench.limiter = LocalLimiter(ceilings=lambda _pool: Ceilings(1, 0, 0))
    bench.pipeline.patience = 1_000
    bench.rows.gates[Write.BEGIN] = asyncio.Event()
    first = bench.start()
    await bench.rows.reached[Write.BEGIN].wait()
    waiting = [bench.start() for _ in range(number)]
    while len(bench.pipeline._waiting.of("batch")) < number:  # noqa: ASYNC110  # no event tells it
        await asyncio.sleep(0)
    return [first, *waiting]


async def test_without_room_for_the_moment_nobody_is_looked_up(bench: Bench) -> None:
    bench.rows.stopped = None
    first, *waiting = await waiting_behind_one_that_begins(bench, 3)
    bench.rows.gates[Write.BEGIN].set()
    await asyncio.wait([first])
    assert Write.LOOK not in bench.rows.kinds()
    assert not any(each.done() for each in waiting)
    await cancelled(waiting)


async def test_those_who_wait_are_looked_up_once_however_many_are_refused_at_once(bench: Bench) -> None:
    bench.rows.refuse = True
    first, *waiting = await waiting_behind_one_that_begins(bench, 3)
    bench.rows.gates[Write.LOOK] = asyncio.Event()
    bench.rows.gates[Write.BEGIN].set()
    await bench.rows.reached[Write.LOOK].wait()
    await asyncio.create_task(bench.pipeline._call_off_stale("batch"))  # another that is refused meanwhile
    bench.rows.gates[Write.LOOK].set()
    with pytest.raises(Elsewhere):
        await first
    assert bench.rows.of(Write.LOOK) == [("job", 1)] * 3
    assert bench.rows.kinds().count(Write.LOAD) == 5
    await cancelled(waiting)


async def test_a_job_that_was_sent_out_anew_keeps_its_place_when_its_older_message_is_called_off(
    bench: Bench,
) -> None:
    first, old = await waiting_behind_one_that_begins(bench, 1)
    bench.rows.refuse = True
    bench.rows.job = replace(JOB, dispatch=2)  # taken back and sent out again, while the old message waits
    new = asyncio.create_task(bench.pipeline.answer("job", 2))
    while len(bench.pipeline._waiting.of("batch")) < 2:  # noqa: ASYNC110  # no event tells it
        await asyncio.sleep(0)
    bench.rows.gates[Write.BEGIN].set()
    with pytest.raises(Elsewhere):
        await first
    await asyncio.wait([old])
    assert isinstance(old.exception(), Deferred)
    assert not new.done()
    await cancelled([new])


async def cancelled(tasks: "list[asyncio.Task[None]]") -> None:
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Listening(LocalLimiter):
    """A limiter that remembers what it was told of calls."""

    def __init__(self) -> None:
        super().__init__(ceilings=lambda _pool: Ceilings(0, 0, 0))
        self.heard: list[tuple[Any, ...]] = []

    async def settle(self, permit: Permit, used: Amounts | None, headroom: Headroom | None = None) -> None:
        self.heard.append(("used", used, headroom))
        await super().settle(permit, used, headroom)

    async def penalise(self, permit: Permit, **said: Any) -> None:
        self.heard.append(("refused", said["status"], said["retry_after"], said["headroom"]))
        await super().penalise(permit, **said)

    async def release(self, permit: Permit) -> None:
        self.heard.append(("never called",))
        await super().release(permit)


LEFT = Headroom(requests_limit=60_000, requests_remaining=59_000)
CACHED = Usage(input_tokens=10, output_tokens=5, cache_read_tokens=1_000, cache_write_5m_tokens=3)
PARTIAL = Usage(input_tokens=10, output_tokens=1)
RESERVED = Estimator().estimate(JOB.prompt, family="none").output_tokens


@pytest.mark.parametrize(
    ("outcome", "heard"),
    [
        pytest.param(replace(REPLY, headroom=LEFT), [("used", Amounts(1, 10, 5), LEFT)], id="answered"),
        pytest.param(
            replace(REPLY, headroom=LEFT, streamed=True),
            [("used", Amounts(1, 10, 5), None)],
            id="streamed, which told its headers when it began",
        ),
        pytest.param(
            replace(REPLY, usage=CACHED), [("used", Amounts(1, 13, 5), None)], id="cache reads do not count"
        ),
        pytest.param(
            PromptRejected("bad", status=400, headroom=LEFT),
            [("used", Amounts(1, 0, 0), LEFT)],
            id="rejected",
        ),
        pytest.param(
            RateLimited("slow", status=429, retry_after=7, headroom=LEFT),
            [("refused", 429, 7, LEFT)],
            id="our pace",
        ),
        pytest.param(
            Overloaded("busy", status=529, retry_after=8), [("refused", 529, 8, None)], id="their load"
        ),
        pytest.param(
            Overloaded("busy", status=200, usage=PARTIAL),
            [("used", Amounts(1, 10, RESERVED), None), ("refused", 529, None, None)],
            id="their load, in the midst of an answer",
        ),
        pytest.param(
            ConnectionFailed("cut", status=200, usage=PARTIAL),
            [("used", Amounts(1, 10, RESERVED), None)],
            id="cut off, after its input was counted",
        ),
        pytest.param(ConnectionFailed("reset"), [("used", None, None)], id="nobody knows what it used"),
        pytest.param(
            ConnectionFailed("no route", sent=False), [("refused", 529, None, None)], id="never left"
        ),
        pytest.param(None, [("used", None, None)], id="broken off by us, and may have been counted"),
    ],
)
async def test_the_limiter_hears_what_a_call_used_or_why_it_was_refused(
    bench: Bench, outcome: Reply | ClaudeError | None, heard: list[tuple[Any, ...]]
) -> None:
    limiter = Listening()
    bench.pipeline.limiter = limiter
    bench.pipeline.scouts = Scouts(lambda: 0.0)
    bench.pipeline.scouts.send(POOL)  # so that ours is none
    bench.claude.outcome = outcome
    answering = bench.start()
    await bench.claude.called.wait()
    if outcome is None:
        answering.cancel()
    await asyncio.gather(answering, return_exceptions=True)
    assert limiter.heard == heard


async def test_resets_without_end_ease_the_pace_and_one_answer_ends_that(bench: Bench) -> None:
    """In a storm of resets the calls go on at full pace otherwise, and each may have been billed."""
    bench.claude.outcome = ConnectionFailed("reset")
    for _ in range(RESETS_IN_A_ROW - 1):
        with pytest.raises(Deferred):
            await bench.start()
    assert (await bench.limiter.peek(POOL)).easing == 1
    with pytest.raises(Deferred):
        await bench.start()
    assert (await bench.limiter.peek(POOL)).easing < 1
    assert await bench.open_permits() == 0
    bench.pipeline.limiter = limiter = Listening()
    bench.claude.outcome = REPLY
    await bench.start()
    bench.claude.outcome = ConnectionFailed("reset")
    with pytest.raises(Deferred):
        await bench.start()
    assert [each[0] for each in limiter.heard] == ["used", "used"]


async def test_while_draining_a_job_goes_back_at_once(bench: Bench) -> None:
    bench.pipeline.drain()
    with pytest.raises(Deferred):
        await bench.start()
    assert bench.rows.only(Write.DEFER).not_before is None
    assert not bench.claude.called.is_set()


async def test_while_draining_what_waits_for_its_permit_goes_back(bench: Bench) -> None:
    first, *waiting = await waiting_behind_one_that_begins(bench, 2)
    bench.pipeline.drain()
    await asyncio.wait(waiting)
    assert [type(each.exception()) for each in waiting] == [Deferred] * 2
    bench.rows.gates[Write.BEGIN].set()
    await first
    assert bench.rows.kinds()[-1] is Write.COMPLETE


async def test_a_job_of_another_endpoint_goes_back_and_is_not_called(bench: Bench) -> None:
    bench.rows.job = replace(JOB, endpoint="https://elsewhere.example")
    with pytest.raises(Deferred):
        await bench.start()
    assert bench.rows.kinds() == [Write.LOAD, Write.DEFER]
    assert bench.rows.only(Write.DEFER).not_before > SystemClock().now()
    assert not bench.claude.called.is_set()


async def test_the_first_call_is_streamed_and_its_headers_are_heard_before_its_answer(bench: Bench) -> None:
    bench.limiter = LocalLimiter()
    bench.pipeline.limiter = bench.limiter
    bench.claude.outcome = None  # the answer never ends
    answering = bench.start()
    await bench.claude.called.wait()
    while (await bench.limiter.peek(POOL)).dimensions[0].limit != 60_000:  # noqa: ASYNC110  # the limiter has no event for it
        await asyncio.sleep(0)
    assert bench.claude.streamed == [True]
    answering.cancel()
    await asyncio.gather(answering, return_exceptions=True)


async def test_one_call_a_second_is_a_scout(bench: Bench) -> None:
    seconds = iter([0.0, 0.5, 0.9, 1.1, 1.2])
    scouts = Scouts(lambda: next(seconds))
    assert [scouts.send(POOL) for _ in range(5)] == [True, False, False, True, False]


async def test_a_prompt_too_large_for_one_account_goes_to_one_that_can_hold_it(bench: Bench) -> None:
    small = Key(label="small", secret=SecretStr("sk-small"), account="small")
    limits = {"small": Ceilings(100, 5, 0), "account": Ceilings(100, 50_000, 0)}
    bench.limiter = LocalLimiter(ceilings=lambda pool: limits[pool.account])
    bench.pipeline.limiter = bench.limiter
    bench.keys.refresh([small, KEY])
    await bench.start()
    assert bench.rows.kinds()[-1] is Write.COMPLETE
    assert (await bench.limiter.peek(POOL)).mean.requests == 1


async def test_a_prompt_too_large_for_every_account_fails(bench: Bench) -> None:
    bench.limiter = LocalLimiter(ceilings=lambda _pool: Ceilings(100, 5, 0))
    bench.pipeline.limiter = bench.limiter
    with pytest.raises(Failed):
        await bench.start()
    assert not bench.claude.called.is_set()
