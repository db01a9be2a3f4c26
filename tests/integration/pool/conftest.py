"""A real Celery worker in a process of its own, and an eye on its events."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from kombu import pools
from redis import Redis

from promptmill.broker import celery_app
from tests.warm.popen import WarmPopen

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

Wait = Callable[..., None]


class Worker:
    """A running worker, and what its tasks have noted."""

    def __init__(
        self, *, app: Celery, redis: Redis, queue: str, process: subprocess.Popen[bytes], log: Path
    ) -> None:
        self.app = app
        self.redis = redis
        self.queue = queue
        self._process = process
        self._log = log

    def notes(self, subject: str) -> list[str]:
        return [value.decode() for value in self.redis.lrange(f"notes:{subject}", 0, -1)]

    def open_gate(self, name: str) -> None:
        self.redis.set(f"gate:{name}", 1)

    def waiting(self) -> int:
        return int(self.redis.llen(self.queue))

    def send(self, task: str, *args: Any, times: int = 1) -> list[str]:
        with self.app.producer_pool.acquire(block=True) as producer:
            send = partial(
                self.app.send_task, f"pool_tasks.{task}", args, queue=self.queue, producer=producer
            )
            return [send().id for _ in range(times)]

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, timeout: float = 15) -> int:
        return self._process.wait(timeout)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def log(self) -> str:
        return self._log.read_text()


class Events:
    """Every event the workers sent since the beginning."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def of(self, task_id: str) -> list[str]:
        return [event["type"] for event in tuple(self.seen) if event.get("uuid") == task_id]


@pytest.fixture
def subject() -> str:
    """A name nobody else notes under."""
    return uuid4().hex


@pytest.fixture(scope="module", params=["batched", "stock"])
def transport(request: pytest.FixtureRequest) -> str:
    """How the workers of a module take their messages: each test of a pool holds on both."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def start_worker(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory, wait_until: Wait, transport: str
) -> Iterator[Callable[..., Worker]]:
    """`start_worker(concurrency, *options, **variables)`: a worker that is ready; ended with the module."""
    running: list[subprocess.Popen[bytes]] = []
    app, redis = celery_app(redis_url), Redis.from_url(redis_url)

    def start(
        concurrency: int,
        *options: str,
        queue: str | None = None,
        must_be_ready: bool = True,
        **variables: str,
    ) -> Worker:
        queue = queue or f"queue-{uuid4().hex}"
        environment = {
            **os.environ,
            "PROMPTMILL_REDIS_URL": redis_url,
            "PROMPTMILL_WORKER__TRANSPORT": transport,
            "POOL_TEST_QUEUE": queue,
            "PYTHONPATH": f"{HERE}{os.pathsep}{ROOT}",
            **variables,
        }
        log = tmp_path_factory.mktemp("worker") / "log"
        arguments = ["-A", "pool_tasks", "worker", "-c", str(concurrency), "-n", f"{queue}@test", *options]
        with log.open("wb") as stream:
            process = WarmPopen(
                [sys.executable, "-m", "celery", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=environment,
                cwd=log.parent,
            )
        running.append(process)
        worker = Worker(app=app, redis=redis, queue=queue, process=process, log=log)
        wait_until(lambda: str(process.pid) in worker.notes("ready") or not worker.alive, timeout=20)
        assert worker.alive or not must_be_ready, worker.log
        return worker

    yield start
    for process in running:
        process.kill()
        process.wait()
    app.close()
    redis.close()
    pools.reset()  # kombu keeps connections for the next app with the same address; a test may have cut them


@pytest.fixture(scope="module")
def worker(start_worker: Callable[..., Worker]) -> Worker:
    """A worker with 8 slots that the tests of a module share."""
    return start_worker(8)


@pytest.fixture(scope="module")
def events(worker: Worker, wait_until: Wait) -> Iterator[Events]:
    """What the workers tell Flower."""
    events = Events()
    with worker.app.connection_for_read() as connection:
        receiver = worker.app.events.Receiver(connection, handlers={"*": events.seen.append})
        thread = threading.Thread(target=lambda: list(receiver.consume(limit=None, wakeup=False)))
        thread.start()

        def heard() -> bool:
            worker.app.control.heartbeat()
            return bool(events.seen)

        wait_until(heard)
        yield events
        receiver.should_stop = True
        thread.join()
