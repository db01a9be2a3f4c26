"""Promise 8: a batch can be paused, resumed and canceled at any time; what was answered stays answered."""

from collections.abc import Callable

import pytest

from producers import results, run, submit, wait
from promptmill.errors import InvalidTransition
from promptmill.simulator.process import SimulatorHandle
from promptmill.testing import simulated_claude

QUESTIONS = [f"Name a river that begins with letter {n}." for n in range(10)]


def test_a_paused_batch_waits_and_a_resumed_one_goes_on(use: Callable[[SimulatorHandle], None]) -> None:
    with simulated_claude() as claude:
        use(claude)
        batch = submit(QUESTIONS, model="claude-haiku-5-5")

        assert batch.pause().batch.state == "paused"
        assert batch.pause().batch.state == "paused"  # said twice it is still so
        assert batch.resume().batch.state == "active"

        assert run(QUESTIONS, model="claude-haiku-5-5", progress=False) == batch
        assert batch.status().batch.succeeded == len(QUESTIONS)
        with pytest.raises(InvalidTransition, match="has ended: all of it is answered"):
            batch.resume()


def test_a_canceled_batch_ends_with_what_it_has(claude: SimulatorHandle) -> None:
    claude.set_scenario(fault=[{"kind": "stall", "after": 0.0, "pause_s": 1.0}])
    batch = submit(QUESTIONS, model="claude-haiku-5-5")

    batch.cancel()

    status = wait(batch, timeout=60)
    assert status.batch.state == "ended"
    assert status.batch.succeeded + status.batch.canceled == len(QUESTIONS)
    assert {result.state for result in results(batch)} <= {"succeeded", "canceled"}


def test_waiting_has_an_end_if_you_want_one(use: Callable[[SimulatorHandle], None]) -> None:
    with simulated_claude() as claude:
        use(claude)
        batch = submit(QUESTIONS, model="claude-haiku-5-5")

        with pytest.raises(TimeoutError):
            wait(batch, timeout=0.1)
