"""CPU per empty job: Promptmill's worker beside Celery's thread pool, in alternation in one run.

    python bench/pool.py [--jobs 4000] [--rounds 3] [--slots 100]

One worker process, one Redis, events on, and an `async def` body that does nothing but yield to its loop once.
The second row changes the pool and nothing else; the third also drops our settings of the broker. Measured is the worker's own CPU time from the first message to the
last answer; wall time depends on what else the machine does, so compare the ratio.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from redis import Redis

from promptmill.broker import celery_app
from promptmill.embedded import throwaway_redis

QUEUE = "bench-pool"
OURS, THREADS, STOCK = "promptmill", "our settings, threads", "celery as it comes, threads"
POOLS = {OURS: "workers.pool:TaskPool", THREADS: "threads", STOCK: "threads"}

TASKS = """
import asyncio, os
from redis import Redis
from celery.signals import worker_ready
from promptmill.broker import celery_app
from workers.pool import AsyncTask

url = os.environ["PROMPTMILL_REDIS_URL"]
app = celery_app(url)
app.conf.update(imports=(), task_default_queue={queue!r}, worker_pool=os.environ["BENCH_POOL"])
if "BENCH_STOCK" in os.environ:
    app.conf.update(broker_transport_options={{}}, worker_consumer="celery.worker.consumer:Consumer")
redis = Redis.from_url(url)
left = int(os.environ["BENCH_JOBS"])

@worker_ready.connect
def ready(**_):
    redis.set("ready", 1)

@app.task(base=AsyncTask, name="empty")
async def empty():
    global left
    await asyncio.sleep(0)
    left -= 1
    if left == 0:
        redis.set("done", 1)
"""


@dataclass(frozen=True)
class Figure:
    """What one worker did."""

    cpu_ms_per_job: float
    jobs_per_s: float
    memory_mb: float


def measure(name: str, url: str, folder: Path, *, jobs: int, slots: int) -> Figure:
    environment = {
        **os.environ,
        "PROMPTMILL_REDIS_URL": url,
        "BENCH_POOL": POOLS[name],
        "BENCH_JOBS": str(jobs),
        "PYTHONPATH": f"{folder}{os.pathsep}{Path(__file__).parents[1]}",
    }
    if name == STOCK:
        environment["BENCH_STOCK"] = "1"
    command = [sys.executable, "-m", "celery", "-A", "bench_pool_tasks", "worker", "-c", str(slots)]
    with Redis.from_url(url) as redis:
        redis.flushall()
        worker = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
        )
        try:
            wait_for(redis, "ready", worker)
            process = psutil.Process(worker.pid)
            used, begun = cpu_seconds(process), time.monotonic()
            publish(url, jobs)
            wait_for(redis, "done", worker)
            took = time.monotonic() - begun
            cpu = cpu_seconds(process) - used
            memory = process.memory_full_info().uss
        finally:
            worker.kill()
            worker.wait()
    return Figure(cpu / jobs * 1000, jobs / took, memory / 2**20)


def publish(url: str, jobs: int) -> None:
    app = celery_app(url)
    with app.producer_pool.acquire(block=True) as producer, producer.batch(max_size=500):
        for _ in range(jobs):
            app.send_task("empty", queue=QUEUE, producer=producer)
    app.close()


def wait_for(redis: Redis, key: str, worker: subprocess.Popen[bytes]) -> None:
    while not redis.exists(key):
        if worker.poll() is not None:
            sys.exit("the worker has ended")
        time.sleep(0.01)


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=100)
    arguments = parser.parse_args()
    figures: dict[str, list[Figure]] = {name: [] for name in POOLS}
    with throwaway_redis() as url, tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bench_pool_tasks.py").write_text(TASKS.format(queue=QUEUE))
        for _ in range(arguments.rounds):
            for name in POOLS:
                figure = measure(name, url, Path(folder), jobs=arguments.jobs, slots=arguments.slots)
                figures[name].append(figure)
                print(
                    f"{name:28} {figure.cpu_ms_per_job:6.3f} ms CPU per job "
                    f"{figure.jobs_per_s:7.0f} jobs/s {figure.memory_mb:6.1f} MB"
                )
    median = {name: statistics.median(f.cpu_ms_per_job for f in figures[name]) for name in POOLS}
    for name in (THREADS, STOCK):
        print(f"{median[name] / median[OURS]:.2f} times less CPU per job than {name}")


if __name__ == "__main__":
    main()
