"""CPU per empty job in one worker process: ours beside the stock transport and beside Celery, in alternation in one run.

    python bench/pool.py [--jobs 6000] [--rounds 3] [--slots 100] [--only saturated|trickle|publishing]

The body is `async def` and does nothing but yield to its loop once; in the trickle (300 jobs a second at random
moments, 1,000 slots) it sleeps for half a second to one and a half. Events are on, and somebody listens to them as
Flower would, but in the last row. Each row after the first changes one thing more: kombu's own transport instead
of ours; Celery's thread pool; none of our settings. Measured is the worker's own CPU time from the first message
to the last answer; wall time depends on what else the machine does, so compare the ratios. At the end: what sending the
messages costs the sender, by hand and by Celery.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import psutil
from measuring.beside import beside
from redis import Redis

from promptmill.broker import Ticket, celery_app, publish
from promptmill.embedded import throwaway_redis

QUEUE = "bench-pool"
TRICKLE_PER_S = 300
TRICKLE_SLOTS = 1000
EVENTS = "/0.celeryev*"

TASKS = """
import asyncio, os, random
from redis import Redis
from celery.signals import worker_ready
from promptmill.broker import celery_app
from workers.pool import AsyncTask

url = os.environ["PROMPTMILL_REDIS_URL"]
app = celery_app(url)
app.conf.update(imports=(), task_default_queue={queue!r}, worker_pool=os.environ["BENCH_POOL"])
if "BENCH_STOCK" in os.environ:
    app.conf.update(broker_transport_options={{}}, worker_consumer="celery.worker.consumer:Consumer")
    app.events_cls = "celery.app.events:Events"
redis = Redis.from_url(url)
left = int(os.environ["BENCH_JOBS"])
sleeps = "BENCH_SLEEPS" in os.environ

@worker_ready.connect
def ready(**_):
    redis.set("ready", 1)

@app.task(base=AsyncTask, name="empty")
async def empty():
    global left
    await asyncio.sleep(random.uniform(0.5, 1.5) if sleeps else 0)
    left -= 1
    if left == 0:
        redis.set("done", 1)
"""


@dataclass(frozen=True)
class Contestant:
    """One row: what differs."""

    name: str
    pool: str = "workers.pool:TaskPool"
    transport: str = "batched"
    is_stock: bool = False
    is_heard: bool = True


OURS = Contestant("promptmill")
CONTESTANTS = (
    OURS,
    Contestant("with kombu's own transport", transport="stock"),
    Contestant("and celery's threads", transport="stock", pool="threads"),
    Contestant("celery as it comes, threads", pool="threads", is_stock=True),
    Contestant("promptmill, nobody listens", is_heard=False),
)


@dataclass(frozen=True)
class Figure:
    """What one worker did."""

    cpu_ms_per_job: float
    jobs_per_s: float
    memory_mb: float


@dataclass(frozen=True)
class Load:
    """How the jobs come."""

    name: str
    slots: int
    jobs: int
    sleeps: bool
    send: Callable[[Redis, list[bytes]], None]


def at_once(redis: Redis, messages: list[bytes]) -> None:
    for first in range(0, len(messages), 1000):
        redis.lpush(QUEUE, *messages[first : first + 1000])


def in_a_trickle(redis: Redis, messages: list[bytes]) -> None:
    due = time.monotonic()
    for message in messages:
        due += random.expovariate(TRICKLE_PER_S)
        time.sleep(max(due - time.monotonic(), 0))
        redis.lpush(QUEUE, message)


def measure(who: Contestant, load: Load, url: str, folder: Path) -> Figure:
    """What a worker of its own takes for the load."""
    command = [sys.executable, "-m", "celery", "-A", "bench_pool_tasks", "worker", "-c", str(load.slots)]
    with Redis.from_url(url) as redis:
        redis.flushall()
        messages = made_by_celery(url, redis, load.jobs)
        worker = subprocess.Popen(
            command,
            env=environment(who, load, url, folder),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
        )
        try:
            with listener(redis) if who.is_heard else nullcontext():
                return through(load, messages, redis, worker)
        finally:
            worker.kill()
            worker.wait()


def environment(who: Contestant, load: Load, url: str, folder: Path) -> dict[str, str]:
    """Of a worker: it says what differs."""
    return {
        **os.environ,
        "PROMPTMILL_REDIS_URL": url,
        "PROMPTMILL_WORKER__TRANSPORT": who.transport,
        "BENCH_POOL": who.pool,
        "BENCH_JOBS": str(load.jobs),
        "PYTHONPATH": f"{folder}{os.pathsep}{Path(__file__).parents[1]}",
        **({"BENCH_STOCK": "1"} if who.is_stock else {}),
        **({"BENCH_SLEEPS": "1"} if load.sleeps else {}),
    }


def through(load: Load, messages: list[bytes], redis: Redis, worker: subprocess.Popen[bytes]) -> Figure:
    """Send all messages to a worker that comes up, and wait for its last answer."""
    wait_for(redis, "ready", worker)
    time.sleep(2.5)  # a heartbeat, by which the worker learns whether somebody listens
    process = psutil.Process(worker.pid)
    used, begun = cpu_seconds(process), time.monotonic()
    load.send(redis, messages)
    wait_for(redis, "done", worker)
    took = time.monotonic() - begun
    cpu = cpu_seconds(process) - used
    memory = process.memory_full_info().uss
    return Figure(cpu / load.jobs * 1000, load.jobs / took, memory / 2**20)


def made_by_celery(url: str, redis: Redis, jobs: int) -> list[bytes]:
    """One message as Celery makes it, and its like with other ids."""
    app = celery_app(url)
    sent = app.send_task("empty", queue=QUEUE)
    app.close()
    message = redis.rpop(QUEUE)
    tag = json.loads(message)["properties"]["delivery_tag"].encode()
    return [
        message.replace(sent.id.encode(), b"job_%032d" % n).replace(tag, b"tag_%032d" % n)
        for n in range(jobs)
    ]


@contextmanager
def listener(redis: Redis) -> Iterator[None]:
    """Somebody who hears every event, as Flower does."""
    subscription = redis.pubsub()
    subscription.psubscribe(EVENTS)

    def hear(over: threading.Event) -> None:
        while not over.is_set():
            subscription.get_message(timeout=0.2)

    with beside(hear):
        yield
    subscription.close()


def wait_for(redis: Redis, key: str, worker: subprocess.Popen[bytes]) -> None:
    while not redis.exists(key):
        if worker.poll() is not None:
            sys.exit("the worker has ended")
        time.sleep(0.01)


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def compare(load: Load, url: str, folder: Path, rounds: int) -> None:
    print(f"{load.name}: {load.jobs} jobs, {load.slots} slots", flush=True)
    figures: dict[Contestant, list[Figure]] = {who: [] for who in CONTESTANTS}
    for _ in range(rounds):
        for who in CONTESTANTS:
            figure = measure(who, load, url, folder)
            figures[who].append(figure)
            print(
                f"  {who.name:28} {figure.cpu_ms_per_job:6.3f} ms CPU per job "
                f"{figure.jobs_per_s:7.0f} jobs/s {figure.memory_mb:6.1f} MB",
                flush=True,
            )
    median = {who: statistics.median(f.cpu_ms_per_job for f in figures[who]) for who in CONTESTANTS}
    for who in CONTESTANTS[1:]:
        print(f"  {median[who] / median[OURS]:5.2f} times ours: {who.name} ({median[who]:.3f} ms)")


def compare_publishing(url: str, rounds: int) -> None:
    print("publishing: CPU of the sender", flush=True)
    app = celery_app(url)
    tickets = [Ticket(f"job_{n:032}", 1, "nightly", "claude-sonnet-5", 1) for n in range(20_000)]

    def by_celery() -> int:
        with app.producer_pool.acquire(block=True) as producer, producer.batch(max_size=500):
            for ticket in tickets[:2000]:
                app.send_task("empty", (ticket.job_id, 1), queue=QUEUE, producer=producer)
        return 2000

    def by_hand() -> int:
        publish(app, tickets)
        return len(tickets)

    spent: dict[str, list[float]] = {"by hand": [], "celery, in a batch": []}
    for _ in range(rounds):
        for name, send in (("by hand", by_hand), ("celery, in a batch", by_celery)):
            used, begun = time.process_time(), time.monotonic()
            sent = send()
            spent[name].append((time.process_time() - used) / sent * 1000)
            rate = sent / (time.monotonic() - begun)
            print(f"  {name:28} {spent[name][-1]:6.4f} ms CPU per job {rate:7.0f} jobs/s", flush=True)
    ours, celerys = (statistics.median(figures) for figures in spent.values())
    print(f"  {celerys / ours:5.1f} times ours: celery, in a batch")
    app.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=100)
    parser.add_argument("--only", choices=["saturated", "trickle", "publishing"])
    arguments = parser.parse_args()
    loads = (
        Load("saturated", arguments.slots, arguments.jobs, sleeps=False, send=at_once),
        Load("trickle", TRICKLE_SLOTS, min(arguments.jobs, 3000), sleeps=True, send=in_a_trickle),
    )
    with throwaway_redis() as url, tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bench_pool_tasks.py").write_text(TASKS.format(queue=QUEUE))
        for load in loads:
            if arguments.only in (None, load.name):
                compare(load, url, Path(folder), arguments.rounds)
        if arguments.only in (None, "publishing"):
            compare_publishing(url, arguments.rounds)


if __name__ == "__main__":
    main()
