"""Promise 9: the simulated Claude is never taken for the real one."""

import json
from collections.abc import Callable

import pytest

from producers import results, run, submit
from producers.formats import json_line
from promptmill.simulator.process import SimulatorHandle
from promptmill.testing import simulated_claude


def test_a_simulated_answer_says_so_wherever_it_goes(claude: SimulatorHandle) -> None:
    batch = submit(["Hello"], model="claude-haiku-5-5")

    batch.wait(timeout=60)

    (answer,) = results(batch)
    assert answer.simulated
    assert json.loads(json_line(answer))["simulated"] is True
    assert batch.status().batch.simulated


def test_what_was_meant_for_the_real_claude_waits_for_it(
    use: Callable[[SimulatorHandle], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with simulated_claude() as simulator:
        use(simulator)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", "https://api.anthropic.com")
        real = submit(["Hello"], model="claude-haiku-5-5")

        monkeypatch.setenv("ANTHROPIC_BASE_URL", simulator.url)
        rehearsal = run(["Hello"], model="claude-haiku-5-5", progress=False)

        assert rehearsal.id != real.id
        assert rehearsal.status().batch.succeeded == 1
        assert real.status().batch.done == 0
