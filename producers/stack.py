"""The stack of one machine: what `run` and `up` start where nothing runs yet, and stop again.

The idea: everything here is a convenience. The same worker can be started by hand on ten machines; this only
saves the typing on one. What is already there is used and left alone.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from producers import children
from producers.broker_address import check_broker
from producers.children import Child
from producers.companions import Companion
from producers.environment import environment_for, with_values
from producers.redis_address import check_redis
from promptmill.embedded import redis_server
from promptmill.errors import PromptmillError
from promptmill.settings import REAL_API, Settings
from promptmill.simulator.config import SimulatorConfig
from promptmill.simulator.process import SimulatorProcess

Say = Callable[[str], None]

_IDLE_STOP_S = 5.0
"""Seconds in which a process without calls in flight ends."""

_CELERY = "import celeryconfig, workers.app; from celery.__main__ import main; main()"
"""Celery looks for both in the working directory first, where a person may have a `workers` of their own."""
_WORKER = "import celeryconfig; from workers.program import main; main()"

_FEW_ARENAS = {"MALLOC_ARENA_MAX": "2"}
"""For glibc: a heap for each of a worker's ten threads leaves gaps in each, 6 MB at 3,000 calls in flight. They hold the
interpreter's lock when they allocate, so they do not wait for each other's heap."""

_INFANCY_S = 15.0
"""A worker that ends at this age or younger was started in vain: starting it again would not help."""

_RESTARTS = 5


class StackFailed(PromptmillError):
    """A process we started has ended; the message holds the end of its log."""


@dataclass(slots=True)
class Stack:
    """What we started, and the settings under which everything of this machine now works."""

    settings: Settings
    say: Say
    workers: list[Child] = field(default_factory=list)
    others: list[Companion] = field(default_factory=list)
    simulator: SimulatorProcess | None = None
    has_told: bool = False
    """Whether a person knows already that calls in flight finish first."""
    _restarts: int = 0

    @property
    def logs(self) -> Path:
        """Where the processes write."""
        return self.settings.home / "logs"

    def start_workers(self, count: int) -> None:
        """Start `count` worker processes; returns before they are ready."""
        for _ in range(count):
            self.workers.append(self._start_worker(len(self.workers) + 1))

    def start_other(self, name: str, command: Sequence[str], **extra: str) -> None:
        """Start a process beside the workers, without which they can do; `extra` goes into its environment."""
        environment = environment_for(self.settings, os.environ) | extra
        log = self.logs / f"{name}.log"

        def start() -> Child:
            return children.start(name, command, environment=environment, log=log)

        self.others.append(Companion(start, start()))

    def use_simulator(self) -> None:
        """Start a simulated Claude and make it the endpoint of everything started from now on.

        Raises:
            SimulatorFailed: it does not start.
        """
        self.simulator = SimulatorProcess(SimulatorConfig(port=0))
        self.settings = with_values(self.settings, "simulator", claude__base_url=self.simulator.url)

    def look_after(self) -> None:
        """Start again what has died in the meantime; beside the workers, something may in the end be done without.

        Raises:
            StackFailed: a worker dies as soon as it is started, or again and again.
        """
        for place, child in enumerate(self.workers):
            if child.runs:
                continue
            self._restarts += 1
            if child.age_s <= _INFANCY_S or self._restarts > _RESTARTS:
                raise _failure(child)
            self.say(f"{child.name} has ended ({child.how_it_ended}) and is started again")
            self.workers[place] = self._start_worker(place + 1)
        for companion in self.others:
            companion.look_after(self.say)
        if self.simulator and not self.simulator.is_running:
            raise StackFailed("the simulated Claude has ended")

    def stop(self) -> None:
        """Stop what we started, workers first; their calls in flight finish, unless we are interrupted."""
        ours = [*self.workers, *(companion.child for companion in self.others)]
        try:
            children.ask_to_stop(ours)
            if not children.await_end(ours, _IDLE_STOP_S):
                if not self.has_told:
                    self.say("waiting for the calls in flight to finish; Ctrl-C cuts them")
                grace_s = self.settings.claude.total_timeout_s + _IDLE_STOP_S
                children.await_end(ours, grace_s)
        except KeyboardInterrupt:
            # The second request makes a worker hand back at once what it has.
            children.ask_to_stop(ours)
            children.await_end(ours, _IDLE_STOP_S)
            raise
        finally:
            children.kill(ours)
            if self.simulator:
                self.simulator.close()
            self.workers.clear()
            self.others.clear()

    def _start_worker(self, number: int) -> Child:
        name = f"worker-{number}"
        node = f"promptmill-{os.getpid()}-{number}-{time.monotonic_ns() % 1_000_000}@%h"
        command = [sys.executable, "-P", "-c", _WORKER, "-A", "workers.app", "worker", "-n", node]
        command += ["--without-gossip", "--without-mingle"]
        return children.start(
            name,
            command,
            environment=_FEW_ARENAS | environment_for(self.settings, os.environ, is_worker=True),
            log=self.logs / f"{name}.log",
        )


@contextmanager
def local_stack(settings: Settings, say: Say) -> Iterator[Stack]:
    """A stack with a Redis and nothing else yet; all it started is stopped at the end of the block.

    An embedded Redis is shared by all that work in the same data folder, and ends with the last of them.

    Raises:
        ConfigurationError: the embedded Redis does not start, or a Redis or a broker that is set does not answer.
    """
    if settings.broker_url is not None:
        check_broker(settings.broker_url)
    with ExitStack() as resources:
        if settings.redis_url is None:
            url = resources.enter_context(redis_server(settings.home))
            settings = with_values(settings, "embedded", redis_url=url)
        else:
            check_redis(settings.redis_url)
        stack = Stack(settings, say)
        try:
            yield stack
        finally:
            stack.stop()


def needs_simulator(settings: Settings) -> bool:
    """Whether nothing says where to call or with what: then only the simulator can answer."""
    return not settings.claude.has_key and settings.claude.base_url == REAL_API


def celery(*arguments: str) -> list[str]:
    """The command line of a Celery program for our app; `celery -A workers.app …` with the imports done first."""
    return [sys.executable, "-P", "-c", _CELERY, "-A", "workers.app", *arguments]


def _failure(child: Child) -> StackFailed:
    words = "\n  ".join(child.last_words())
    return StackFailed(
        f"{child.name} has ended ({child.how_it_ended}); its last words, in {child.log}:\n  {words}"
    )
