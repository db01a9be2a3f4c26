"""What the dispatcher costs: looks at a batch of a million jobs and at a hundred batches, publishing into the void.

Between two looks everything that went out is begun, as workers would, so that each look has room for as many ids
again. CPU is that of the dispatcher's thread alone. The baseline, in the same run on
the same rows, is the loop of a plain poller: SELECT … ORDER BY … LIMIT, UPDATE … RETURNING, no fairness, no window.

    .venv/bin/python bench/dispatch.py [--jobs 1000000] [--database sqlite postgres] [--slots 200]
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from million.places import database_of
from million.scenes import ENDPOINT, SCENES, fill
from redis import Redis
from sqlalchemy import event, text

from promptmill.broker import Ticket
from promptmill.clock import SystemClock
from promptmill.dimensions import Amounts
from promptmill.embedded import throwaway_redis
from promptmill.store import workers
from promptmill.store.database import Database, database_now
from promptmill.store.workers import NewWorker
from workers.accounts import GroupLimits
from workers.dispatcher import Dispatcher

LOOKS = 40
MANY = 100
FREE = "UPDATE job SET state = 'running', queued_at = NULL, worker_id = 'bench' WHERE state = 'queued'"
END = "UPDATE job SET state = 'succeeded', worker_id = NULL WHERE state = 'running'"
POLL = (
    "UPDATE job SET state = 'queued', queued_at = changed_at WHERE id IN (SELECT id FROM job WHERE state = 'pending'"
    " AND not_before IS NULL AND batch_id = :batch ORDER BY seq LIMIT :most) RETURNING id"
)


@dataclass
class Spent:
    """What some looks took of their thread."""

    sent: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    statements: int = 0

    def line(self, name: str) -> str:
        """One line of the table."""
        return (
            f"  {name:<28}{self.sent / self.wall_s:>9.0f}{1000 * self.cpu_s / self.sent:>12.4f}"
            f"{self.statements / LOOKS:>14.1f}{self.sent / LOOKS:>10.0f}"
        )


def main() -> None:
    options = read_options()
    for kind in options.database:
        with database_of(kind) as database, throwaway_redis() as url, Redis.from_url(url) as redis:
            print(f"{kind}, {options.slots} slots, {options.jobs:,} jobs")
            print(f"  {'':<28}{'ids/s':>9}{'CPU ms/id':>12}{'statements':>14}{'ids/look':>10}")
            one = fill(database, "one", SCENES["waiting"], options.jobs)
            register(database, options.slots)
            dispatcher = a_dispatcher(database, redis)
            looks(database, dispatcher.fill_window)
            plain = partial(poll, database, one, options.slots)
            print(looks(database, plain).line("plain poller, 1 batch"))
            print(looks(database, dispatcher.fill_window).line("dispatcher, 1 batch"))
            for number in range(MANY):
                fill(database, f"batch {number}", SCENES["waiting"], options.jobs // MANY)
            print(looks(database, dispatcher.fill_window).line(f"dispatcher, {MANY + 1} batches"), flush=True)


def a_dispatcher(database: Database, redis: "Redis") -> Dispatcher:
    def into_the_void(_tickets: Sequence[Ticket]) -> None:
        """Publishing is measured by `bench/pool.py`."""

    return Dispatcher(
        database=database,
        redis=redis,
        publish=into_the_void,
        limits_of=lambda _group: GroupLimits(per_minute=Amounts(), paused_s=0.0),
        experience_of=lambda _batch, _group: None,
        endpoint=ENDPOINT,
        clock=SystemClock(),
    )


def register(database: Database, slots: int) -> None:
    worker = NewWorker(id="bench", host="here", pid=1, version="0", endpoint=ENDPOINT, slots=slots)
    with database.begin() as connection:
        workers.register(connection, worker, database_now(connection))


def poll(database: Database, batch_id: str, most: int) -> int:
    with database.begin() as connection:
        return len(connection.execute(text(POLL), {"batch": batch_id, "most": most}).all())


def looks(database: Database, look: Callable[[], int]) -> Spent:
    spent = Spent()

    def count(*_: object) -> None:
        spent.statements += 1

    for _ in range(LOOKS):
        with database.begin() as connection:
            workers.beat(connection, "bench", 0, database_now(connection))
        event.listen(database._engine, "before_cursor_execute", count)  # noqa: SLF001  # a bench may look behind a door
        cpu, wall = time.thread_time(), time.perf_counter()
        spent.sent += look()
        spent.cpu_s += time.thread_time() - cpu
        spent.wall_s += time.perf_counter() - wall
        event.remove(database._engine, "before_cursor_execute", count)  # noqa: SLF001  # likewise
        with database.begin() as connection:
            connection.execute(text(FREE))
            connection.execute(text(END))
    return spent


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--slots", type=int, default=200)
    parser.add_argument("--database", nargs="+", choices=["sqlite", "postgres"], default=["sqlite"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
