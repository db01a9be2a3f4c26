"""Plain Celery with the SDK: a worker is started, jobs are sent with `delay`, and the server tells when all are answered.

    python celery_sdk.py URL BODIES.jsonl IN_FLIGHT WARM POOL

IN_FLIGHT is the worker's concurrency; the broker's address is in BENCH_BROKER.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from course import Lap, Stopwatch, read_course

_LOOK_S = 0.02


def main() -> None:
    course, pool = read_course(), sys.argv[5]
    os.environ["BENCH_URL"] = course.url
    from celery_tasks import ask  # noqa: PLC0415  # it reads its address from the environment

    with worker(pool, course.in_flight) as processes:
        send(ask, course.warm)
        until_answered(course.url, len(course.warm))
        before, watch = cpu_of(processes), Stopwatch()
        send(ask, course.bodies)
        sending = watch.lap().cpu_s["the loop"]
        until_answered(course.url, len(course.warm) + len(course.bodies))
        wall_s = watch.lap().wall_s
        Lap(wall_s, {"sending": sending, "worker": cpu_of(processes) - before}).tell()


def send(task: Any, bodies: list[dict[str, Any]]) -> None:
    for body in bodies:
        task.delay(body)


def until_answered(url: str, answers: int) -> None:
    """By the server's book, so that the worker need not count."""
    while True:
        with urllib.request.urlopen(f"{url}/_admin/ledger") as told:
            if json.load(told)["billed"]["answers"] >= answers:
                return
        time.sleep(_LOOK_S)


@contextmanager
def worker(pool: str, concurrency: int) -> Iterator[psutil.Process]:
    """Started as its manual says, without its log."""
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "celery_tasks",
        "worker",
        "-P",
        pool,
        "-c",
        str(concurrency),
    ]
    process = subprocess.Popen(
        command, cwd=Path(__file__).parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def cpu_of(process: psutil.Process) -> float:
    """CPU seconds of the worker and of its children."""
    times = [each.cpu_times() for each in [process, *process.children(recursive=True)]]
    return sum(each.user + each.system for each in times)


if __name__ == "__main__":
    main()
