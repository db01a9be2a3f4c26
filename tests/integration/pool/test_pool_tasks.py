"""What a task may rely on: Celery's own promises, kept on one event loop."""

from collections.abc import Callable

import pytest

from .conftest import Events, Worker

Wait = Callable[..., None]

TRIES = 3
"""A busy machine may take its time once; what waits too long by itself does so every time."""


@pytest.fixture
def event_types(events: Events, wait_until: Wait) -> Callable[[str], list[str]]:
    """The events of a task, once its last one has come."""

    def types(task_id: str) -> list[str]:
        wait_until(lambda: set(events.of(task_id)) & {"task-succeeded", "task-failed", "task-revoked"})
        return events.of(task_id)

    return types


def test_a_body_knows_its_request_before_and_after_an_await(
    worker: Worker, subject: str, wait_until: Wait
) -> None:
    ids = worker.send("tell_request", subject, times=20)
    wait_until(lambda: len(worker.notes(subject)) == 20)
    told = [note.split() for note in worker.notes(subject)]
    assert sorted(seen[0] for seen in told) == sorted(ids)
    assert all(before == after == current for before, after, current, _loop in told)


def test_an_answered_job_is_received_started_and_succeeded(
    worker: Worker, subject: str, event_types: Callable[[str], list[str]]
) -> None:
    (task_id,) = worker.send("tell_request", subject)
    assert event_types(task_id) == ["task-received", "task-started", "task-succeeded"]


def test_the_runtime_of_a_body_that_ran_ahead_is_its_own(
    worker: Worker, subject: str, events: Events, event_types: Callable[[str], list[str]]
) -> None:
    (task_id,) = worker.send("outlast_soft_limit_ahead", subject)
    event_types(task_id)
    assert [e["runtime"] > 0.15 for e in events.seen if e.get("uuid") == task_id and "runtime" in e] == [True]


def test_the_events_of_lone_jobs_leave_at_once(
    worker: Worker, subject: str, events: Events, event_types: Callable[[str], list[str]]
) -> None:
    def longest_of_five() -> float:
        late = []
        for _ in range(5):
            (task_id,) = worker.send("tell_request", subject)
            event_types(task_id)
            late += [e["local_received"] - e["timestamp"] for e in events.seen if e.get("uuid") == task_id]
        return max(late)

    # It would be up to 1 s if they waited for the hub's next poll to end, and that every time; a busy machine is not.
    assert any(longest_of_five() < 0.4 for _ in range(TRIES))


@pytest.mark.parametrize("task", ["retry_until_third", "retry_by_itself"])
def test_a_task_may_retry(
    task: str, worker: Worker, subject: str, event_types: Callable[[str], list[str]]
) -> None:
    (task_id,) = worker.send(task, subject)
    assert event_types(task_id).count("task-retried") == 2
    assert worker.notes(subject) == ["0", "1", "2"]


@pytest.mark.parametrize(
    "task",
    [
        *("fail", "fail_plainly", "cancel_itself", "leave_the_interpreter"),
        *("fail_ahead", "leave_the_interpreter_ahead"),
    ],
)
def test_a_task_that_breaks_fails_once_and_alone(
    task: str, worker: Worker, subject: str, event_types: Callable[[str], list[str]], wait_until: Wait
) -> None:
    (task_id,) = worker.send(task)
    assert event_types(task_id) == ["task-received", "task-started", "task-failed"]
    worker.send("tell_request", subject)
    wait_until(lambda: worker.notes(subject))


@pytest.mark.parametrize("task", ["outlast_soft_limit", "outlast_soft_limit_ahead"])
def test_a_soft_limit_is_raised_at_the_await(
    task: str, worker: Worker, subject: str, event_types: Callable[[str], list[str]]
) -> None:
    (task_id,) = worker.send(task, subject)
    assert event_types(task_id)[-1] == "task-succeeded"
    assert worker.notes(subject) == ["soft limit at the await"]


def test_a_hard_limit_ends_the_job_and_fails_it_once(
    worker: Worker, subject: str, event_types: Callable[[str], list[str]], wait_until: Wait
) -> None:
    (task_id,) = worker.send("outlast_hard_limit", subject)
    event_types(task_id)
    wait_until(lambda: worker.notes(subject) == ["ended"])  # its end is told when the limit passes
    (later,) = worker.send("tell_request", f"{subject}:later")
    event_types(later)
    assert event_types(task_id).count("task-failed") == 1


def test_a_body_may_use_timeouts_and_child_tasks(worker: Worker, subject: str, wait_until: Wait) -> None:
    worker.send("use_timeouts_and_children", subject)
    wait_until(lambda: worker.notes(subject))
    assert worker.notes(subject) == ["child timeout"]


def test_a_revoked_job_is_cancelled_and_puts_its_things_in_order(
    worker: Worker, subject: str, event_types: Callable[[str], list[str]], wait_until: Wait
) -> None:
    (task_id,) = worker.send("pass_gate", subject)
    wait_until(lambda: worker.notes(f"{subject}:begun"))
    worker.app.control.revoke(task_id, terminate=True)
    assert event_types(task_id) == ["task-received", "task-started", "task-revoked"]
    wait_until(lambda: worker.notes(f"{subject}:cancelled") == [task_id])


def test_a_blocking_task_does_not_hold_up_the_loop(worker: Worker, subject: str, wait_until: Wait) -> None:
    blocking = worker.send("block_a_thread", subject, times=3)
    worker.send("tell_request", f"{subject}:quick", times=50)
    wait_until(lambda: len(worker.notes(f"{subject}:quick")) == 50)
    assert worker.notes(subject) == []
    worker.open_gate(subject)
    wait_until(lambda: sorted(worker.notes(subject)) == sorted(blocking))
    worker.send("tell_lag", f"{subject}:lag")
    wait_until(lambda: worker.notes(f"{subject}:lag"))
    # Seconds, the worst of the last ten: a few hundredths alone, and the share of others on a machine that is full.
    assert 0 <= float(worker.notes(f"{subject}:lag")[0]) < 1.0
