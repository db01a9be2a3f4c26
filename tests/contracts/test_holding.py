"""What is paused for a spend limit: every batch of the endpoint, unless one of them went on since."""

from datetime import timedelta

from promptmill.clock import SystemClock
from promptmill.states import BatchState, PausedBy
from promptmill.store import batches, control
from promptmill.store.batches import BatchRow
from promptmill.store.database import Database
from promptmill.testing import a_batch
from workers.holding import Held, pause_held

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
