"""What a worker process knows of the batches at work, on both databases: told at first sight, kept fresh, never in the way."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from promptmill.clock import SystemClock
from promptmill.experience import Experience
from promptmill.store import batches, jobs, leases
from promptmill.store.batches import BatchRow
from promptmill.store.database import Database
from promptmill.store.jobs import Completion, LoadedJob
from promptmill.store.ledger import ClosedAttempt
from promptmill.testing import a_batch
from promptmill.usage import Usage
from tests.claims import a_claim
from workers.experience import Experiences, family_of

GROUP = "claude-sonnet-5"


@pytest.fixture
def experiences(database: Database) -> Iterator[Experiences]:
    made = Experiences(database, SystemClock(), every=0.05)
    yield made
    made.stop()


def answer(database: Database, batch: BatchRow, output: int, count: int) -> None:
    """Answer some jobs of a batch, each a minute ago within a second."""
    now = SystemClock().now() - timedelta(seconds=60)
    with database.begin() as conn:
        pending = jobs.select_pending(conn, batch.id, GROUP, count, now)
        queued = jobs.queue(conn, [each.id for each in pending], now)
        claims = [a_claim(each, now, reserved_nanos=1) for each in queued]
        for lease in leases.begin(conn, claims, "worker", now).values():
            closed = ClosedAttempt(
                attempt_id=lease.attempt_id, outcome="succeeded", closed_at=now + timedelta(seconds=1),
                usage=Usage(input_tokens=20, output_tokens=output), cost_nanos=1,
            )  # fmt: skip
            done = Completion(
                job_id=lease.job_id, token=lease.token, attempt=closed, message={}, text="", stop_reason=None,
                model=GROUP, simulated=True,
            )  # fmt: skip
            jobs.complete(conn, [done], now)


def a_job(database: Database, batch: BatchRow) -> LoadedJob:
    with database.read() as conn:
        [pending] = jobs.select_pending(conn, batch.id, GROUP, 1, SystemClock().now())
        return jobs.load(conn, [pending.id])[pending.id]


async def test_the_first_job_of_a_batch_waits_for_what_is_known_of_its_template(
    database: Database, experiences: Experiences
) -> None:
    answer(database, a_batch(database, 60, template="t"), 30, 60)
    fresh = a_batch(database, 3, template="t")
    told: dict[str, Experience] = {}
    experiences.attend(asyncio.get_running_loop(), told.__setitem__)
    job = a_job(database, fresh)

    await asyncio.gather(*(experiences.meet(job) for _ in range(50)))

    assert set(told) == {family_of(fresh.id, GROUP)}
    assert told[family_of(fresh.id, GROUP)].output.mean == pytest.approx(30, rel=0.1)


async def test_what_others_answer_meanwhile_is_told_within_a_round(
    database: Database, experiences: Experiences
) -> None:
    batch = a_batch(database, 100)
    told: asyncio.Queue[Experience] = asyncio.Queue()
    experiences.attend(asyncio.get_running_loop(), lambda _family, known: told.put_nowait(known))
    await experiences.meet(a_job(database, batch))
    assert (await told.get()).basis.batch == 0
    answer(database, batch, 40, 60)
    experiences.start()

    async with asyncio.timeout(10):
        while (await told.get()).basis.batch < 60:
            pass


async def test_after_a_break_a_family_is_read_again_before_its_next_job(
    database: Database, experiences: Experiences
) -> None:
    batch = a_batch(database, 100)
    told: dict[str, Experience] = {}
    experiences.attend(asyncio.get_running_loop(), told.__setitem__)
    job = a_job(database, batch)
    await experiences.meet(job)
    answer(database, batch, 40, 60)

    async with asyncio.timeout(10):  # nobody keeps it fresh: the thread was not started
        while told[family_of(batch.id, GROUP)].basis.batch < 60:
            await asyncio.sleep(0.01)
            await experiences.meet(job)


def test_after_a_break_the_dispatcher_is_told_what_holds_now(
    database: Database, experiences: Experiences, wait_until: Callable[..., None]
) -> None:
    batch = a_batch(database, 100)
    with database.read() as conn:
        row = batches.get(conn, batch.id)
    experiences.of(row, GROUP)
    answer(database, batch, 40, 60)

    def is_read_again() -> bool:
        known = experiences.of(row, GROUP)
        return known is not None and known.basis.batch == 60

    wait_until(is_read_again)


async def test_a_round_that_hangs_does_not_hold_up_the_end(
    database: Database, experiences: Experiences, monkeypatch: pytest.MonkeyPatch
) -> None:
    await experiences.meet(a_job(database, a_batch(database, 1)))
    hangs, released = threading.Event(), threading.Event()

    def hang(_self: Database) -> None:
        hangs.set()
        released.wait(60)
        raise RuntimeError("away")

    monkeypatch.setattr(Database, "read", hang)
    experiences.start()
    assert hangs.wait(60)
    try:
        async with asyncio.timeout(10):
            await asyncio.to_thread(experiences.stop)
    finally:
        released.set()


async def test_a_database_that_is_away_keeps_no_job_from_being_answered(
    database: Database, experiences: Experiences, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_job(database, a_batch(database, 1))

    def away(_self: Database) -> None:
        raise RuntimeError("away")

    monkeypatch.setattr(Database, "read", away)

    await experiences.meet(job)


def test_the_dispatcher_is_told_at_first_sight(database: Database, experiences: Experiences) -> None:
    batch = a_batch(database, 60)
    answer(database, batch, 30, 50)
    with database.read() as conn:
        row = batches.get(conn, batch.id)

    known = experiences.of(row, GROUP)

    assert known is not None
    assert known.output.mean == pytest.approx(30, rel=0.1)
