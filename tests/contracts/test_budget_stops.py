"""A batch that its budget has stopped, as a person and a script see it."""

from producers import tables
from producers.cli.exits import Exit, exit_for
from producers.watch import Moment
from producers.wording import budget
from promptmill.clock import SystemClock
from promptmill.store import jobs, leases, stats
from promptmill.store.database import Database
from promptmill.testing import a_batch
from tests.claims import a_claim

DOLLAR = 1_000_000_000


def moment_of(database: Database, batch_id: str) -> Moment:
    with database.read() as connection:
        status = stats.status(connection, batch_id, SystemClock().now())
    return Moment(status, 1, (), 0.0, 0.0, 0.0, eta_s=None, bound_by=None)


def claim(database: Database, batch_id: str, dollars: int | None) -> None:
    """The next job wants so much; None where nobody knows its price."""
    now = SystemClock().now()
    with database.begin() as connection:
        [next_one, *_] = jobs.select_pending(connection, batch_id, "claude-sonnet-5", 1, now)
        [queued] = jobs.queue(connection, [next_one.id], now)
        wanted = a_claim(queued, now, reserved_nanos=None if dollars is None else dollars * DOLLAR)
        leases.begin(connection, [wanted], "worker", now)


def test_it_says_why_and_how_to_go_on(database: Database) -> None:
    batch = a_batch(database, 3, budget_nanos=5 * DOLLAR, name="the batch")
    claim(database, batch.id, 6)

    moment = moment_of(database, batch.id)

    assert moment.stopped_by_budget
    assert moment.hint == (
        "the batch is paused (budget of $5.00: $0.00 spent; the next call may cost $6.00); "
        "go on with: promptmill set 'the batch' --budget 11.00"
    )
    assert exit_for(moment.status) is Exit.STOPPED


def test_for_a_price_that_is_unknown_no_larger_budget_is_advised(database: Database) -> None:
    batch = a_batch(database, 3, budget_nanos=5 * DOLLAR, name="the batch")
    claim(database, batch.id, None)

    moment = moment_of(database, batch.id)

    assert moment.stopped_by_budget
    assert moment.what_to_do == (
        "no larger budget helps: set the price of its model in promptmill.toml and restart the workers, "
        "then: promptmill resume 'the batch'"
    )


def test_while_a_call_is_in_flight_it_goes_on(database: Database) -> None:
    batch = a_batch(database, 3, budget_nanos=5 * DOLLAR)
    claim(database, batch.id, 4)
    claim(database, batch.id, 4)

    moment = moment_of(database, batch.id)

    assert not moment.stopped_by_budget
    assert moment.hint is None
    assert (
        budget(moment.status.batch) == "$5.00: $0.00 spent, $4.00 set aside for calls in flight, $1.00 left"
    )
    assert "budget    $5.00: $0.00 spent" in tables.status(moment)


def test_a_batch_without_a_budget_says_nothing_of_one(database: Database) -> None:
    batch = a_batch(database, 1)

    assert budget(batch) is None
    assert "budget" not in tables.status(moment_of(database, batch.id))
