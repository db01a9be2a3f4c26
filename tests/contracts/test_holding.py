"""What is paused for a spend limit: every batch of the endpoint, unless one of them went on since. And what for a key."""

from datetime import timedelta

from promptmill.clock import SystemClock
from promptmill.encryption import Vault, new_key
from promptmill.states import BatchState, PausedBy
from promptmill.store import batches, control
from promptmill.store.batches import BatchRow
from promptmill.store.database import Database
from promptmill.testing import a_batch
from workers.holding import Held, pause_held, resume_for_opened, why_closed

CLOCK = SystemClock()


def states(database: Database, *of: BatchRow) -> list[BatchState]:
    with database.read() as connection:
        return [batches.get(connection, each.id).state for each in of]


def a_rest(batch: BatchRow, **changes: object) -> Held:
    values = {"endpoint": batch.endpoint, "since": CLOCK.now()} | changes
    return Held(batch.id, reason="cap", by=PausedBy.SPEND_CAP, **values)  # type: ignore[arg-type]  # as named here


def test_every_batch_of_the_endpoint_is_paused(database: Database) -> None:
    first, second = a_batch(database, 1), a_batch(database, 1)
    assert pause_held(database, a_rest(first), CLOCK) is None
    assert states(database, first, second) == [BatchState.PAUSED] * 2


def test_only_its_own_where_another_group_may_go_on(database: Database) -> None:
    first, second = a_batch(database, 1), a_batch(database, 1)
    pause_held(database, a_rest(first, endpoint=None), CLOCK)
    assert states(database, first, second) == [BatchState.PAUSED, BatchState.ACTIVE]


def test_a_rest_from_before_a_resume_pauses_nothing_and_says_when_that_was(database: Database) -> None:
    resumed, fresh = a_batch(database, 1), a_batch(database, 1)
    rest = a_rest(fresh)
    pause_held(database, a_rest(resumed, endpoint=None), CLOCK)
    went_on = CLOCK.now() + timedelta(seconds=1)
    with database.begin() as connection:
        control.resume(connection, resumed.id, went_on)
    assert pause_held(database, rest, CLOCK) == went_on
    assert states(database, resumed, fresh) == [BatchState.ACTIVE] * 2


def test_what_waits_for_a_key_to_be_read_goes_on_with_the_worker_that_has_it(
    database: Database, database_url: str
) -> None:
    ours, lost, unnamed, elsewhere = (a_batch(database, 1) for _ in range(4))
    opened = Database.open(database_url, Vault([new_key(), new_key()]))
    reasons = why_closed(opened.key_ids[1]), why_closed("0a1b2c3d"), why_closed(None)
    for batch, why in zip((ours, lost, unnamed), reasons, strict=True):
        pause_held(database, Held(batch.id, None, why, PausedBy.ENCRYPTION), CLOCK)
    pause_held(database, Held(elsewhere.id, None, reasons[0], PausedBy.KEY), CLOCK)
    for each in (database, opened):
        resume_for_opened(each, "https://elsewhere")
    resume_for_opened(database, ours.endpoint)
    assert states(database, ours) == [BatchState.PAUSED]
    resume_for_opened(opened, ours.endpoint)
    assert states(database, ours, lost, unnamed, elsewhere) == [BatchState.ACTIVE, *[BatchState.PAUSED] * 3]
    opened.close()
