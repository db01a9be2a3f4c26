"""How long a batch will take, as a single look at it tells."""

from datetime import timedelta
from pathlib import Path

from producers.bottleneck import Bottleneck
from producers.watch import Moment, look
from promptmill import settings
from promptmill.clock import SystemClock
from promptmill.ids import new_id
from promptmill.store import jobs, leases, workers
from promptmill.store.database import Database
from promptmill.store.jobs import Completion
from promptmill.store.leases import Claim, Lease
from promptmill.store.ledger import ClosedAttempt
from promptmill.testing import a_batch
from promptmill.usage import Usage

MODEL = "claude-sonnet-5"


def begin(database: Database, batch_id: str, number: int, *, ago: float) -> list[Lease]:
    """Begin some calls so many seconds ago, by a worker that lives."""
    now = SystemClock().now()
    then = now - timedelta(seconds=ago)
    new = workers.NewWorker(id="worker", host="here", pid=1, version="0", endpoint="simulated", slots=10)
    with database.begin() as conn:
        workers.register(conn, new, now)
        pending = jobs.select_pending(conn, batch_id, MODEL, number, now)
        claims = [
            Claim(
                job_id=each.job_id, dispatch=each.dispatch, attempt_id=new_id("attempt"), key_label="k",
                account="a", model=MODEL, reserved_nanos=1, simulated=True, opened_at=then,
            )
            for each in jobs.queue(conn, [each.id for each in pending], then)
        ]  # fmt: skip
        return list(leases.begin(conn, claims, "worker", then).values())


def answer(database: Database, begun: list[Lease]) -> None:
    """Every one of them is answered now."""
    now = SystemClock().now()
    done = [
        Completion(
            job_id=each.job_id, token=each.token, message={}, text="", stop_reason=None, model=MODEL, simulated=True,
            attempt=ClosedAttempt(
                attempt_id=each.attempt_id, outcome="succeeded", closed_at=now, usage=Usage(input_tokens=1, output_tokens=9), cost_nanos=1
            ),
        )
        for each in begun
    ]  # fmt: skip
    with database.begin() as conn:
        jobs.complete(conn, done, now)


def looked(database: Database, batch_id: str, tmp_path: Path) -> Moment:
    of_none = settings.load(environ={}, folder=tmp_path, home=tmp_path)
    return look(database, batch_id, Bottleneck(of_none), of_none)


def test_slow_hours_before_say_nothing_of_the_time_that_is_left(database: Database, tmp_path: Path) -> None:
    made = a_batch(database, 100)
    answer(database, begin(database, made.id, 1, ago=7200))
    assert looked(database, made.id, tmp_path).eta_s is None

    answer(database, begin(database, made.id, 30, ago=10))
    moment = looked(database, made.id, tmp_path)
    assert round(moment.answers_per_s, 2) == 0.5
    assert round(moment.tokens_per_s, 2) == 5
    assert moment.eta_s == 69 / moment.answers_per_s


def test_nobody_can_tell_before_the_calls_in_flight_have_been_answered_once(
    database: Database, tmp_path: Path
) -> None:
    made = a_batch(database, 20)
    first, *others = begin(database, made.id, 8, ago=5)
    answer(database, [first])
    assert looked(database, made.id, tmp_path).eta_s is None
    answer(database, others)
    assert looked(database, made.id, tmp_path).eta_s is not None
