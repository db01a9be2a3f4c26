"""A rehearsal is held against the simulator's own book: every call that was billed, by its request id."""

import http.client
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from producers.audit_ledger import Comparison, Reader, compare_with
from promptmill import retention
from promptmill.clock import SystemClock
from promptmill.errors import ConfigurationError
from promptmill.pricing import price_of
from promptmill.simulator.process import SimulatorHandle
from promptmill.store import jobs
from promptmill.store.batches import BatchRow
from promptmill.store.jobs import Completion
from promptmill.store.purging import Part
from promptmill.testing import MODEL, simulated_claude
from promptmill.usage import Usage
from tests.ports import free_port


@pytest.fixture
def claude() -> Iterator[SimulatorHandle]:
    with simulated_claude() as simulator:
        yield simulator


def _call(claude: SimulatorHandle) -> tuple[str, int]:
    """One call: its request id, and what its answer cost."""
    connection = http.client.HTTPConnection(urlsplit(claude.url).netloc)
    prompt = {"model": MODEL, "max_tokens": 20, "messages": [{"role": "user", "content": "Why?"}]}
    headers = {"x-api-key": "any", "anthropic-version": "2023-06-01", "content-type": "application/json"}
    connection.request("POST", "/v1/messages", json.dumps(prompt), headers)
    response = connection.getresponse()
    used = json.loads(response.read())["usage"]
    connection.close()
    cost = price_of(
        Usage(input_tokens=used["input_tokens"], output_tokens=used["output_tokens"]), model=MODEL
    )
    assert cost is not None
    return response.headers["request-id"], cost


def _record(world: Any, made: BatchRow, request_id: str | None, cost_nanos: int | None) -> None:
    """What a worker writes of a call."""
    [lease] = world.running(made, 1)
    if cost_nanos is None:
        closed = world.closed(lease, "connection_failed", cost_nanos=None, usage=None, request_id=request_id)
        failure = replace(world.failure(lease, "connection_failed"), attempt=closed)
        with world.database.begin() as conn:
            jobs.fail(conn, [failure], world.now)
        return
    closed = world.closed(lease, cost_nanos=cost_nanos, request_id=request_id)
    completion: Completion = world.completion(lease, attempt=closed)
    with world.database.begin() as conn:
        jobs.complete(conn, [completion], world.now)


def _compared(world: Any, made: BatchRow, claude: SimulatorHandle) -> Comparison:
    return compare_with(Reader(claude.url), world.database, made.id)


def _broken(comparison: Comparison) -> dict[str, tuple[int, int]]:
    return {each.name: (each.expected, each.found) for each in comparison.checks if not each.ok}


def test_attempts_that_say_what_was_billed_hold(world: Any, claude: SimulatorHandle) -> None:
    made = world.batch(2)
    for _ in range(2):
        _record(world, made, *_call(claude))

    comparison = _compared(world, made, claude)

    assert _broken(comparison) == {}
    assert (comparison.notes, comparison.remarks) == ((), ())


def test_a_cost_that_is_not_what_was_billed_is_found(world: Any, claude: SimulatorHandle) -> None:
    made = world.batch(1)
    request_id, cost = _call(claude)
    _record(world, made, request_id, cost - 1)

    assert _broken(_compared(world, made, claude)) == {
        "ledger_attempts": (1, 0),
        "ledger_total": (cost, cost - 1),
    }


def test_a_call_that_is_booked_twice_is_found(world: Any, claude: SimulatorHandle) -> None:
    made = world.batch(2)
    request_id, cost = _call(claude)
    _record(world, made, request_id, cost)
    _record(world, made, request_id, cost // 2)

    broken = _broken(_compared(world, made, claude))

    assert broken == {
        "ledger_attempts": (2, 1),
        "ledger_claimed_again": (0, 1),
        "ledger_total": (cost, cost + cost // 2),
    }


def test_an_answer_without_the_cost_that_the_book_has_is_found(world: Any, claude: SimulatorHandle) -> None:
    made = world.batch(1)
    request_id, _ = _call(claude)
    [lease] = world.running(made, 1)
    closed = world.closed(lease, cost_nanos=None, request_id=request_id)
    with world.database.begin() as conn:
        jobs.complete(conn, [world.completion(lease, attempt=closed)], world.now)

    assert _broken(_compared(world, made, claude)) == {"ledger_without_cost": (0, 1)}


def test_an_attempt_that_the_simulator_never_billed_is_found(world: Any, claude: SimulatorHandle) -> None:
    made = world.batch(1)
    request_id, cost = _call(claude)
    _record(world, made, f"{request_id[:-1]}f", cost)

    assert set(_broken(_compared(world, made, claude))) == {"ledger_attempts", "ledger_without_attempt"}


def test_a_call_whose_answer_was_lost_is_told_with_what_it_cost(world: Any, claude: SimulatorHandle) -> None:
    made = world.batch(2)
    world.now = datetime.now(UTC)  # what was closed before the book was begun cannot be in it
    named, cost = _call(claude)
    _, as_much = _call(claude)
    _record(world, made, named, None)
    _record(world, made, None, None)

    comparison = _compared(world, made, claude)

    assert _broken(comparison) == {}
    [lost] = comparison.notes
    assert (lost.name, lost.count, lost.nanos) == ("billed_and_lost", 2, cost + as_much)
    assert "$0.000002 was set aside" in lost.what


def test_a_call_that_nobody_wrote_down_is_found(world: Any, claude: SimulatorHandle) -> None:
    made = world.batch(1)
    _record(world, made, *_call(claude))
    _call(claude)

    assert _broken(_compared(world, made, claude)) == {"ledger_without_attempt": (0, 1)}


def test_calls_of_another_batch_are_theirs_and_it_is_said(world: Any, claude: SimulatorHandle) -> None:
    made, other = world.batch(1), world.batch(1)
    _record(world, made, *_call(claude))
    _record(world, other, *_call(claude))

    comparison = _compared(world, made, claude)

    assert _broken(comparison) == {}
    assert "also answered 1 other" in comparison.remarks[0]


def test_calls_of_a_batch_that_was_purged_of_everything_are_allowed_for(
    world: Any, claude: SimulatorHandle
) -> None:
    world.now = datetime.now(UTC)
    made, purged = world.batch(1), world.batch(1)
    _record(world, made, *_call(claude))
    request_id, cost = _call(claude)
    _record(world, purged, request_id, cost)
    _purge(world, purged)

    comparison = _compared(world, made, claude)

    assert _broken(comparison) == {}
    assert [(each.name, each.count, each.nanos) for each in comparison.notes] == [
        ("billed_and_purged", 1, cost)
    ]
    assert "1 other batch of this database, with 1 attempt, was purged" in comparison.remarks[-1]


def test_a_call_more_than_a_purged_batch_had_is_found(world: Any, claude: SimulatorHandle) -> None:
    world.now = datetime.now(UTC)
    made, purged = world.batch(1), world.batch(1)
    _record(world, made, *_call(claude))
    _record(world, purged, *_call(claude))
    _purge(world, purged)
    _call(claude)

    assert _broken(_compared(world, made, claude)) == {"ledger_without_attempt": (1, 2)}


def test_a_batch_purged_before_the_book_was_begun_allows_for_nothing(
    world: Any, claude: SimulatorHandle
) -> None:
    world.now = datetime.now(UTC) - timedelta(hours=1)
    made, purged = world.batch(1), world.batch(1)
    _record(world, purged, *_call(claude))
    _purge(world, purged)
    _record(world, made, *_call(claude))

    assert _broken(_compared(world, made, claude)) == {"ledger_without_attempt": (0, 1)}


def _purge(world: Any, made: BatchRow) -> None:
    everything = frozenset({Part.EVERYTHING})
    retention.purge(world.database, world.row(made), everything, clock=SystemClock(), sleep=lambda _: None)


def test_what_is_older_than_the_book_is_not_compared_and_it_is_said(
    world: Any, claude: SimulatorHandle
) -> None:
    made = world.batch(2)
    _record(world, made, *_call(claude))
    claude.reset()
    _record(world, made, *_call(claude))

    comparison = _compared(world, made, claude)

    assert _broken(comparison) == {}
    assert "1 attempts are older" in comparison.remarks[0]


def test_attempts_answered_by_another_simulator_are_not_compared(world: Any, claude: SimulatorHandle) -> None:
    made = world.batch(1)
    with simulated_claude() as another:
        request_id, cost = _call(another)
    _record(world, made, request_id.replace("_01sim", "_02sim"), cost)

    comparison = _compared(world, made, claude)

    assert _broken(comparison) == {}
    assert "no longer runs" in comparison.remarks[0]


def test_the_book_is_read_on_and_one_that_was_begun_anew_meanwhile_is_no_longer_the_same(
    claude: SimulatorHandle,
) -> None:
    _call(claude)
    reader = Reader(claude.url)
    _call(claude)
    reader.read_on()
    assert len(reader.book.costs) == 2
    claude.reset()
    with pytest.raises(ConfigurationError, match="was reset meanwhile"):
        reader.read_on()


def test_where_no_simulator_answers_it_says_so() -> None:
    with pytest.raises(ConfigurationError, match="no simulator"):
        Reader(f"http://127.0.0.1:{free_port()}")
