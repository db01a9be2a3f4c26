"""One prompt that ends its process, among many that do not: it ends, they are answered.

The rules are the product's own; a worker, its calls and the seconds of a death are a model of them.
"""

import heapq
import itertools
import random
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from promptmill.retries import GiveUp, after_loss
from workers.suspects import CAPACITIES, REST_S, Suspects

INNOCENT = 500
POISON_ACTS_S = 1.0
RETURNS_S = 15.0
"""From the death of a process until its jobs are found, and another has taken its place."""


@dataclass
class Process:
    suspects: Suspects = field(default_factory=Suspects)
    running: dict[int, ExitStack] = field(default_factory=dict)
    life: int = 0
    back_at: float = 0.0


@dataclass
class Mill:
    """Job 0 is the poison; calls last as long as told."""

    call_s: float
    processes: list[Process]
    poisons: int = 1
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    losses: Counter[int] = field(default_factory=Counter)
    errored: set[int] = field(default_factory=set)
    answered: set[int] = field(default_factory=set)
    now: float = 0.0
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _events: list[tuple[float, int, str, int, Process | None, int]] = field(default_factory=list)

    def run(self) -> None:
        for job in range(INNOCENT + self.poisons):
            self._at(0.0, "due", job)
        while self._events:
            self.now, _, what, job, process, life = heapq.heappop(self._events)
            if what == "due":
                self._begin(job)
            elif process is not None and process.life == life:
                if what == "dies":
                    self._die(process)
                else:
                    process.running.pop(job).close()
                    self.answered.add(job)

    def _at(self, when: float, what: str, job: int, process: Process | None = None) -> None:
        life = process.life if process else 0
        heapq.heappush(self._events, (when, next(self._numbers), what, job, process, life))

    def _begin(self, job: int) -> None:
        up = [each for each in self.processes if each.back_at <= self.now]
        if not up:
            self._at(min(each.back_at for each in self.processes), "due", job)
            return
        process = self.rng.choice(up)
        with ExitStack() as held:
            if not held.enter_context(process.suspects.among(self.losses[job])):
                self._at(self.now + self.rng.uniform(*REST_S), "due", job)
                return
            process.running[job] = held.pop_all()
        if job < self.poisons:
            self._at(self.now + POISON_ACTS_S, "dies", job, process)
        else:
            self._at(self.now + self.call_s, "ends", job, process)

    def _die(self, process: Process) -> None:
        lost, process.running = list(process.running), {}
        process.suspects = Suspects()
        process.life += 1
        process.back_at = self.now + RETURNS_S
        for job in lost:
            self.losses[job] += 1
            decision = after_loss(self.losses[job], max_losses=5, rng=self.rng)
            if isinstance(decision, GiveUp):
                self.errored.add(job)
            else:
                self._at(self.now + RETURNS_S + decision.after, "due", job)


@pytest.mark.parametrize("call_s", [5, 30, 120])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_poison_ends_after_five_processes_and_takes_no_innocent_with_it(
    call_s: float, workers: int
) -> None:
    mill = Mill(call_s, [Process() for _ in range(workers)])
    mill.run()
    assert mill.errored == {0}
    assert mill.answered == set(range(1, INNOCENT + 1))
    assert max(mill.losses[job] for job in mill.answered) <= 4


def test_what_was_lost_once_runs_freely_and_suspects_in_ever_smaller_groups() -> None:
    for losses, most in [(0, None), (1, None), (2, CAPACITIES[2]), (3, 1), (4, 1)]:
        suspects = Suspects()
        with ExitStack() as held:
            room = [held.enter_context(suspects.among(losses)) for _ in range(50)]
        assert sum(room) == (most or 50)


def test_those_lost_three_times_and_more_share_one_place_until_it_is_left() -> None:
    suspects = Suspects()
    with suspects.among(3) as first, suspects.among(4) as second:
        assert (first, second) == (True, False)
    with suspects.among(4) as later:
        assert later
