"""How a worker ends: what it finishes, what it gives back, what it loses."""

import signal
from collections.abc import Callable

import pytest

from .conftest import Worker

Wait = Callable[..., None]
Start = Callable[..., Worker]

AT_ONCE_S = 5.0
"""A worker that waits for nothing: a few tenths of a second, alone on a machine."""


def _worker_with_four_of_ten_begun(start_worker: Start, subject: str, wait_until: Wait) -> Worker:
    worker = start_worker(4)
    worker.send("pass_gate", subject, times=10)
    wait_until(lambda: len(worker.notes(f"{subject}:begun")) == 4)
    return worker


def _wait_until_it_drains(worker: Worker, wait_until: Wait) -> None:
    """Until then a second signal of the same kind may be one with the first: the kernel keeps no count."""
    wait_until(lambda: "Warm" in worker.notes(f"{worker.pid}:shutting_down"))


def test_sigterm_lets_running_jobs_finish_and_leaves_the_rest_in_the_queue(
    start_worker: Start, subject: str, wait_until: Wait
) -> None:
    worker = _worker_with_four_of_ten_begun(start_worker, subject, wait_until)
    worker.signal(signal.SIGTERM)
    _wait_until_it_drains(worker, wait_until)
    worker.open_gate(subject)
    assert worker.wait() == 0
    assert len(worker.notes(f"{subject}:begun")) == len(worker.notes(f"{subject}:done")) == 4
    assert worker.waiting() == 6


def test_sigquit_cancels_running_jobs_which_put_their_things_in_order(
    start_worker: Start, subject: str, wait_until: Wait
) -> None:
    worker = _worker_with_four_of_ten_begun(start_worker, subject, wait_until)
    worker.signal(signal.SIGQUIT)
    worker.wait(AT_ONCE_S)
    assert sorted(worker.notes(f"{subject}:cancelled")) == sorted(worker.notes(f"{subject}:begun"))
    assert worker.waiting() == 6


def test_sigquit_cuts_a_drain_short(start_worker: Start, subject: str, wait_until: Wait) -> None:
    worker = _worker_with_four_of_ten_begun(start_worker, subject, wait_until)
    worker.signal(signal.SIGTERM)
    _wait_until_it_drains(worker, wait_until)
    worker.signal(signal.SIGQUIT)
    worker.wait(AT_ONCE_S)
    assert len(worker.notes(f"{subject}:cancelled")) == 4
    assert worker.waiting() == 6


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_of_any_kind_cuts_a_drain_short(
    start_worker: Start, subject: str, wait_until: Wait, second: signal.Signals
) -> None:
    worker = _worker_with_four_of_ten_begun(start_worker, subject, wait_until)
    worker.signal(signal.SIGTERM)
    _wait_until_it_drains(worker, wait_until)
    worker.signal(second)
    worker.wait(AT_ONCE_S)
    assert len(worker.notes(f"{subject}:cancelled")) == 4
    assert worker.waiting() == 6


def test_two_signals_at_once_cut_what_runs_and_nothing_else(
    start_worker: Start, subject: str, wait_until: Wait
) -> None:
    worker = _worker_with_four_of_ten_begun(start_worker, subject, wait_until)
    worker.signal(signal.SIGINT)
    worker.signal(signal.SIGTERM)
    worker.wait(AT_ONCE_S)
    assert len(worker.notes(f"{subject}:cancelled")) == 4
    assert worker.waiting() == 6


def test_the_loop_outlives_the_jobs(start_worker: Start, subject: str, wait_until: Wait) -> None:
    worker = start_worker(2)
    worker.send("pass_gate", subject)
    wait_until(lambda: worker.notes(f"{subject}:begun"))
    worker.signal(signal.SIGTERM)
    worker.open_gate(subject)
    assert worker.wait() == 0
    assert worker.notes(f"{subject}:done")
    assert worker.notes(f"{worker.pid}:life") == ["loop starts", "loop stops"]


def test_kill_9_loses_only_what_had_begun(start_worker: Start, subject: str, wait_until: Wait) -> None:
    killed = _worker_with_four_of_ten_begun(start_worker, subject, wait_until)
    lost = killed.notes(f"{subject}:begun")
    killed.signal(signal.SIGKILL)
    killed.wait()
    killed.open_gate(subject)
    start_worker(4, queue=killed.queue)
    wait_until(lambda: len(killed.notes(f"{subject}:done")) == 6)
    assert len(killed.notes(f"{subject}:begun")) == 10
    assert not set(lost) & set(killed.notes(f"{subject}:done"))


def test_a_worker_whose_clients_cannot_be_made_does_not_start(start_worker: Start) -> None:
    worker = start_worker(1, must_be_ready=False, POOL_TEST_BREAK_START="1")
    assert worker.wait() != 0
    assert "no database" in worker.log


def test_a_worker_whose_loop_has_died_ends(start_worker: Start) -> None:
    worker = start_worker(2)
    worker.send("end_the_loop")
    assert worker.wait() != 0
    assert "loop_died" in worker.log
