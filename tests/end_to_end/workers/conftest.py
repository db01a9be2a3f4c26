"""Real worker processes against a simulated Claude, a real Redis, and both databases."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from promptmill.clock import SystemClock
from promptmill.store import stats
from promptmill.store.database import Database
from promptmill.store.stats import BatchStatus
from promptmill.testing import SimulatorHandle

WaitUntil = Callable[..., None]


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
            worker = subprocess.Popen(
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

    def stop(self) -> None:
        """End what was started, by its id."""
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                worker.terminate()
        for worker in self.workers:
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


@pytest.fixture
def start_mill(clean_redis: str, tmp_path: Path, wait_until: WaitUntil) -> Iterator[Callable[..., Mill]]:
    mills: list[Mill] = []

    def start(database_url: str, claude: SimulatorHandle, **environment: str) -> Mill:
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
        mill = Mill(Database.open(database_url), settings | environment, tmp_path, wait_until)
        mills.append(mill)
        return mill

    yield start
    for mill in mills:
        mill.stop()
        mill.database.close()
