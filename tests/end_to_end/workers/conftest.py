"""Real worker processes against a simulated Claude, a real Redis, and both databases.

Each promise is tried on one database every day, and on the other by `./dev chaos`: that both databases keep what the
store promises is the matter of tests/contracts/store.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from redis import Redis

from promptmill.clock import SystemClock
from promptmill.routes import DISPATCHER_LOCK
from promptmill.store import stats
from promptmill.store.database import Database
from promptmill.store.stats import BatchStatus
from promptmill.testing import SimulatorHandle
from tests.warm.popen import WarmPopen

WaitUntil = Callable[..., None]

QUICK = {"PROMPTMILL_WORKER__HEARTBEAT_S": "0.4", "PROMPTMILL_WORKER__DEAD_AFTER_S": "1.2"}
"""For `start_mill(…, quick=True)`: seconds, where the time until a worker counts as dead is not what a test is about."""


@dataclass
class Mill:
    """A database, a Redis and worker processes that call one simulated Claude."""

    database: Database
    environment: dict[str, str]
    folder: Path
    wait_until: WaitUntil
    workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start_worker(self, *, app: str = "workers.app", **environment: str) -> "subprocess.Popen[bytes]":
        """`celery -A workers.app worker`, as a person starts it."""
        number = len(self.workers)
        with (self.folder / f"worker-{number}.log").open("wb") as log:
            worker = WarmPopen(
                [sys.executable, "-m", "celery", "-A", app, "worker", "-n", f"w{number}@test"],
                env={**self.environment, **environment},
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.workers.append(worker)
        return worker

    def status(self, batch_id: str) -> BatchStatus:
        """What the database says now."""
        with self.database.read() as connection:
            return stats.status(connection, batch_id, SystemClock().now())

    def wait_for_end(self, batch_id: str, timeout: float = 60) -> BatchStatus:
        """Until the batch has ended."""
        self.wait_until(lambda: self.status(batch_id).batch.state == "ended", timeout=timeout)
        return self.status(batch_id)

    def logs(self) -> str:
        """What all workers wrote."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("worker-*.log")))

    def is_led(self) -> bool:
        """A worker is up and dispatches."""
        with Redis.from_url(self.environment["PROMPTMILL_REDIS_URL"]) as redis:
            return bool(redis.keys(f"{DISPATCHER_LOCK}*"))

    def let_the_lock_run_out(self) -> None:
        """As if the seconds had passed after which a dead leader's lock is free."""
        with Redis.from_url(self.environment["PROMPTMILL_REDIS_URL"]) as redis:
            redis.delete(*redis.keys(f"{DISPATCHER_LOCK}*") or ["none"])

    def stop(self) -> None:
        """End what was started, by its id; at once, for how a worker ends by itself is what test_drain looks at."""
        for worker in self.workers:
            worker.kill()
        for worker in self.workers:
            worker.wait()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.chaos)])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of the test's own: SQLite, and Postgres for who has the time."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=["postgres", pytest.param("sqlite", marks=pytest.mark.chaos)])
def postgres_first_url(request: pytest.FixtureRequest) -> str:
    """The same the other way round, where many processes write at once."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def start_mill(clean_redis: str, tmp_path: Path, wait_until: WaitUntil) -> Iterator[Callable[..., Mill]]:
    mills: list[Mill] = []

    def start(database_url: str, claude: SimulatorHandle, *, quick: bool = False, **environment: str) -> Mill:
        settings = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PROMPTMILL_HOME": str(tmp_path / "home"),
            "PROMPTMILL_DATABASE_URL": database_url,
            "PROMPTMILL_REDIS_URL": clean_redis,
            "ANTHROPIC_BASE_URL": claude.url,
            "PROMPTMILL_RPM": "0",
            "PROMPTMILL_ITPM": "0",
            "PROMPTMILL_OTPM": "0",
            "PROMPTMILL_CONCURRENCY": "50",
        }
        if quick:
            settings |= QUICK
        mill = Mill(Database.open(database_url), settings | environment, tmp_path, wait_until)
        mills.append(mill)
        return mill

    yield start
    for mill in mills:
        mill.stop()
        mill.database.close()


@dataclass(frozen=True)
class Keys:
    """A keys file with two keys, and the organizations of a simulator that knows them: one key each."""

    file: str
    organizations: dict[str, list[str]]


@pytest.fixture
def write_keys(tmp_path: Path) -> Callable[..., Keys]:
    """`write_keys()`: two keys of two accounts; `write_keys(account="default")`: of one."""

    def write(account: str | None = None) -> Keys:
        entries = [("main", "research", "sk-simulated-one"), ("second", "product", "sk-simulated-two")]
        (tmp_path / "keys.toml").write_text(
            "".join(
                f'[[key]]\nlabel = "{label}"\naccount = "{account or own}"\nkey = "{secret}"\n'
                for label, own, secret in entries
            )
        )
        organizations = {"one": ["sk-simulated-one"], "two": ["sk-simulated-two"]}
        return Keys(str(tmp_path / "keys.toml"), organizations)

    return write
