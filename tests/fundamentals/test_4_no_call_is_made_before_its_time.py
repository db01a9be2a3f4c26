"""Promise 4: waiting happens before a call, so the limits of the account are kept and no call is refused."""

from collections.abc import Callable

import pytest

from producers import run
from promptmill.simulator.process import SimulatorHandle
from promptmill.testing import simulated_claude

QUESTIONS = [f"What comes after {n}?" for n in range(12)]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def test_a_limit_you_set_is_kept(
    use: Callable[[SimulatorHandle], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with simulated_claude(rpm=240, burst_s=1) as claude:
        use(claude)
        monkeypatch.setenv("PROMPTMILL_RPM", "240")

        batch = run(QUESTIONS, model="claude-haiku-5-5", progress=False)

        status = batch.status()
        assert status.batch.succeeded == len(QUESTIONS)
        assert status.failures.get("rate_limited", 0) == 0
        assert claude.ledger()["answered"] == {"1": len(QUESTIONS)}
        assert claude.ledger()["requests"] == len(QUESTIONS)


def test_a_limit_you_did_not_set_is_learned(
    use: Callable[[SimulatorHandle], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with simulated_claude(rpm=600, itpm=100_000, otpm=20_000) as claude:
        use(claude)
        for name in ("PROMPTMILL_RPM", "PROMPTMILL_ITPM", "PROMPTMILL_OTPM"):
            monkeypatch.delenv(name)

        batch = run(QUESTIONS, model="claude-haiku-5-5", progress=False)

        assert batch.status().failures.get("rate_limited", 0) == 0
        assert claude.ledger()["requests"] == len(QUESTIONS)
