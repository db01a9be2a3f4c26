"""Little's law: no more calls are in flight than the limit of output can feed, once it is known how fast they write."""

import pytest

from promptmill.limits import Ceilings, Pacing
from promptmill.limits.planning import in_flight_cap, plan
from promptmill.limits.records import OUTPUT, PoolRecord, fresh_record

PACING = Pacing()
NOW = 1_000.0


@pytest.fixture
def record() -> PoolRecord:
    """1,000 tokens a second, and answers of 50 a second each: twenty of them, and what the bucket lets be more."""
    record = fresh_record(NOW, Ceilings(0, 0, 60_000), PACING)
    record.output_answers, record.output_mean, record.latency = PACING.little_after, 500.0, 10.0
    record.capacity[OUTPUT] = record.level[OUTPUT] = 8_000.0
    return record


def test_as_many_are_in_flight_as_the_limit_feeds(record: PoolRecord) -> None:
    assert in_flight_cap(record, PACING) == pytest.approx(20 * (1.05 + 8_000 / 40_000))  # 25


def test_a_few_answers_tell_nothing_yet(record: PoolRecord) -> None:
    record.output_answers -= 1
    assert in_flight_cap(record, PACING) == float("inf")


def test_one_more_has_to_wait_until_another_ends(record: PoolRecord) -> None:
    record.in_flight = 24
    assert plan(record, [1, 0, 1], NOW, PACING).start == NOW
    record.in_flight = 25
    waits = plan(record, [1, 0, 1], NOW, PACING)
    assert waits.start > NOW + PACING.horizon
    assert waits.binding == OUTPUT
