"""Two accounts add up, and a limit that the server changes is taken over and said."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from promptmill.states import JobState
from promptmill.store import ledger
from promptmill.testing import a_batch, simulated_claude

Start = Callable[..., Any]
pytestmark = pytest.mark.timeout(180)


def test_two_accounts_share_a_batch_and_neither_is_refused(
    start_mill: Start, sqlite_url: str, write_keys: Callable[..., Any]
) -> None:
    keys = write_keys()
    with simulated_claude(rpm=1800, organizations=keys.organizations, only_known_keys=True) as claude:
        mill = start_mill(sqlite_url, claude, PROMPTMILL_KEYS_FILE=keys.file, PROMPTMILL_RPM="1800")
        batch = a_batch(mill.database, 200)
        mill.start_worker()
        status = mill.wait_for_end(batch.id)
        refused = claude.ledger()["refused"]["total"]
    assert (status.jobs[JobState.SUCCEEDED], refused) == (200, 0)
    with mill.database.read() as connection:
        used = Counter(attempt.key_label for attempt in ledger.attempts_of(connection, batch_id=batch.id))
    assert set(used) == {"main", "second"}
    assert min(used.values()) >= 70


def test_limits_for_an_account_that_no_key_has_are_said_by_a_worker_at_its_start(
    start_mill: Start, sqlite_url: str, tmp_path: Any, write_keys: Callable[..., Any]
) -> None:
    keys = write_keys()
    (tmp_path / "promptmill.toml").write_text("[limits.accounts.reserch]\nrpm = 50\n")
    with simulated_claude() as claude:
        mill = start_mill(sqlite_url, claude, PROMPTMILL_KEYS_FILE=keys.file, PROMPTMILL_LOG_FORMAT="json")
        mill.start_worker()
        mill.wait_until(lambda: "limits_of_no_account" in mill.logs(), timeout=30)
    [line] = [line for line in mill.logs().splitlines() if "limits_of_no_account" in line]
    assert "reserch" in line
    assert "product" in line


def test_a_limit_that_the_server_lowers_is_taken_over_and_said(start_mill: Start, sqlite_url: str) -> None:
    with simulated_claude(rpm=2400, itpm=10**7, otpm=10**7) as claude:
        mill = start_mill(sqlite_url, claude, PROMPTMILL_RPM="", PROMPTMILL_ITPM="", PROMPTMILL_OTPM="")
        batch = a_batch(mill.database, 160)
        mill.start_worker()
        mill.wait_until(lambda: mill.status(batch.id).jobs[JobState.SUCCEEDED] >= 30, timeout=60)
        claude.set_limits(rpm=1200)
        mill.wait_until(lambda: "limit_changed" in mill.logs(), timeout=15)
        status = mill.wait_for_end(batch.id)
        refused = claude.ledger()["refused"]["total"]
    assert (status.jobs[JobState.SUCCEEDED], refused) == (160, 0)
