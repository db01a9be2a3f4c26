"""Recurring runs with real beats and workers: every due time once, whoever dies."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from redis import Redis

from promptmill.intake.options import SubmitOptions
from promptmill.intake.recurring import Recurring
from promptmill.recurrence import Missed, Overlap, RunState, ScheduleState, Timetable
from promptmill.store import schedule_runs, schedules
from promptmill.store.database import database_now
from promptmill.store.schedule_runs import RunRow
from promptmill.store.schedules import NewSchedule, ScheduleRow
from promptmill.testing import simulated_claude
from tests.warm.popen import WarmPopen

Start = Callable[..., Any]
pytestmark = pytest.mark.timeout(180)

EVERY_S = 2
LOCK = "promptmill:beat::lock"


@contextmanager
def beating(mill: Any, name: str) -> Iterator["subprocess.Popen[bytes]"]:
    """`celery -A workers.app beat`, as a person starts it."""
    with (mill.folder / f"{name}.log").open("wb") as log:
        process = WarmPopen(
            [sys.executable, "-m", "celery", "-A", "workers.app", "beat"],
            env=mill.environment, cwd=mill.folder, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def add(mill: Any) -> ScheduleRow:
    options = SubmitOptions(model="claude-haiku-5-5", max_tokens=20)
    with mill.database.begin() as conn:
        now = database_now(conn)
        timetable = Timetable(every_s=EVERY_S, starts_at=now.replace(microsecond=0))
        new = NewSchedule(
            name="tick", timetable=timetable, missed=Missed.ALL, overlap=Overlap.ALLOW, endpoint="simulated",
            simulated=True, next_due=timetable.after(now), what=Recurring(prompts=("{{ run }}",), options=options).document(),
        )  # fmt: skip
        return schedules.add(conn, new, now)


def two_beats_and_two_workers(
    mill: Any, started: ExitStack
) -> tuple[Redis, ScheduleRow, "subprocess.Popen[bytes]"]:
    """A schedule, and the beat that holds the lock; another waits for it."""
    redis = started.enter_context(Redis.from_url(mill.environment["PROMPTMILL_REDIS_URL"]))
    schedule = add(mill)
    first = started.enter_context(beating(mill, "first"))
    mill.wait_until(lambda: redis.exists(LOCK), timeout=60)
    started.enter_context(beating(mill, "second"))
    mill.start_worker()
    mill.start_worker()
    return redis, schedule, first


def done(mill: Any, schedule: ScheduleRow) -> Sequence[RunRow]:
    """The runs that have their batch, the oldest first."""
    with mill.database.read() as conn:
        runs = schedule_runs.runs_of(conn, schedule.id, limit=1000)
    return [run for run in reversed(runs) if run.state is RunState.SUBMITTED]


def wait_for_more(mill: Any, schedule: ScheduleRow, more: int) -> None:
    wanted = len(done(mill, schedule)) + more
    mill.wait_until(lambda: len(done(mill, schedule)) >= wanted, timeout=60)


def runs_without_a_gap(mill: Any, schedule: ScheduleRow) -> list[RunRow]:
    """A run at which its worker was killed is taken up half a minute later, and those after it meanwhile."""
    runs: list[RunRow] = []

    def has_no_gap() -> bool:
        runs[:] = done(mill, schedule)
        return all(later.due_at - run.due_at == timedelta(seconds=EVERY_S) for run, later in pairwise(runs))

    mill.wait_until(has_no_gap, timeout=60)
    return runs


def test_two_beats_and_two_workers_of_which_one_each_is_killed_make_each_due_time_one_batch(
    start_mill: Start, database_url: str
) -> None:
    with simulated_claude() as claude, ExitStack() as started:
        mill = start_mill(database_url, claude, quick=True)
        redis, schedule, first = two_beats_and_two_workers(mill, started)
        held = redis.get(LOCK)
        wait_for_more(mill, schedule, 3)

        first.kill()
        wait_for_more(mill, schedule, 1)  # no beat holds the lock, and the leader looks by itself
        redis.delete(LOCK)  # as if the 30 s had passed after which a dead beat's lock is free
        mill.wait_until(lambda: redis.get(LOCK) not in (None, held), timeout=60)
        mill.workers[0].kill()
        mill.let_the_lock_run_out()
        wait_for_more(mill, schedule, 3)
        runs = runs_without_a_gap(mill, schedule)
        with mill.database.begin() as conn:
            schedules.set_state(conn, schedule.id, ScheduleState.PAUSED, None, database_now(conn))
        for run in runs:
            mill.wait_for_end(run.batch_id)
        prompts = claude.ledger()["answered"]

    assert runs[0].due_at == schedule.next_due
    assert len({run.batch_id for run in runs}) == len(runs) >= 7
    assert sum(prompts.values()) >= len(runs)
    assert "messages_refused" not in mill.logs()


@pytest.mark.chaos
def test_a_killed_beat_is_replaced_by_the_other_and_meanwhile_nothing_is_more_than_seconds_late(
    start_mill: Start, postgres_first_url: str
) -> None:
    with simulated_claude() as claude, ExitStack() as started:
        mill = start_mill(postgres_first_url, claude)
        redis, schedule, first = two_beats_and_two_workers(mill, started)
        held = redis.get(LOCK)
        wait_for_more(mill, schedule, 5)
        first.kill()
        mill.wait_until(lambda: redis.get(LOCK) not in (None, held), timeout=60)
        wait_for_more(mill, schedule, 10)
        runs = runs_without_a_gap(mill, schedule)

    late = sorted((run.created_at - run.due_at).total_seconds() for run in runs[3:])
    print(f"{len(late)} runs: median {late[len(late) // 2]:.2f} s late, worst {late[-1]:.2f} s")  # noqa: T201  # the figure
    assert late[-1] < 5
    assert "messages_refused" not in mill.logs()
