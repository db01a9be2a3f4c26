"""The dispatcher on both databases and a real Redis: `pending` becomes `queued`, commit, then publish."""

from collections.abc import Iterator, Sequence

import pytest
from redis import Redis

from promptmill.broker import Ticket
from promptmill.clock import SystemClock
from promptmill.dimensions import Amounts
from promptmill.errors import Unavailable
from promptmill.experience import Answered, Experience, of_batch
from promptmill.states import JobState
from promptmill.store import control, stats
from promptmill.store import workers as store_workers
from promptmill.store.database import Database, database_now
from promptmill.store.workers import NewWorker
from promptmill.testing import a_batch, a_prompt
from promptmill.usage import Usage
from workers.accounts import GroupLimits
from workers.dispatcher import Dispatcher

SLOTS = 40


class Broker:
    """A queue that remembers what it was given, and can be away."""

    def __init__(self) -> None:
        self.tickets: list[Ticket] = []
        self.away = False

    def publish(self, tickets: Sequence[Ticket]) -> None:
        if self.away:
            raise Unavailable("the broker is away")
        self.tickets += tickets


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def redis(clean_redis: str) -> Iterator[Redis]:
    with Redis.from_url(clean_redis) as client:
        yield client


@pytest.fixture
def limits() -> dict[str, GroupLimits]:
    return {}


@pytest.fixture
def known() -> dict[str, Experience]:
    return {}


@pytest.fixture
def dispatcher(
    database: Database,
    broker: Broker,
    redis: Redis,
    limits: dict[str, GroupLimits],
    known: dict[str, Experience],
) -> Dispatcher:
    a_worker = NewWorker(id="w", host="h", pid=1, version="0", endpoint="simulated", slots=SLOTS)
    with database.begin() as connection:
        store_workers.register(connection, a_worker, database_now(connection))
    return Dispatcher(
        database=database,
        redis=redis,
        publish=broker.publish,
        limits_of=lambda group: limits.get(group, GroupLimits()),
        experience_of=lambda batch, _group: known.get(batch.id),
        endpoint="simulated",
        clock=SystemClock(),
    )


def states_of(database: Database, batch_id: str) -> dict[JobState, int]:
    with database.read() as connection:
        jobs = stats.status(connection, batch_id, SystemClock().now()).jobs
    return {state: count for state, count in jobs.items() if count}


def test_pending_jobs_are_queued_and_published_in_order(
    database: Database, dispatcher: Dispatcher, broker: Broker
) -> None:
    batch = a_batch(database, 3)
    assert dispatcher.fill_window() == 3
    assert states_of(database, batch.id) == {JobState.QUEUED: 3}
    assert [ticket.dispatch for ticket in broker.tickets] == [1, 1, 1]
    assert {ticket.batch for ticket in broker.tickets} == {batch.name}


def test_no_more_goes_out_than_the_slots_can_take(
    database: Database, dispatcher: Dispatcher, broker: Broker
) -> None:
    a_batch(database, 5 * SLOTS)
    dispatcher.fill_window()
    dispatcher.fill_window()
    assert len(broker.tickets) <= 2 * SLOTS


def test_the_slots_of_workers_for_another_endpoint_do_not_count(
    database: Database, dispatcher: Dispatcher, broker: Broker
) -> None:
    other = NewWorker(id="o", host="h", pid=2, version="0", endpoint="https://elsewhere", slots=10 * SLOTS)
    with database.begin() as connection:
        store_workers.register(connection, other, database_now(connection))
    a_batch(database, 5 * SLOTS)
    dispatcher.fill_window()
    assert len(broker.tickets) <= 2 * SLOTS


def test_the_window_follows_the_limit(
    database: Database, dispatcher: Dispatcher, broker: Broker, limits: dict[str, GroupLimits]
) -> None:
    limits["claude-sonnet-5"] = GroupLimits(Amounts(requests=60))
    a_batch(database, 50)
    dispatcher.fill_window()
    dispatcher.fill_window()
    assert len(broker.tickets) == 2


def test_a_paused_group_is_not_filled(
    database: Database, dispatcher: Dispatcher, broker: Broker, limits: dict[str, GroupLimits]
) -> None:
    limits["claude-sonnet-5"] = GroupLimits(paused_s=30)
    a_batch(database, 5)
    assert dispatcher.fill_window() == 0


def test_a_batch_for_another_endpoint_is_left_alone(database: Database, dispatcher: Dispatcher) -> None:
    a_batch(database, 3, endpoint="https://api.anthropic.com", simulated=False)
    assert dispatcher.fill_window() == 0


def test_a_paused_batch_is_left_alone(database: Database, dispatcher: Dispatcher) -> None:
    batch = a_batch(database, 3)
    with database.begin() as connection:
        control.pause(connection, batch.id, "by a person", SystemClock().now())
    assert dispatcher.fill_window() == 0


def test_two_batches_share_the_window_by_weight(
    database: Database, dispatcher: Dispatcher, broker: Broker
) -> None:
    heavy = a_batch(database, 100, priority=3.0)
    light = a_batch(database, 100, priority=1.0)
    dispatcher.fill_window()
    counts = [sum(ticket.batch == batch.name for ticket in broker.tickets) for batch in (heavy, light)]
    assert counts == [30, 10]


def test_a_newcomer_gets_its_share_although_a_large_batch_was_first(
    database: Database, dispatcher: Dispatcher, broker: Broker, limits: dict[str, GroupLimits]
) -> None:
    limits["claude-sonnet-5"] = GroupLimits(Amounts(requests=600))
    a_batch(database, 200)
    dispatcher.fill_window()
    broker.tickets.clear()
    small = a_batch(database, 10, priority=10.0)
    limits["claude-sonnet-5"] = GroupLimits(Amounts(requests=1200))
    dispatcher.fill_window()
    assert sum(ticket.batch == small.name for ticket in broker.tickets) == 10


def test_when_the_broker_is_away_the_jobs_are_pending_again(
    database: Database, dispatcher: Dispatcher, broker: Broker
) -> None:
    batch = a_batch(database, 3)
    broker.away = True
    with pytest.raises(Unavailable):
        dispatcher.fill_window()
    assert states_of(database, batch.id) == {JobState.PENDING: 3}
    broker.away = False
    assert dispatcher.fill_window() == 3
    assert {ticket.dispatch for ticket in broker.tickets} == {2}


def test_two_dispatchers_at_once_queue_each_job_once(
    database: Database, dispatcher: Dispatcher, broker: Broker
) -> None:
    a_batch(database, 30)
    dispatcher.fill_window()
    dispatcher.fill_window()
    ids = [ticket.job_id for ticket in broker.tickets]
    assert len(ids) == len(set(ids)) == 30


def test_lost_virtual_times_mean_that_all_start_equal(
    database: Database, dispatcher: Dispatcher, broker: Broker, redis: Redis
) -> None:
    a_batch(database, 30)
    dispatcher.fill_window()
    redis.flushall()
    assert dispatcher.fill_window() == 0


def answered(input_tokens: int, output_tokens: int) -> Experience:
    """What is known of jobs that were estimated at 20 tokens in, after many answers."""
    usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
    return of_batch(Experience.first_guess(), [Answered(20, 400, usage)] * 150)


def test_batches_with_different_bottlenecks_fill_each_others_gaps_by_what_was_learned(
    database: Database,
    dispatcher: Dispatcher,
    broker: Broker,
    limits: dict[str, GroupLimits],
    known: dict[str, Experience],
) -> None:
    """Both look alike when they are admitted; one turns out to write ten times as much."""
    limits["claude-sonnet-5"] = GroupLimits(Amounts(input_tokens=60_000, output_tokens=30_000))
    short, long = a_batch(database, 100), a_batch(database, 100)
    known[short.id], known[long.id] = answered(5, 4), answered(5, 40)
    dispatcher.fill_window()
    counts = [sum(ticket.batch == batch.name for ticket in broker.tickets) for batch in (short, long)]
    # The same limit holds for both: equal shares of it are ten short ones for each long one.
    assert counts[0] == pytest.approx(10 * counts[1], rel=0.35)


def test_the_window_is_as_large_as_the_learned_amounts_allow(
    database: Database,
    dispatcher: Dispatcher,
    broker: Broker,
    limits: dict[str, GroupLimits],
    known: dict[str, Experience],
) -> None:
    limits["claude-sonnet-5"] = GroupLimits(Amounts(output_tokens=6_000))
    batch = a_batch(database, 100)
    known[batch.id] = answered(20, 20)
    dispatcher.fill_window()
    assert len(broker.tickets) == 10  # 100 tokens a second, for two seconds


def test_no_more_goes_out_than_the_budget_can_pay_for(
    database: Database, dispatcher: Dispatcher, broker: Broker
) -> None:
    a_batch(database, 20, budget_nanos=45, estimate_nanos=200)
    assert dispatcher.fill_window() == 4
    assert dispatcher.fill_window() == 0


def test_where_nothing_fits_one_goes_out_to_find_out_and_no_more(
    database: Database, dispatcher: Dispatcher, broker: Broker
) -> None:
    a_batch(database, 20, budget_nanos=1, estimate_nanos=200)
    assert dispatcher.fill_window() == 1
    assert dispatcher.fill_window() == 0


def test_the_models_of_a_batch_share_its_budget(
    database: Database, dispatcher: Dispatcher, broker: Broker
) -> None:
    prompts = [a_prompt(model=model) for model in ("claude-sonnet-5", "claude-haiku-5-5") for _ in range(10)]
    a_batch(database, prompts, budget_nanos=45, estimate_nanos=200)
    assert dispatcher.fill_window() == 4


def test_a_batch_without_room_leaves_the_window_to_others(
    database: Database, dispatcher: Dispatcher, broker: Broker
) -> None:
    broke = a_batch(database, 10, budget_nanos=10, estimate_nanos=100)
    dispatcher.fill_window()
    rich = a_batch(database, 10)
    assert dispatcher.fill_window() == 10
    assert {ticket.batch for ticket in broker.tickets[1:]} == {rich.name} != {broke.name}
