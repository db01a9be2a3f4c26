"""What a run needs around the product: a Redis that can be killed, and worker processes.

The one idea: everything is a child process of this one on 127.0.0.1, known by its id, and ended by it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from redis import Redis, RedisError

from promptmill.embedded.process import free_port
from promptmill.embedded.redis import find_server

ROOT = Path(__file__).parents[2]
FAKETIME = "libfaketimeMT.so.1"
_PATIENCE_S = 120.0
_turn: list[AbstractContextManager[object]] = [nullcontext()]


class ThrowawayRedis:
    """A Redis on one port that keeps nothing, so that it comes back empty."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = [
            "--save",
            "",
            "--appendonly",
            "no",
            "--bind",
            "127.0.0.1",
            "--maxmemory-policy",
            "noeviction",
        ]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(find_server()), "--port", str(self._port), *settings],
                cwd=self._folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        with Redis.from_url(self.url) as redis:
            wait_until(lambda: _answers(redis), "Redis answers")

    def kill(self) -> None:
        """As if its machine had lost power."""
        self._process.kill()
        self._process.wait()


class Workers:
    """`celery -A workers.app worker`, as a person starts it, so many times."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *, clock_s: float = 0.0) -> None:
        """One more, whose clock is off by so many seconds."""
        number = len(self.processes)
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "workers.app",
            "worker",
            "-n",
            f"w{number}@{self._folder.name}",
        ]
        with (self._folder / f"worker-{number}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                env={**self._environment, **_shifted(clock_s)},
                cwd=self._folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)

    def kill(self, share: float) -> None:
        """End a share of them without a word."""
        for process in self.processes[: round(len(self.processes) * share)]:
            process.kill()
            process.wait()

    def stop(self) -> None:
        """End all; what still runs jobs after a while is killed."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def last_words(self) -> str:
        """The end of what they wrote, for the reader of a row that broke."""
        return "".join(path.read_text()[-500:] for path in sorted(self._folder.glob("worker-*.log")))


def environment_of(folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """What a worker and a producer of this run see: nothing of the surroundings."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "PROMPTMILL_HOME": str(folder / "home"),
        **settings,
    }


def wait_until(is_true: Callable[[], object], what: str, patience_s: float = _PATIENCE_S) -> None:
    """Return when it is true; TimeoutError when it is not within `patience_s`."""
    deadline = time.monotonic() + patience_s
    while not is_true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {patience_s:g} s: {what}")
        time.sleep(0.05)


def take_turns_with(lock: AbstractContextManager[object]) -> None:
    """Share this lock with other processes that start workers."""
    _turn.append(lock)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Start processes alone: little should boot beside a run that is measured."""
    with _turn[-1]:
        yield


def _answers(redis: "Redis") -> bool:
    try:
        return bool(redis.ping())
    except RedisError:
        return False


def _shifted(clock_s: float) -> dict[str, str]:
    """The environment in which a process sees another time of day; monotonic time is left alone."""
    if not clock_s:
        return {}
    library = next(Path("/usr/lib").glob(f"*/faketime/{FAKETIME}"), None)
    if library is None:
        raise FileNotFoundError(f"{FAKETIME} is not installed (Debian: apt-get install faketime)")
    return {"LD_PRELOAD": str(library), "FAKETIME": f"{clock_s:+g}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
