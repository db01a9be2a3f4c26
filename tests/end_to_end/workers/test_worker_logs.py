"""What a worker writes: its own lines at the level that was asked for, and none of Celery's for each job."""

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from promptmill.testing import a_batch, a_prompt, simulated_claude

pytestmark = pytest.mark.timeout(120)


def test_lines_of_level_info_are_written_when_they_are_asked_for(
    start_mill: Callable[..., Any], sqlite_url: str, clean_redis: str
) -> None:
    with simulated_claude() as claude, Redis.from_url(clean_redis) as redis:
        mill = start_mill(sqlite_url, claude, PROMPTMILL_LOG_LEVEL="INFO")
        mill.start_worker()
        mill.wait_for_end(a_batch(mill.database, 3).id)
        mill.wait_for_end(a_batch(mill.database, [a_prompt(model="claude-of-nowhere")]).id)
        redis.client_kill_filter(_type="normal", skipme=True)
        mill.wait_until(lambda: "Connection to broker lost" in mill.logs(), timeout=20)
        mill.wait_for_end(a_batch(mill.database, 3).id)
    assert "worker_started" in mill.logs()
    assert "job_given_up" in mill.logs()
    assert "succeeded in" not in mill.logs()
    assert "CPendingDeprecationWarning" not in mill.logs()
