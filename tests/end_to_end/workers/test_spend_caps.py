"""A spend limit of the account: another account takes over, else everything waits for the date or for a person."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from promptmill.clock import SystemClock
from promptmill.states import BatchState, JobState, PausedBy
from promptmill.store import control, ledger
from promptmill.store.batches import BatchRow
from promptmill.store.tables import batch as batch_table
from promptmill.testing import a_batch, simulated_claude

Start = Callable[..., Any]
pytestmark = pytest.mark.timeout(180)


def cap(organization: str | None = None, form: str = "enforced") -> dict[str, Any]:
    where = {} if organization is None else {"organization": organization}
    return {"kind": "spend_cap", "form": form, **where}


def wait_for_pause(mill: Any, of: BatchRow) -> BatchRow:
    mill.wait_until(lambda: mill.status(of.id).batch.state == "paused", timeout=30)
    mill.wait_until(lambda: mill.status(of.id).jobs[JobState.RUNNING] == 0, timeout=30)
    row: BatchRow = mill.status(of.id).batch
    return row


def next_month() -> datetime:
    today = datetime.now(UTC)
    return datetime(today.year + today.month // 12, today.month % 12 + 1, 1, tzinfo=UTC)


def succeeded(mill: Any, of: BatchRow) -> int:
    count: int = mill.status(of.id).jobs[JobState.SUCCEEDED]
    return count


def test_another_account_takes_over_and_no_batch_is_paused(
    start_mill: Start, sqlite_url: str, write_keys: Callable[..., Any]
) -> None:
    keys = write_keys()
    after_30 = {**cap("one"), "after_usd": 0.03}
    with simulated_claude(
        organizations=keys.organizations, only_known_keys=True, first_token_s=0.2, faults=[after_30]
    ) as claude:
        mill = start_mill(sqlite_url, claude, PROMPTMILL_KEYS_FILE=keys.file, PROMPTMILL_CONCURRENCY="5")
        made = a_batch(mill.database, 150)
        mill.start_worker()
        status = mill.wait_for_end(made.id)
    assert status.jobs[JobState.SUCCEEDED] == 150
    with mill.database.read() as connection:
        attempts = ledger.attempts_of(connection, batch_id=made.id)
    refused = [each for each in attempts if each.outcome == "spend_cap_reached"]
    used = Counter(each.key_label for each in attempts if each.outcome == ledger.SUCCEEDED)
    assert 1 <= len(refused) <= 10  # what was in flight or on its way; nobody asks that account again
    assert {each.key_label for each in refused} == {"main"}
    assert used["second"] > used["main"] > 0
    assert {each.cost_nanos for each in refused} == {0}


def test_without_another_account_every_batch_waits_for_the_date_and_goes_on_by_itself(
    start_mill: Start, postgres_first_url: str
) -> None:
    with simulated_claude(faults=[cap()]) as claude:
        mill = start_mill(postgres_first_url, claude)
        first, second = a_batch(mill.database, 20), a_batch(mill.database, 20)
        mill.start_worker()
        row = wait_for_pause(mill, first)
        assert (row.paused_by, row.resume_at) == (PausedBy.SPEND_CAP, next_month())
        assert row.reason == f"spend limit reached; goes on {next_month():%Y-%m-%d} 00:00 UTC"
        assert wait_for_pause(mill, second).resume_at == next_month()
        asked = claude.ledger()["refused"]["total"]
        late = a_batch(mill.database, 5)  # submitted while the account rests: nobody is asked for it
        assert wait_for_pause(mill, late).paused_by is PausedBy.SPEND_CAP
        assert claude.ledger()["refused"]["total"] == asked <= 40
        claude.set_scenario()
        with mill.database.begin() as connection:  # the first of the month has come
            now = SystemClock().now()
            connection.execute(update(batch_table).values(resume_at=now - timedelta(seconds=1)))
        for each, jobs in ((first, 20), (second, 20), (late, 5)):
            assert mill.wait_for_end(each.id).jobs[JobState.SUCCEEDED] == jobs


def test_a_person_who_raised_the_limit_says_resume_and_it_works_at_once(
    start_mill: Start, sqlite_url: str
) -> None:
    with simulated_claude(faults=[cap(form="billing")]) as claude:
        mill = start_mill(sqlite_url, claude)
        made = a_batch(mill.database, 30)
        for _ in range(2):
            mill.start_worker()
        row = wait_for_pause(mill, made)
        assert (row.paused_by, row.resume_at) == (PausedBy.SPEND_CAP, None)
        assert str(row.reason).startswith("the account cannot call (402 ")
        with mill.database.begin() as connection:  # too early: it is asked once more, and paused again
            control.resume(connection, made.id, SystemClock().now())
        assert wait_for_pause(mill, made).paused_by is PausedBy.SPEND_CAP
        claude.set_scenario()
        with mill.database.begin() as connection:
            control.resume(connection, made.id, SystemClock().now())
        mill.wait_until(lambda: succeeded(mill, made) > 0, timeout=2.5)
        assert mill.wait_for_end(made.id).batch.state is BatchState.ENDED
