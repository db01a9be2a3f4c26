"""The same tasks under Celery's own pools: the fallback, on one loop that all threads share."""

from collections.abc import Callable

import pytest

from .conftest import Events, Worker

Wait = Callable[..., None]


@pytest.fixture(scope="module")
def transport() -> str:
    """Celery's threads take messages on our transport, too; its solo pool has no hub, so it is the harder test."""
    return "batched"


@pytest.fixture(scope="module", params=["threads", "solo"])
def worker(start_worker: Callable[..., Worker], request: pytest.FixtureRequest) -> Worker:
    return start_worker(8, "-P", request.param)


def test_all_bodies_share_one_loop_and_each_body_knows_its_request(
    worker: Worker, subject: str, wait_until: Wait
) -> None:
    ids = worker.send("tell_request", subject, times=20)
    wait_until(lambda: len(worker.notes(subject)) == 20)
    told = [note.split() for note in worker.notes(subject)]
    assert sorted(seen[0] for seen in told) == sorted(ids)
    assert all(before == after == current for before, after, current, _loop in told)
    assert len({loop for *_, loop in told}) == 1
    assert "loop starts" in worker.notes(f"{worker.pid}:life")


def test_a_task_may_retry_and_fail(worker: Worker, subject: str, events: Events, wait_until: Wait) -> None:
    worker.send("retry_until_third", subject)
    (failed,) = worker.send("fail")
    wait_until(lambda: worker.notes(subject) == ["0", "1", "2"])
    wait_until(lambda: "task-failed" in events.of(failed))
