"""Events of tasks are gathered, and not made while nobody listens."""

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from celery import Celery

from promptmill.broker import celery_app
from promptmill.states import JobState
from workers.consumer import Consumer
from workers.monitoring import HEARD_FOR_S, TaskEvents, event_of_lost
from workers.transport import Listeners


@pytest.fixture
def app() -> Iterator[Celery]:
    app = celery_app("memory://")
    yield app
    app.close()


@pytest.fixture
def events(app: Celery) -> Iterator[TaskEvents]:
    with app.connection_for_write() as connection:
        events = app.events.Dispatcher(connection, hostname="one@test", buffer_group=["task"])
        assert isinstance(events, TaskEvents)
        yield events


def _heard(events: TaskEvents, count: int, *, ago: float = 0.0) -> None:
    """As if the batched transport had counted who heard the last event."""
    channel = SimpleNamespace(listeners=Listeners(count, time.monotonic() - ago))
    events.producer = SimpleNamespace(channel=channel)


def _buffered(events: TaskEvents) -> int:
    return len(events._group_buffer["task"])


def test_a_task_is_told_of_where_somebody_listens(events: TaskEvents) -> None:
    _heard(events, 1)
    events.send("task-started", uuid="job_1")
    assert _buffered(events) == 1


def test_a_task_is_not_told_of_where_nobody_listens(events: TaskEvents) -> None:
    _heard(events, 0)
    events.send("task-started", uuid="job_1")
    assert _buffered(events) == 0


def test_where_nobody_counts_every_task_is_told_of(events: TaskEvents) -> None:
    events.send("task-started", uuid="job_1")
    assert _buffered(events) == 1


def test_an_old_count_of_listeners_is_not_believed(events: TaskEvents) -> None:
    _heard(events, 0, ago=HEARD_FOR_S + 1)
    events.send("task-started", uuid="job_1")
    assert _buffered(events) == 1


def test_jobs_of_a_dead_process_are_told_of_by_who_found_them(events: TaskEvents) -> None:
    consumer = Consumer.__new__(Consumer)
    consumer.event_dispatcher = events
    states = (JobState.PENDING, JobState.ERRORED, JobState.QUEUED)
    consumer._tell_of_lost({f"job_{state}": state for state in states})
    told = [(each["type"], each["uuid"]) for each in events._group_buffer["task"]]
    assert told == [("task-retried", "job_pending"), ("task-failed", "job_errored")]


def test_of_a_job_whose_worker_died_it_is_told_how_it_stands_unless_it_goes_on_elsewhere() -> None:
    assert {each: event_of_lost(each) for each in JobState} == {
        JobState.PENDING: "task-retried",
        JobState.QUEUED: None,
        JobState.RUNNING: None,
        JobState.SUBMITTED: None,
        JobState.SUCCEEDED: "task-succeeded",
        JobState.ERRORED: "task-failed",
        JobState.CANCELED: "task-revoked",
        JobState.EXPIRED: "task-revoked",
    }
