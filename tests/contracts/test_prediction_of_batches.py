"""What `status` predicts of a batch, on both databases: by the answers and the prices that its calls have."""

from datetime import timedelta
from pathlib import Path

import pytest

import producers
from producers.bottleneck import Bottleneck
from producers.watch import look
from promptmill import settings
from promptmill.clock import SystemClock
from promptmill.ids import new_id
from promptmill.pricing import price_of
from promptmill.settings import Settings
from promptmill.store import batches, jobs, leases
from promptmill.store.database import Database
from promptmill.store.jobs import Completion
from promptmill.store.ledger import ClosedAttempt
from promptmill.usage import Usage

MODEL = "claude-opus-5"
USAGE = Usage(input_tokens=20, output_tokens=300)


@pytest.fixture
def of_database(database_url: str, tmp_path: Path) -> Settings:
    return settings.load(environ={"DATABASE_URL": database_url}, folder=tmp_path)


def answer(database: Database, batch_id: str, group: str, count: int, cost: int) -> None:
    """Answer some jobs of a batch."""
    now = SystemClock().now() - timedelta(seconds=60)
    with database.begin() as conn:
        pending = jobs.select_pending(conn, batch_id, group, count, now + timedelta(seconds=60))
        claims = [
            leases.Claim(
                job_id=each.job_id, dispatch=each.dispatch, attempt_id=new_id("attempt"), key_label="k",
                account="a", model=MODEL, reserved_nanos=1, simulated=False, opened_at=now,
            )
            for each in jobs.queue(conn, [each.id for each in pending], now)
        ]  # fmt: skip
        for lease in leases.begin(conn, claims, "worker", now).values():
            closed = ClosedAttempt(
                attempt_id=lease.attempt_id, outcome="succeeded", closed_at=now + timedelta(seconds=1),
                usage=USAGE, cost_nanos=cost,
            )  # fmt: skip
            done = Completion(
                job_id=lease.job_id, token=lease.token, attempt=closed, message={}, text="", stop_reason=None,
                model=MODEL, simulated=False,
            )  # fmt: skip
            jobs.complete(conn, [done], now)


@pytest.mark.parametrize("shared", [True, False])
def test_a_fast_batch_is_predicted_by_fast_answers_at_fast_prices(
    database: Database, of_database: Settings, shared: bool
) -> None:
    rows = [{"prompt": f"What is {n} + {n}?", "speed": "fast"} for n in range(100)]
    if not shared:
        del rows[-1]["speed"]
    submitted = producers.submit(rows, model=MODEL, settings=of_database)
    cost = price_of(USAGE, model=MODEL, speed="fast")
    assert cost is not None
    answer(database, submitted.id, f"{MODEL}-fast", 60, cost)

    moment = look(database, submitted.id, Bottleneck(of_database), of_database)

    assert moment.prediction is not None
    assert moment.prediction.projected_nanos == pytest.approx(100 * cost, rel=0.05)
    with database.read() as conn:
        assert ("speed" in batches.shared_of(conn, submitted.id)) is shared
