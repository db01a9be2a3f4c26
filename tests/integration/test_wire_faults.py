"""Whatever can go wrong on the wire, once each: the right outcome, the right wait, and every nano-dollar accounted for.

A worker's own parts run in this process, wired as in production, against a simulated Claude over HTTP; only Celery is
left out: each job is handed over by the test, so that every wait can be looked at and none has to be sat through.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from promptmill.claude.client import Timeouts
from promptmill.limits import Pool
from promptmill.runtime import Runtime
from promptmill.settings import load
from promptmill.simulator.process import SimulatorHandle
from promptmill.states import BatchState, JobState, PausedBy
from promptmill.store import batches, jobs, ledger
from promptmill.store.batches import BatchRow
from promptmill.store.jobs import LoadedJob
from promptmill.store.ledger import AttemptRow
from promptmill.store.tables import job
from promptmill.testing import a_batch, a_prompt, simulated_claude
from workers.process import WorkerProcess
from workers.scouts import Scouts
from workers.verdicts import Deferred, Failed

PLAIN, STREAMED = 100, 30_000  # max_tokens; the client streams what may become so long
FORMS = {PLAIN: "plain", STREAMED: "streamed"}
DATABASES = ("sqlite", "postgres")
IDLE_S, SOON_S = 3.0, 0.5
"""So long a silence is borne; the shorter by a call that is to meet a longer one, and by no other: on a busy machine an
innocent call may have to wait as long."""
TOO_LONG_S = float("inf")
"""Stands for longer than what is borne."""
HELD_UP_S = 3.0
"""A caller that was held up for so long finds the answer there when its patience is over, and takes it."""
FREE, UNKNOWN = 0, None


class _NoScouts(Scouts):
    """Plain calls stay plain."""

    def send(self, pool: Pool) -> bool:
        return False


@dataclass
class Worker:
    """A worker process's parts, and the rows it works on."""

    process: WorkerProcess
    claude: SimulatorHandle

    def submit(self, *prompts: Any) -> tuple[str, list[str]]:
        """A batch of these prompts; its id, and those of its jobs."""
        batch = a_batch(self.process.runtime.database, prompts)
        with self.process.runtime.database.read() as connection:
            [group] = jobs.groups_pending(connection, self.process.parts.clock.now())[batch.id]
            found = jobs.select_pending(
                connection, batch.id, group, len(prompts), self.process.parts.clock.now()
            )
        return batch.id, [each.id for each in found]

    async def answer(self, job_id: str) -> None:
        """Send the job out and have it answered, whatever comes of it."""
        with self.process.runtime.database.begin() as connection:
            [queued] = jobs.queue(connection, [job_id], self.process.parts.clock.now())
        assert self.process.pipeline is not None
        with contextlib.suppress(Deferred, Failed):
            await self.process.pipeline.answer(job_id, queued.dispatch)

    def bear(self, idle_s: float) -> None:
        """From the next call on, so long a silence."""
        assert self.process.pipeline is not None
        self.process.pipeline.client._timeouts = Timeouts(idle=idle_s, stream_idle=idle_s)

    def job(self, job_id: str) -> LoadedJob:
        with self.process.runtime.database.read() as connection:
            return jobs.load(connection, [job_id])[job_id]

    def batch(self, batch_id: str) -> BatchRow:
        with self.process.runtime.database.read() as connection:
            return batches.get(connection, batch_id)

    def attempts(self, job_id: str) -> list[AttemptRow]:
        with self.process.runtime.database.read() as connection:
            return list(ledger.attempts_of(connection, job_id=job_id))

    def not_before(self, job_id: str) -> datetime | None:
        with self.process.runtime.database.read() as connection:
            moment: datetime | None = connection.execute(
                select(job.c.not_before).where(job.c.id == job_id)
            ).scalar_one()
        return moment


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorHandle]:
    with simulated_claude(mean_output_tokens=60) as handle:
        yield handle


@pytest.fixture
def claude(simulator: SimulatorHandle) -> SimulatorHandle:
    """The simulator of these tests, with no faults and an empty book."""
    simulator.set_scenario()
    simulator.reset()
    return simulator


@pytest.fixture
def idle_s() -> float:
    """Seconds of silence after which the worker of a test hangs up."""
    return IDLE_S


@pytest.fixture
async def worker(
    claude: SimulatorHandle, clean_redis: str, database_url: str, tmp_path: Path, idle_s: float
) -> AsyncIterator[Worker]:
    settings = load(
        environ={
            "PROMPTMILL_DATABASE_URL": database_url,
            "PROMPTMILL_REDIS_URL": clean_redis,
            "ANTHROPIC_BASE_URL": claude.url,
            "ANTHROPIC_API_KEY": "sk-wire",
            "PROMPTMILL_RPM": "0",
            "PROMPTMILL_ITPM": "0",
            "PROMPTMILL_OTPM": "0",
            "PROMPTMILL_CLAUDE__IDLE_TIMEOUT_S": str(idle_s),
            "PROMPTMILL_CLAUDE__STREAM_IDLE_TIMEOUT_S": str(idle_s),
        },
        folder=tmp_path,
    )
    with Runtime.open(settings) as runtime:
        process = WorkerProcess(runtime)
        process.start()
        await process.open_on_loop()
        assert process.pipeline is not None
        process.pipeline.scouts = _NoScouts()
        yield Worker(process, claude)
        await process.close_on_loop()


@dataclass(frozen=True)
class Meets:
    """A fault, and what must come of the attempt that meets it.

    Attributes:
        wait_s: from the end of the attempt until the job may be tried again, at least and at most.
        cost: FREE for what the server refused, UNKNOWN for what nobody can know.
        billed: whether the server had billed it.
    """

    fault: dict[str, Any]
    outcome: str
    wait_s: tuple[float, float]
    status: int | None = None
    cost: int | None = FREE
    billed: bool = False
    forms: tuple[int, ...] = (PLAIN, STREAMED)


FAILED, RATE_LIMITED, OVERLOADED = (0.1, 1.0), (0.05, 0.5), (0.2, 2.0)


def _later(wait: tuple[float, float], retry_after: float) -> tuple[float, float]:
    return wait[0] + retry_after, wait[1] + retry_after


def _broken(**fault: Any) -> Meets:
    """A reply that began and broke off, after it was billed."""
    forms = (STREAMED,) if fault["kind"] == "malformed_event" else (PLAIN, STREAMED)
    return Meets(fault, "connection_failed", FAILED, 200, cost=UNKNOWN, billed=True, forms=forms)


RETRIED = {
    "429": Meets({"kind": "rate_limited"}, "rate_limited", RATE_LIMITED, 429),
    "429 with retry-after": Meets(
        {"kind": "rate_limited", "retry_after_s": 1}, "rate_limited", _later(RATE_LIMITED, 1), 429
    ),
    "429 for a steep rise": Meets({"kind": "rate_limited", "ramp": True}, "rate_limited", RATE_LIMITED, 429),
    "529": Meets({"kind": "overloaded"}, "overloaded", OVERLOADED, 529),
    "529 with retry-after": Meets(
        {"kind": "overloaded", "retry_after_s": 7}, "overloaded", _later(OVERLOADED, 7), 529
    ),
    "503": Meets({"kind": "server_error", "status": 503}, "overloaded", OVERLOADED, 503),
    "500": Meets({"kind": "server_error"}, "server_failed", FAILED, 500),
    "500 with retry-after": Meets(
        {"kind": "server_error", "retry_after_s": 5}, "server_failed", _later(FAILED, 5), 500
    ),
    "502, a page of a gateway": Meets(
        {"kind": "server_error", "status": 502, "html": True}, "server_failed", FAILED, 502
    ),
    "504": Meets({"kind": "server_error", "status": 504}, "server_failed", FAILED, 504),
    "408": Meets({"kind": "server_error", "status": 408}, "server_failed", FAILED, 408),
    "409": Meets({"kind": "server_error", "status": 409}, "server_failed", FAILED, 409),
    "reset": Meets({"kind": "reset"}, "connection_failed", FAILED, cost=UNKNOWN),
    "silence, then a reset": Meets(
        {"kind": "hang", "pause_s": 0.2}, "connection_failed", FAILED, cost=UNKNOWN
    ),
    "silence without end": Meets({"kind": "hang", "pause_s": TOO_LONG_S}, "connection_failed", FAILED, cost=UNKNOWN),
    "an outage that resets": Meets({"kind": "outage"}, "connection_failed", FAILED, cost=UNKNOWN),
    "an outage that answers 503": Meets(
        {"kind": "outage", "mode": "unavailable"}, "overloaded", OVERLOADED, 503
    ),
    "a reply lost after it was billed": Meets(
        {"kind": "lost_reply"}, "connection_failed", FAILED, cost=UNKNOWN, billed=True
    ),
    "a cut": _broken(kind="cut"),
    "a cut by a reset": _broken(kind="cut", how="reset"),
    "a cut before the first byte": _broken(kind="cut", after=0.0),
    "a pause longer than patience": Meets(
        {"kind": "stall", "pause_s": TOO_LONG_S}, "connection_failed", FAILED, cost=UNKNOWN, billed=True, forms=(PLAIN,)
    ),
    "a pause longer than patience in a stream": Meets(
        {"kind": "stall", "pause_s": TOO_LONG_S},
        "connection_failed", FAILED, 200, cost=UNKNOWN, billed=True, forms=(STREAMED,),
    ),
    "a broken event": _broken(kind="malformed_event"),
    "an error in the middle": Meets(
        {"kind": "stream_error"}, "overloaded", OVERLOADED, 200, cost=UNKNOWN, billed=True, forms=(STREAMED,)
    ),
    "another error in the middle": Meets(
        {"kind": "stream_error", "error_type": "api_error"},
        "server_failed", FAILED, 200, cost=UNKNOWN, billed=True, forms=(STREAMED,),
    ),
}  # fmt: skip


def _each(faults: Mapping[str, Any], forms: Callable[[Any], tuple[int, ...]]) -> list[Any]:
    """Each fault once in each of its forms, on one database and the other by turns."""
    each_form = [(name, fault, form) for name, fault in faults.items() for form in forms(fault)]
    return [
        pytest.param(fault, form, database, id=f"{name}-{FORMS[form]}-{database}")
        for (name, fault, form), database in zip(each_form, cycle(DATABASES), strict=False)
    ]


def _with_patience(each: Any) -> Any:
    """The same with `idle_s`."""
    too_long = each.values[0].fault.get("pause_s") == TOO_LONG_S
    return pytest.param(*each.values, SOON_S if too_long else IDLE_S, id=each.id)


def _played(fault: dict[str, Any], idle_s: float) -> dict[str, Any]:
    """The fault for a simulator whose caller bears so much silence, and may itself be held up for some time."""
    return {**fault, "pause_s": idle_s + HELD_UP_S} if fault.get("pause_s") == TOO_LONG_S else fault


@pytest.mark.parametrize(
    ("meets", "max_tokens", "database_url", "idle_s"),
    [_with_patience(each) for each in _each(RETRIED, lambda meets: meets.forms)],
    indirect=["database_url"],
)
async def test_a_fault_costs_one_attempt_and_a_wait_and_then_the_prompt_is_answered(
    worker: Worker, claude: SimulatorHandle, meets: Meets, max_tokens: int, idle_s: float
) -> None:
    batch_id, [job_id] = worker.submit(a_prompt(max_tokens=max_tokens))
    claude.set_scenario(fault=[_played(meets.fault, idle_s)])
    await worker.answer(job_id)
    claude.set_scenario()
    worker.bear(IDLE_S)
    [met] = worker.attempts(job_id)
    assert (met.outcome, met.status, met.cost_nanos) == (meets.outcome, meets.status, meets.cost)
    assert worker.job(job_id).state is JobState.PENDING
    not_before = worker.not_before(job_id)
    assert not_before is not None
    assert met.closed_at is not None
    least, most = meets.wait_s
    assert least <= (not_before - met.closed_at).total_seconds() <= most

    await worker.answer(job_id)
    assert worker.job(job_id).state is JobState.SUCCEEDED
    await _accounts_agree(worker, batch_id, billed_and_unseen=int(meets.billed))
    await _no_permit_is_left(worker)


async def _accounts_agree(worker: Worker, batch_id: str, *, billed_and_unseen: int) -> None:
    """Every line of the bill is an attempt with that cost, or one whose cost we say nobody knows."""
    with worker.process.runtime.database.read() as connection:
        attempts = ledger.attempts_of(connection, batch_id=batch_id)
    book = await _whole_book(worker.claude)
    known = {each.request_id: each.cost_nanos for each in attempts if each.cost_nanos}
    bills = {line["request_id"]: line["cost_nanos"] for line in book["bills"]}
    assert {request: bills.get(request) for request in known} == known
    assert len(bills) - len(known) == billed_and_unseen
    unknown = [each for each in attempts if each.cost_nanos is None]
    assert len(unknown) >= billed_and_unseen
    batch = worker.batch(batch_id)
    assert batch.cost_nanos == sum(known.values())
    assert batch.unpriced_attempts == len(unknown)
    assert batch.unknown_nanos == sum(each.reserved_nanos or 0 for each in unknown)
    assert (batch.attempts, batch.reserved_nanos) == (len(attempts), 0)


async def _whole_book(claude: SimulatorHandle) -> dict[str, Any]:
    while claude.ledger()["in_flight"]:  # noqa: ASYNC110  # it books what we hung up on when it notices
        await asyncio.sleep(0.02)
    return claude.ledger(detail=True)


async def _no_permit_is_left(worker: Worker) -> None:
    limiter = worker.process.loop_side.limiter
    states = [await limiter.peek(pool) for pool in await limiter.pools()]
    assert [state.in_flight for state in states] == [0] * len(states)


HARMLESS = {
    "a slow drip": {"kind": "slow_drip", "piece_bytes": 40, "pause_s": 0.001},
    "a pause within patience": {"kind": "stall", "pause_s": 0.1},
    "an event nobody knows": {"kind": "unknown_event"},
    "a refusal": {"kind": "answer", "stop_reason": "refusal", "category": "cyber"},
    "an answer that was cut off by max_tokens": {"kind": "answer", "stop_reason": "max_tokens"},
    "an empty answer": {"kind": "answer", "reply": ""},
}


@pytest.mark.parametrize(
    ("fault", "max_tokens", "database_url"),
    _each(HARMLESS, lambda _: (PLAIN, STREAMED)),
    indirect=["database_url"],
)
async def test_what_is_no_failure_is_kept_and_paid_once(
    worker: Worker, claude: SimulatorHandle, fault: dict[str, Any], max_tokens: int
) -> None:
    batch_id, [job_id] = worker.submit(a_prompt(max_tokens=max_tokens))
    claude.set_scenario(fault=[fault])
    await worker.answer(job_id)
    assert worker.job(job_id).state is JobState.SUCCEEDED
    [attempt] = worker.attempts(job_id)
    if "stop_reason" in fault:
        assert attempt.stop_reason == fault["stop_reason"]
    await _accounts_agree(worker, batch_id, billed_and_unseen=0)
    await _no_permit_is_left(worker)


@pytest.mark.parametrize(
    ("status", "database_url"),
    [(400, "sqlite"), (400, "postgres"), (404, "sqlite"), (413, "postgres"), (422, "sqlite")],
    indirect=["database_url"],
)
async def test_a_refused_prompt_is_not_sent_again_and_costs_nothing(
    worker: Worker, claude: SimulatorHandle, status: int
) -> None:
    batch_id, [job_id] = worker.submit(a_prompt())
    claude.set_scenario(fault=[{"kind": "server_error", "status": status}])
    await worker.answer(job_id)
    [attempt] = worker.attempts(job_id)
    assert (attempt.outcome, attempt.status, attempt.cost_nanos) == ("prompt_rejected", status, 0)
    assert worker.job(job_id).state is JobState.ERRORED
    assert worker.batch(batch_id).state is BatchState.ENDED
    await _accounts_agree(worker, batch_id, billed_and_unseen=0)
    await _no_permit_is_left(worker)


STOPPING = {
    "a revoked key": ({"kind": "key_revoked"}, "key_rejected", 401, PausedBy.KEY),
    "a model that is forbidden": ({"kind": "forbidden"}, "key_rejected", 403, PausedBy.KEY),
    **{
        f"a spend limit, {form}": (
            {"kind": "spend_cap", "form": form}, "spend_cap_reached", status, PausedBy.SPEND_CAP
        )
        for form, status in (
            ("enforced", 429), ("contract", 429), ("organization", 400), ("workspace", 400), ("billing", 402),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "outcome", "status", "by", "database_url"),
    [
        pytest.param(*stopping, database, id=f"{name}-{database}")
        for (name, stopping), database in zip(STOPPING.items(), cycle(DATABASES), strict=False)
    ],
    indirect=["database_url"],
)
async def test_what_no_waiting_cures_pauses_the_batch_after_one_call(  # noqa: PLR0917  # fixtures
    worker: Worker, claude: SimulatorHandle, fault: dict[str, Any], outcome: str, status: int, by: PausedBy
) -> None:
    batch_id, [job_id] = worker.submit(a_prompt())
    claude.set_scenario(fault=[fault])
    await worker.answer(job_id)
    if worker.batch(batch_id).state is BatchState.ACTIVE:
        await worker.answer(job_id)  # the next job finds that nobody is left to call with
    paused = worker.batch(batch_id)
    assert (paused.state, paused.paused_by) == (BatchState.PAUSED, by)
    assert paused.reason
    [attempt] = worker.attempts(job_id)
    assert (attempt.outcome, attempt.status, attempt.cost_nanos) == (outcome, status, 0)
    assert worker.job(job_id).state is JobState.PENDING
    await _accounts_agree(worker, batch_id, billed_and_unseen=0)
    await _no_permit_is_left(worker)


MIXED = 200
TIMES = 3
"""How often each fault happens."""


async def test_all_of_them_mixed_leave_every_prompt_answered_and_every_call_accounted_for(
    worker: Worker, claude: SimulatorHandle
) -> None:
    faults = [meets.fault for meets in RETRIED.values() if meets.fault["kind"] != "outage"]
    prompts = [a_prompt(f"Question {n}", max_tokens=(PLAIN, STREAMED)[n % 2]) for n in range(MIXED)]
    batch_id, job_ids = worker.submit(*prompts)
    claude.set_scenario(
        fault=[
            {**_played(fault, IDLE_S), "nth": [number + 1 + len(faults) * time for time in range(TIMES)]}
            for number, fault in enumerate(faults)
        ]
    )
    while open_jobs := [each for each in job_ids if not worker.job(each).state.is_terminal]:
        await asyncio.gather(*(worker.answer(each) for each in open_jobs))
    with worker.process.runtime.database.read() as connection:
        attempts = ledger.attempts_of(connection, batch_id=batch_id)
    book = await _whole_book(claude)
    assert {worker.job(each).state for each in job_ids} == {JobState.SUCCEEDED}
    assert len(attempts) - MIXED == sum(book["faults"].values()) == TIMES * len(faults)
    await _accounts_agree(
        worker, batch_id, billed_and_unseen=book["cut"]["answers"] + book["lost"]["answers"]
    )
    await _no_permit_is_left(worker)
