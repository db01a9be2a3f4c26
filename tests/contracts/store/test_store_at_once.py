"""Many writers at once: nobody waits in a ring, each job is answered once, the sums hold."""

import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from promptmill.states import BatchState
from promptmill.store import jobs, leases

WRITERS = 4
BATCHES = 3
JOBS = 40


def test_many_writers_finish_several_batches_without_a_deadlock(world: Any) -> None:
    several = [world.batch(JOBS) for _ in range(BATCHES)]
    world.alive("worker-1")
    accepted: list[str] = []

    def write(seed: int) -> None:
        chance = random.Random(seed)
        held: list[Any] = []
        while any(world.row(made).state is not BatchState.ENDED for made in several):
            done, held = held, []
            queued = [each for made in several for each in world.dispatch(made, chance.randint(0, 5))]
            # The same outcomes are reported by every second writer twice, and in an order of its own.
            done += chance.sample(done, len(done) // 2)
            chance.shuffle(queued)
            with world.database.begin() as conn:
                touched = {each.job_id for each in [*done, *queued]}
                jobs.lock_batches_of(conn, touched)
                accepted.extend(jobs.complete(conn, [world.completion(lease) for lease in done], world.now))
                claims = [world.claim(each) for each in queued]
                granted = leases.begin(conn, claims, "worker-1", world.now)
            held.extend(granted.values())

    _at_once(write, range(WRITERS))
    assert len(accepted) == len(set(accepted)) == BATCHES * JOBS
    for made in several:
        assert world.row(made).attempts == JOBS
        world.assert_adds_up(made)


def test_the_last_jobs_of_a_batch_end_it_once(world: Any) -> None:
    made = world.batch(WRITERS)
    held = world.running(made)
    ended: list[bool] = []

    def finish(lease: Any) -> None:
        with world.database.begin() as conn:
            jobs.complete(conn, [world.completion(lease)], world.now)
        ended.append(world.row(made).state is BatchState.ENDED)

    _at_once(finish, held)
    assert any(ended)
    assert world.row(made).succeeded == WRITERS
    world.assert_adds_up(made)


def test_a_server_that_isolates_more_by_default_changes_nothing(postgres_url: str, world_of: Any) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(
            f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'".encode()
        )
    test_many_writers_finish_several_batches_without_a_deadlock(world_of(postgres_url))


def _at_once(act: Callable[[Any], None], arguments: Sequence[Any]) -> None:
    """Run `act` in one thread for each argument; an error in one of them is the test's."""
    errors: list[BaseException] = []

    def run(argument: Any) -> None:
        try:
            act(argument)
        except BaseException as error:  # noqa: BLE001  # handed to the thread of the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(each,)) for each in arguments]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if errors:
        raise errors[0]
