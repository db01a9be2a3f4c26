"""A million short prompts submitted: rows a second, peak memory, what Redis holds before and after.

    ./dev bench submit [--rows 1000000] [--databases sqlite postgres] [--bound 200000] [--sample 20000]

Runs `promptmill submit` as a person types it. The baselines stand beside it, in the same run: the bound is the same
rows written by the bare driver into the same tables (`executemany` on SQLite, COPY on Postgres), with nothing read,
checked, fingerprinted or estimated; and a sample is written by the ORM, a thousand objects in a commit, as one would begin. On
SQLite another writer knocks meanwhile, as a worker's would, and says how long it waited.
"""

import argparse
import json
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from measuring.beside import beside
from million.ran import Ran, promptmill
from redis import Redis
from sqlalchemy import Connection, Table, create_engine, select
from sqlalchemy.engine import make_url
from sqlmodel import Session

from promptmill.embedded import throwaway_postgres, throwaway_redis
from promptmill.store.batches import NewBatch, create
from promptmill.store.database import Database, database_now
from promptmill.store.tables import Job, Prompt, job, prompt

MODEL = "claude-haiku-5-5"
ROWS_AT_ONCE = 5_000
ROWS_PER_COMMIT = 1_000
KNOCK_EVERY_S = 0.02


@dataclass
class Knocks:
    """How long another writer waited, in milliseconds, each time it came."""

    waits: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.waits:
            return "-"
        tenths = statistics.quantiles(self.waits, n=100)
        return f"{tenths[49]:.0f} / {tenths[98]:.0f} / {max(self.waits):.0f}"


def main() -> None:
    options = read_options()
    with tempfile.TemporaryDirectory(prefix="promptmill-bench-") as folder:
        source = Path(folder, "prompts.jsonl")
        write_prompts(source, options.rows)
        print(f"{options.rows:,} rows, {source.stat().st_size / 1e6:.0f} MB\n")
        for database in options.databases:
            print_figures(database, options.rows, options.sample, measure(database, source, options))


@dataclass(frozen=True)
class Figures:
    """What one kind of database gave; CPU in microseconds a row, Redis as keys and bytes."""

    ours: Ran
    redis_before: str
    redis_after: str
    bound_us: float
    orm_us: float
    knocks: Knocks


def measure(name: str, source: Path, options: argparse.Namespace) -> Figures:
    """Ours and the baselines on one kind of database."""
    with (
        tempfile.TemporaryDirectory(prefix="promptmill-bench-") as folder,
        throwaway_redis() as redis_url,
        throwaway_postgres() if name == "postgres" else nullcontext(f"sqlite:///{folder}/ours.db") as url,
        Redis.from_url(redis_url) as redis,
    ):
        migrate(url)
        before = redis_size(redis)
        knocks = Knocks()
        with knocking(url, knocks):
            words = ("submit", str(source), "--model", MODEL)
            ours = promptmill(*words, folder=folder, database_url=url, redis_url=redis_url)
        after = redis_size(redis)
        bound_url = url.replace("ours.db", "bound.db") if name == "sqlite" else url
        bound = write_the_same(url, bound_url, min(options.rows, options.bound))
        return Figures(ours, before, after, bound, by_orm(bound_url, options.sample), knocks)


def print_figures(name: str, rows: int, sample: int, found: Figures) -> None:
    """A few lines."""
    ours = found.ours
    cost = 1e6 * ours.cpu_s / rows
    print(f"{name}: {rows / ours.seconds:,.0f} rows/s, {ours.seconds:.1f} s; {cost:.1f} us of CPU a row")
    print(f"  peak {ours.peak_mb:.0f} MB; Redis before {found.redis_before}, after {found.redis_after}")
    print(f"  another writer waited {found.knocks} ms (median / 1 in 100 / longest)")
    times = cost / found.bound_us
    print(
        f"  bound, the bare driver: {found.bound_us:.1f} us of CPU a row; ours takes {times:.1f} times as much"
    )
    part = cost / found.orm_us
    print(
        f"  ORM, {sample:,} rows: {found.orm_us:.1f} us of CPU a row; ours takes {part:.2f} of it\n",
        flush=True,
    )


def write_prompts(path: Path, rows: int) -> None:
    """Short questions, each another, with a field that is not asked."""
    with path.open("w") as file:
        for number in range(rows):
            text = (
                f"Review {number}: the parcel came {number % 9} days late, but the shop was kind about it. "
                "Is the customer content? Answer yes or no."
            )
            file.write(f"{json.dumps({'id': number, 'prompt': text})}\n")


def redis_size(redis: "Redis") -> str:
    """Keys and bytes."""
    size: Any = redis.dbsize()
    memory: Any = redis.info("memory")
    return f"{size} keys {memory['used_memory'] / 1e6:.2f} MB"


@contextmanager
def knocking(url: str, knocks: Knocks) -> Iterator[None]:
    """Another writer of a SQLite database for the length of the block, with the patience of ours."""
    path = make_url(url).database
    if not url.startswith("sqlite") or path is None:
        yield
        return

    def knock(over: threading.Event) -> None:
        connection = sqlite3.connect(path, timeout=10.0, isolation_level=None)
        while not over.wait(KNOCK_EVERY_S):
            began = time.perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            knocks.waits.append(1000 * (time.perf_counter() - began))
            connection.execute("COMMIT")
        connection.close()

    with beside(knock):
        yield


def migrate(url: str) -> None:
    database = Database.open(url)
    database.migrate()
    database.close()


def write_the_same(url: str, bound_url: str, rows: int) -> float:
    """Microseconds of CPU a row, of this process alone, by the bare driver: the same rows written anew."""
    if bound_url != url:
        migrate(bound_url)
    source, target = Database.open(url), Database.open(bound_url)
    batch_id = a_batch(target)
    seconds = 0.0
    with source.read() as reading:
        for jobs, prompts in stored(reading, rows, f"{batch_id}-" if bound_url == url else ""):
            renamed = [(row[0], batch_id, *row[2:]) for row in jobs]
            began = time.process_time()
            with target.begin() as conn:
                write(conn, job, renamed)
                write(conn, prompt, prompts)
            seconds += time.process_time() - began
    source.close()
    target.close()
    return 1e6 * seconds / rows


def write(conn: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Rows of all columns of a table, by the fastest that the driver itself has."""
    driver: Any = conn.connection.driver_connection
    columns = ", ".join(each.name for each in table.columns)
    if conn.dialect.name == "sqlite":
        places = ", ".join("?" * len(table.columns))
        driver.executemany(f"INSERT INTO {table.name} ({columns}) VALUES ({places})", rows)
        return
    with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} ({columns}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def stored(
    conn: Connection, rows: int, prefix: str
) -> Iterator[tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]]:
    """Jobs and prompts as the driver gives them, with other ids where they go into the same tables."""
    columns = [*job.columns, *prompt.columns]
    query = (
        select(*columns)
        .join_from(job, prompt, prompt.c.job_id == job.c.id)
        .order_by(job.c.batch_id, job.c.seq)
        .limit(rows)
    )
    text = str(query.compile(dialect=conn.dialect, compile_kwargs={"literal_binds": True}))
    width = len(job.columns)
    driver: Any = conn.connection.driver_connection
    cursor = driver.cursor("stored") if conn.dialect.name == "postgresql" else driver.cursor()
    found = iter(cursor.execute(text))
    while page := list(islice(found, ROWS_AT_ONCE)):
        yield (
            [(prefix + row[0], *row[1:width]) for row in page],
            [(prefix + row[width], *row[width + 1 :]) for row in page],
        )


def a_batch(database: Database) -> str:
    new = NewBatch(name=f"baseline {time.time_ns()}", model=MODEL, shared={}, endpoint="none", simulated=True)
    with database.begin() as conn:
        return create(conn, new, database_now(conn)).id


def by_orm(url: str, rows: int) -> float:
    """Microseconds of CPU a row, of this process alone, as objects, a thousand in a commit."""
    database = Database.open(url)
    batch_id = a_batch(database)
    with database.read() as conn:
        now = database_now(conn)
    database.close()
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg") if "postgres" in url else url)
    began = time.process_time()
    with Session(engine) as session:
        for number in range(rows):
            session.add_all(orm_row(batch_id, number, now))
            if number % ROWS_PER_COMMIT == 0:
                session.commit()
        session.commit()
    return 1e6 * (time.process_time() - began) / rows


def orm_row(batch_id: str, number: int, now: Any) -> Sequence[Any]:
    content = f"Review {number}: the parcel came {number % 9} days late. Is the customer content?"
    fields: dict[str, Any] = {
        "id": f"{batch_id}-{number}", "batch_id": batch_id, "seq": number, "custom_id": f"row-{number}",
        "state": "pending", "model_group": MODEL, "estimated_input_tokens": 40, "estimated_output_tokens": 400,
        "dispatch": 0, "token": 0, "attempts": 0, "changed_at": now,
    }  # fmt: skip
    asked = {"messages": [{"role": "user", "content": content}]}
    return (
        Job(**fields),
        Prompt(job_id=fields["id"], fingerprint=f"{number:032x}", body=asked, source={"prompt": content}),
    )


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument(
        "--databases", nargs="+", choices=("sqlite", "postgres"), default=["sqlite", "postgres"]
    )
    parser.add_argument("--bound", type=int, default=200_000, help="rows that the bare driver writes")
    parser.add_argument("--sample", type=int, default=20_000, help="rows that the ORM writes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
