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

RATE = 100
"""Calls a second of both workers together; a start begins with a fifth of it."""
JOBS = 180
SPAN_S, MOST_IN_SPAN = 6, 3
"""While everything is refused: a call every three seconds, of both workers together."""


@pytest.mark.chaos
def test_a_total_outage_all_but_stops_the_whole_group_and_it_recovers(
    start_mill: Start, sqlite_url: str
) -> None:
    with simulated_claude() as claude:
        mill = start_mill(sqlite_url, claude, PROMPTMILL_RPM=str(60 * RATE))
        made = a_batch(mill.database, JOBS)
        mill.start_worker()
        mill.start_worker()
        mill.wait_until(lambda: mill.status(made.id).jobs[JobState.SUCCEEDED] >= 20, timeout=30)
        claude.set_scenario(fault=[{"kind": "overloaded"}])
        seen: list[tuple[float, int]] = []
        mill.wait_until(lambda: _asks_now_and_then(claude.ledger(), seen), timeout=30)
        refused = claude.ledger()["refused"]["total"]
        claude.set_scenario()
        status = mill.wait_for_end(made.id, timeout=60)
        answered = claude.ledger()["answered"]
    assert status.jobs[JobState.SUCCEEDED] == JOBS
    assert answered == {"1": JOBS}
    assert refused <= status.failures["overloaded"] <= refused + 1
    waited, pace = _return(mill, made.id)
    assert waited <= 6
    assert pace >= 0.1 * RATE


def _asks_now_and_then(book: dict[str, Any], seen: list[tuple[float, int]]) -> bool:
    """Whether calls went out in the last seconds, and hardly any; `seen` remembers how many there were when."""
    now, refused = time.monotonic(), book["refused"]["total"]
    seen.append((now, refused))
    earlier = [count for moment, count in seen if moment <= now - SPAN_S]
    return bool(earlier) and 0 < refused - earlier[-1] <= MOST_IN_SPAN


def _return(mill: Any, batch_id: str) -> tuple[float, float]:
    """Seconds from the last refusal to the first call that was answered; calls a second in the four after it."""
    with mill.database.read() as connection:
        attempts = ledger.attempts_of(connection, batch_id=batch_id)
    ended = max(each.opened_at.timestamp() for each in attempts if each.outcome == "overloaded")
    later = [each.opened_at.timestamp() for each in attempts if each.opened_at.timestamp() > ended]
    first = min(later)
    return first - ended, sum(each <= first + 4 for each in later) / 4


def test_a_revoked_key_is_retired_and_another_takes_over(
    start_mill: Start, sqlite_url: str, write_keys: Callable[..., Any]
) -> None:
    keys = write_keys(account="default")
    after_30 = {"kind": "key_revoked", "organization": "one", "after_usd": 0.03}
    with simulated_claude(
        organizations=keys.organizations, only_known_keys=True, first_token_s=0.2, faults=[after_30]
    ) as claude:
        mill = start_mill(sqlite_url, claude, PROMPTMILL_KEYS_FILE=keys.file, PROMPTMILL_CONCURRENCY="5")
        made = a_batch(mill.database, 100)
        mill.start_worker()
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
