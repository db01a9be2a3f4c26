"""A mill that is broken from outside: servers that are killed, frozen and refused to, worker processes likewise.

The idea: nothing in the product knows of these tests. A moment inside a process is met by what can be held from
outside: the write lock of the database, a frozen server, a stopped process. After each, `Mill.settle` looks at what
must hold whatever happened: every job ended once, the counters and the bill agree, no permit and no lease is left.
"""

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import select, text

from promptmill.clock import SystemClock
from promptmill.embedded.redis import find_server
from promptmill.limits import RedisLimiter
from promptmill.routes import ANSWER_QUEUE, DISPATCHER_LOCK
from promptmill.states import JobState
from promptmill.store import control, ledger, stats
from promptmill.store.batches import BatchRow
from promptmill.store.database import Database, database_now
from promptmill.store.ledger import AttemptRow
from promptmill.store.stats import BatchStatus
from promptmill.store.tables import worker as WORKERS  # noqa: N812  # a table
from promptmill.testing import SimulatorHandle, a_batch, simulated_claude
from tests.ports import free_port
from tests.warm.popen import WarmPopen

WaitUntil = Callable[..., None]

QUICK = {
    "PROMPTMILL_WORKER__HEARTBEAT_S": "0.3",
    "PROMPTMILL_WORKER__DEAD_AFTER_S": "1.5",
    "PROMPTMILL_WORKER__PATIENCE_S": "0.5",
}
"""Seconds, so that a process counts as dead within two and not within ten."""

LIMITS = {"PROMPTMILL_RPM": "60000", "PROMPTMILL_ITPM": "0", "PROMPTMILL_OTPM": "0"}
"""A limit that holds nobody up, so that every call has a permit in Redis."""


@dataclass
class RedisServer:
    """A Redis of the test's own, at a port that stays its own: killed, frozen, started again."""

    folder: Path
    port: int = 0
    process: "subprocess.Popen[bytes] | None" = None

    def __post_init__(self) -> None:
        self.port = self.port or free_port()
        self.folder.mkdir(exist_ok=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, **settings: str) -> "RedisServer":
        """Start it, empty, and wait until it answers."""
        given = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.folder), "appendonly": "no"}
        given |= {
            "save": "",
            "maxmemory-policy": "noeviction",
            "enable-protected-configs": "local",
            **settings,
        }
        words = [word for name, value in given.items() for word in (f"--{name}", value)]
        self.process = subprocess.Popen([find_server(), *words], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < deadline, "the Redis did not start"
            time.sleep(0.01)
        return self

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9; what it held is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def replica(self, folder: Path) -> "RedisServer":
        """A second server that has everything this one has."""
        other = RedisServer(folder).start(replicaof=f"127.0.0.1 {self.port}")
        with other.client() as client:
            deadline = time.monotonic() + 60
            while client.info("replication")["master_link_status"] != "up":
                assert time.monotonic() < deadline, "the replica did not come up"
                time.sleep(0.02)
        return other

    def fail_over_to(self, replica: "RedisServer") -> None:
        """This one dies, and the replica answers at its address."""
        self.kill()
        with replica.client() as client:
            client.replicaof("NO", "ONE")
            client.config_set("port", self.port)
        self.process = replica.process

    def client(self) -> Redis:
        return Redis(port=self.port, socket_timeout=5, decode_responses=True)

    def _answers(self) -> bool:
        with contextlib.suppress(RedisError), self.client() as client:
            return bool(client.ping())
        return False


def stands_still(pid: int) -> bool:
    """Each of its threads: the signal reaches one of them, which stops the others once it gets to run."""
    try:
        stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:  # one has just ended
        return False
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


@dataclass
class Mill:
    """A database, a Redis and worker processes that call one simulated Claude."""

    database: Database
    database_url: str
    redis: RedisServer
    claude: SimulatorHandle
    environment: dict[str, str]
    folder: Path
    wait_until: WaitUntil
    workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start_worker(self, **environment: str) -> "subprocess.Popen[bytes]":
        """`celery -A workers.app worker`, as a person starts it."""
        number = len(self.workers)
        with (self.folder / f"worker-{number}.log").open("wb") as log:
            worker = WarmPopen(
                [sys.executable, "-m", "celery", "-A", "workers.app", "worker", "-n", f"w{number}@test"],
                env={**self.environment, **environment},
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.workers.append(worker)
        return worker

    def kill(self, worker: "subprocess.Popen[bytes]") -> None:
        """kill -9."""
        worker.kill()
        worker.wait()

    def let_the_lock_run_out(self) -> None:
        """As if the seconds had passed after which a dead leader's lock is free."""
        with self.redis.client() as client:
            client.delete(*client.keys(DISPATCHER_LOCK + "*") or ["none"])

    def status(self, batch_id: str) -> BatchStatus:
        with self.database.read() as connection:
            return stats.status(connection, batch_id, SystemClock().now())

    def count(self, batch_id: str, *states: JobState) -> int:
        """Jobs of the batch in these states."""
        jobs = self.status(batch_id).jobs
        return sum(jobs[state] for state in states)

    def attempts(self, batch_id: str) -> list[AttemptRow]:
        with self.database.read() as connection:
            return list(ledger.attempts_of(connection, batch_id=batch_id))

    def ask(self, query: str, **values: Any) -> Any:
        """One value, by SQL of the test's own."""
        with self.database.read() as connection:
            return connection.execute(text(query), values).scalar()

    def is_led(self) -> bool:
        """A worker is up and dispatches."""
        with self.redis.client() as client:
            return bool(client.keys(DISPATCHER_LOCK + "*"))

    def taken(self, batch_id: str) -> int:
        """Jobs that a worker has taken and not begun."""
        with self.redis.client() as client:
            return 0 if client.llen(ANSWER_QUEUE) else self.count(batch_id, JobState.QUEUED)

    def silent_for(self, worker: "subprocess.Popen[bytes]") -> float:
        """Seconds since its last heartbeat, by the database's clock."""
        with self.database.read() as connection:
            seen_at = connection.scalar(select(WORKERS.c.seen_at).where(WORKERS.c.pid == worker.pid))
            return (database_now(connection) - seen_at).total_seconds()

    def pause(self, batch_id: str) -> None:
        with self.database.begin() as connection:
            control.pause(connection, batch_id, "by a person", SystemClock().now())

    def logs(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("worker-*.log")))

    @contextlib.contextmanager
    def locked(self, tables: str = "batch, job, attempt", *, patience: float = 20) -> Iterator[None]:
        """Nobody writes these tables (in SQLite: anything) while the block runs; everybody may read."""
        if self.database.dialect == "sqlite":
            path = self.database_url.removeprefix("sqlite:///")
            other: Any = sqlite3.connect(path, isolation_level=None, timeout=patience)
            take = ["BEGIN IMMEDIATE"]
        else:
            other = psycopg.connect(self.database_url)
            take = [f"SET lock_timeout = '{patience}s'", f"LOCK TABLE {tables} IN EXCLUSIVE MODE"]
        try:
            for statement in take:
                other.execute(statement)
            yield
        finally:
            other.rollback()
            other.close()

    def is_between_writes(self) -> bool:
        """Nobody is in the middle of a transaction that writes."""
        try:
            with self.locked(patience=0.2):
                return True
        except (sqlite3.OperationalError, psycopg.errors.LockNotAvailable):
            return False

    def freeze(self, worker: "subprocess.Popen[bytes]") -> None:
        """SIGSTOP, not in the middle of a write: in SQLite it would hold everybody up until it goes on."""
        while True:
            worker.send_signal(signal.SIGSTOP)
            self.wait_until(lambda: stands_still(worker.pid))
            if self.is_between_writes():
                return
            worker.send_signal(signal.SIGCONT)

    def settle(self, batch: BatchRow, *, succeeded: int, timeout: float = 40) -> BatchStatus:
        """Wait for the end, and look at all that must hold then; what the batch says."""
        self.wait_until(lambda: self.status(batch.id).batch.state == "ended", timeout=timeout)
        self.wait_until(lambda: not self._permits_of_live(), timeout=15)
        status = self.status(batch.id)
        assert status.jobs[JobState.SUCCEEDED] == status.batch.succeeded == succeeded
        assert sum(status.jobs.values()) == status.batch.total
        self._assert_ended_once(batch.id, succeeded)
        self._assert_books_agree(batch.id)
        assert self._permits_after_a_while() == {}
        return status

    def _assert_ended_once(self, batch_id: str, succeeded: int) -> None:
        """One reply for each answered job and none beside; no lease is left."""
        of_batch = "JOIN job ON job.id = reply.job_id WHERE job.batch_id = :b"
        assert self.ask(f"SELECT count(*) FROM reply {of_batch}", b=batch_id) == succeeded
        held = "SELECT count(*) FROM job WHERE batch_id = :b AND (worker_id IS NOT NULL OR queued_at IS NOT NULL)"
        assert self.ask(held, b=batch_id) == 0

    def _assert_books_agree(self, batch_id: str) -> None:
        """The batch's sums are those of its attempts; the bill is ours and what nobody can know."""
        row, attempts = self.status(batch_id).batch, self.attempts(batch_id)
        with self.database.read() as connection:
            costs = ledger.costs(connection, batch_id)
        kept = (row.attempts, row.cost_nanos, row.reserved_nanos, row.unpriced_attempts)
        assert kept == (costs.attempts, costs.cost_nanos, 0, costs.unpriced)
        assert costs.open == 0
        billed = self.claude.ledger()["billed"]
        known = sum(1 for each in attempts if each.cost_nanos)
        assert 0 <= billed["answers"] - known <= costs.unpriced
        if billed["answers"] == known:
            assert row.cost_nanos == billed["cost_nanos"]

    def permits(self) -> Counter[str]:
        """Permits in Redis, by the process that holds them."""
        with self.redis.client() as client:
            held = {key.rpartition(":")[2]: client.hlen(key) for key in client.keys("*:permits:*")}
        return Counter({process: int(number) for process, number in held.items() if number})

    def _permits_of_live(self) -> set[str]:
        """Processes that live and hold a permit."""
        return self._live() & set(self.permits())

    def _live(self) -> set[str]:
        """The ids of the worker processes that run."""
        pids = [worker.pid for worker in self.workers if worker.poll() is None]
        with self.database.read() as connection:
            rows = connection.execute(text("SELECT id, pid FROM worker"))
            return {row.id for row in rows if row.pid in pids}

    def _permits_after_a_while(self) -> dict[str, int]:
        """What is held once the heartbeats of the dead have been missing for long enough."""
        with self.redis.client() as client:
            for key in client.keys("*:processes"):
                for process in client.zrange(key, 0, -1):
                    if process not in self._live():
                        client.zadd(key, {process: 1.0})

        async def expire() -> None:
            async with RedisLimiter(self.redis.url, process="auditor") as limiter:
                for pool in await limiter.pools():
                    await limiter.peek(pool)
                await limiter.beat()

        asyncio.run(expire())
        return dict(self.permits())

    def stop(self) -> None:
        """End what was started, by its id."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
        self.database.close()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis").start()
    yield server
    server.kill()


@pytest.fixture
def start_mill(
    own_redis: RedisServer, tmp_path: Path, wait_until: WaitUntil
) -> Iterator[Callable[..., Mill]]:
    """`start_mill(database_url, claude)`: a mill without workers."""
    with mills_of(own_redis, tmp_path, wait_until) as start:
        yield start


@pytest.fixture(scope="module")
def stand_up(
    tmp_path_factory: pytest.TempPathFactory, wait_until: WaitUntil
) -> Iterator[Callable[..., Mill]]:
    """`stand_up(database_url)`: a mill whose one worker must live through all tests of a module."""
    folder = tmp_path_factory.mktemp("standing")
    redis = RedisServer(folder / "redis").start()

    with contextlib.ExitStack() as stack:
        stack.callback(redis.kill)
        claude = stack.enter_context(simulated_claude(first_token_s=0.2))
        start = stack.enter_context(mills_of(redis, folder, wait_until))

        def at(database_url: str, **environment: str) -> Mill:
            mill = start(database_url, claude, **environment)
            mill.start_worker()
            return mill

        yield at


@pytest.fixture(scope="module")
def standing_mill(
    sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory, stand_up: Callable[..., Mill]
) -> Mill:
    """One on SQLite."""
    database = tmp_path_factory.mktemp("database") / "promptmill.db"
    database.write_bytes(sqlite_template.read_bytes())
    return stand_up(f"sqlite:///{database}")


@pytest.fixture
def at_work(standing_mill: Mill) -> Callable[..., BatchRow]:
    """`at_work(act)`: act in the middle of a batch, which must end as if nothing had been.

    Ten calls are held, so that they are in flight meanwhile however long it takes; an act may let them go.
    """
    mill = standing_mill

    def go(act: Callable[[], None], jobs: int = 80) -> BatchRow:
        mill.wait_until(mill.is_led, timeout=30)
        mill.claude.reset()
        mill.claude.set_scenario(fault=[{"kind": "hold", "every": 8, "times": 10}])
        batch = a_batch(mill.database, jobs)
        mill.wait_until(lambda: mill.count(batch.id, JobState.SUCCEEDED) >= 10, timeout=30)
        mill.wait_until(lambda: mill.claude.ledger()["in_flight"] > 0, timeout=30)
        act()
        mill.claude.set_scenario()
        mill.settle(batch, succeeded=jobs)
        assert {each.outcome for each in mill.attempts(batch.id)} == {ledger.SUCCEEDED}
        assert mill.claude.ledger()["answered"] == {"1": jobs}
        assert mill.workers[0].poll() is None
        return batch

    return go


@contextlib.contextmanager
def mills_of(redis: RedisServer, folder: Path, wait_until: WaitUntil) -> Iterator[Callable[..., Mill]]:
    """Makes mills, and ends them."""
    mills: list[Mill] = []

    def start(database_url: str, claude: SimulatorHandle, **environment: str) -> Mill:
        settings = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PROMPTMILL_HOME": str(folder / "home"),
            "PROMPTMILL_DATABASE_URL": database_url,
            "PROMPTMILL_REDIS_URL": redis.url,
            "ANTHROPIC_BASE_URL": claude.url,
            "PROMPTMILL_CONCURRENCY": "20",
            **LIMITS,
            **QUICK,
        }
        database = Database.open(database_url)
        mill = Mill(database, database_url, redis, claude, settings | environment, folder, wait_until)
        mills.append(mill)
        return mill

    try:
        yield start
    finally:
        for mill in mills:
            mill.stop()
