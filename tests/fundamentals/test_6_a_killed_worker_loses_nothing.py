"""Promise 6: a worker may be killed at any moment; every job still ends, and none is answered twice."""

from collections.abc import Callable

import psutil
import pytest

from producers import results, submit, wait
from producers.running import at_work
from promptmill import settings
from promptmill.simulator.process import SimulatorHandle
from promptmill.testing import simulated_claude

QUESTIONS = [f"Is {n} a prime number?" for n in range(60)]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_kill_9_half_way(use: Callable[[SimulatorHandle], None], wait_until: Callable[..., None]) -> None:
    with simulated_claude(first_token_s=1.0, jitter=0.3) as claude:
        use(claude)
        with at_work(settings.load(worker__concurrency=5), workers=2, say=lambda _: None) as crew:
            batch = submit(QUESTIONS, model="claude-haiku-5-5")
            wait_until(lambda: batch.status().batch.succeeded >= 20, timeout=60)
            psutil.Process(crew.stack.workers[0].process.pid).kill()

            status = wait(batch, timeout=120)

    assert status.batch.succeeded == len(QUESTIONS)
    answers = list(results(batch))
    assert len({answer.job_id for answer in answers}) == len(QUESTIONS)
    assert all(answer.text for answer in answers)
