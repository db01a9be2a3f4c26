"""An overloaded Claude is approached by all together and gently; a revoked key leaves its work to another."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from promptmill.states import JobState
from promptmill.store import ledger
from promptmill.testing import a_batch, simulated_claude

Start = Callable[..., Any]
pytestmark = pytest.mark.timeout(180)

STORM_S = 10
RATE = 30


def test_a_storm_of_529_slows_the_whole_group_and_it_recovers(start_mill: Start, sqlite_url: str) -> None:
    """Two workers at 30 calls a second together; the longer everything is refused, the fewer they make."""
    with simulated_claude() as claude:
        mill = start_mill(sqlite_url, claude, PROMPTMILL_RPM=str(60 * RATE))
        made = a_batch(mill.database, 900)
        mill.start_worker()
        mill.start_worker()
        mill.wait_until(lambda: mill.status(made.id).jobs[JobState.SUCCEEDED] >= 150, timeout=60)
        claude.set_scenario(fault=[{"kind": "overloaded"}])
        over = time.monotonic() + STORM_S
        mill.wait_until(lambda: time.monotonic() > over, timeout=2 * STORM_S)
        refused = claude.ledger()["refused"]["total"]
        claude.set_scenario()
        status = mill.wait_for_end(made.id, timeout=120)
        answered = claude.ledger()["answered"]
    assert status.jobs[JobState.SUCCEEDED] == 900
    assert answered == {"1": 900}
    assert refused <= status.failures["overloaded"] <= refused + RATE
    in_storm, after_it = _paces(mill, made.id)
    assert in_storm <= 0.85 * RATE
    assert after_it >= 0.85 * RATE


def _paces(mill: Any, batch_id: str) -> tuple[float, float]:
    """Calls a second: in the last three seconds of the storm, and in the best three after it."""
    with mill.database.read() as connection:
        attempts = ledger.attempts_of(connection, batch_id=batch_id)
    stormy = [each.opened_at.timestamp() for each in attempts if each.outcome == "overloaded"]
    ended = max(stormy)
    in_storm = sum(each > ended - 3 for each in stormy) / 3
    later = Counter(
        int(each.opened_at.timestamp() - ended) // 3
        for each in attempts
        if each.opened_at.timestamp() > ended
    )
    return in_storm, max(later.values()) / 3


KEYS = """
[[key]]
label = "main"
key = "sk-simulated-one"

[[key]]
label = "second"
key = "sk-simulated-two"
"""


def test_a_revoked_key_is_retired_and_another_takes_over(
    start_mill: Start, sqlite_url: str, tmp_path: Any
) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(KEYS)
    accounts = {"one": ["sk-simulated-one"], "two": ["sk-simulated-two"]}
    with simulated_claude(organizations=accounts, only_known_keys=True, first_token_s=0.2) as claude:
        mill = start_mill(sqlite_url, claude, PROMPTMILL_KEYS_FILE=str(keys), PROMPTMILL_CONCURRENCY="5")
        made = a_batch(mill.database, 100)
        mill.start_worker()
        mill.wait_until(lambda: mill.status(made.id).jobs[JobState.SUCCEEDED] >= 20, timeout=60)
        claude.set_scenario(fault=[{"kind": "key_revoked", "organization": "one"}])
        status = mill.wait_for_end(made.id)
    assert status.jobs[JobState.SUCCEEDED] == 100
    assert set(status.failures) == {"key_rejected"}
    assert status.failures["key_rejected"] <= 10
    with mill.database.read() as connection:
        attempts = ledger.attempts_of(connection, batch_id=made.id)
    used = Counter(each.key_label for each in attempts if each.outcome == ledger.SUCCEEDED)
    assert used["main"] >= 20
    assert used["second"] >= 50
    assert "sk-simulated" not in mill.logs()
