"""A limit that changes is said once, in the log."""

from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from promptmill.dimensions import Amounts, Headroom
from promptmill.limits import LocalLimiter, Pool, PoolState
from workers.limit_changes import LimitChanges

POOL = Pool("research", "claude-sonnet-5")


@pytest.fixture
def limiter() -> LocalLimiter:
    return LocalLimiter()


async def told(limiter: LocalLimiter, rpm: float) -> PoolState:
    """The state after a reply whose headers state these requests per minute."""
    permit = await limiter.acquire(POOL, Amounts(1, 10, 10), patience=60)
    await limiter.settle(permit, Amounts(1, 10, 10), Headroom(requests_limit=rpm, requests_remaining=rpm - 1))
    limiter._headroom_at.clear()  # headers of one quarter of a second count once
    return await limiter.peek(POOL)


def names(logs: list[Any]) -> list[str]:
    return [entry["event"] for entry in logs]


async def test_a_learned_limit_is_told_once_and_a_changed_one_with_both_numbers(
    limiter: LocalLimiter,
) -> None:
    changes = LimitChanges()
    with capture_logs() as logs:
        changes.look([await limiter.peek(POOL)])
        changes.look([await told(limiter, 1000)])
        changes.look([await told(limiter, 1000)])
        changes.look([await told(limiter, 700)])
    assert names(logs) == ["limit_learned", "limit_changed"]
    assert logs[1]["log_level"] == "warning"
    assert (logs[1]["dimension"], logs[1]["before"], logs[1]["now"]) == ("requests", 1000, 700)
    assert (logs[1]["account"], logs[1]["group"]) == ("research", "claude-sonnet-5")


async def test_what_another_program_takes_is_told_when_it_begins_and_when_it_ends(
    limiter: LocalLimiter,
) -> None:
    quiet = await limiter.peek(POOL)
    first = quiet.dimensions[0]
    assert first.limit
    busy = replace(quiet, dimensions=(replace(first, foreign=0.3 * first.limit), *quiet.dimensions[1:]))
    changes = LimitChanges()
    with capture_logs() as logs:
        for state in (quiet, busy, busy, quiet):
            changes.look([state])
    assert names(logs) == ["limit_shared", "limit_ours_again"]
    assert logs[0]["taken_per_minute"] == round(0.3 * first.limit)
