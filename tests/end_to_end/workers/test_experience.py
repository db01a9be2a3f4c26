"""What was learned is shared and outlives the process: seen in what a new worker reserves from its first call on."""

from collections.abc import Callable
from statistics import mean, stdev
from typing import Any

import pytest

from promptmill.limits import BlockingLimiter, RedisLimiter
from promptmill.store import ledger
from promptmill.store.batches import BatchRow
from promptmill.store.database import Database
from promptmill.store.ledger import AttemptRow
from promptmill.testing import a_batch, a_prompt, simulated_claude

pytestmark = pytest.mark.timeout(180)

MODEL = "claude-sonnet-5"
OUTPUT_NANOS = 10_000  # a token of output at the published price of that model


def attempts_of(database: Database, batch: BatchRow) -> list[AttemptRow]:
    with database.read() as connection:
        return list(ledger.attempts_of(connection, batch_id=batch.id))


def of_template(database: Database, jobs: int, text: str) -> BatchRow:
    prompts = [a_prompt(f"{text} {n}", max_tokens=4_000) for n in range(jobs)]
    return a_batch(database, prompts, template="the same")


def reserved_input(redis_url: str) -> float:
    """Tokens of input that a permit reserves on average, as the limiter tells; 0 before the first."""
    with BlockingLimiter(lambda: RedisLimiter(redis_url, process="test")) as limiter:
        return sum(limiter.peek(pool).mean.input_tokens for pool in limiter.pools())


def test_a_new_worker_reserves_what_others_have_learned_from_its_first_call_on(
    start_mill: Callable[..., Any], database_url: str
) -> None:
    with simulated_claude(mean_output_tokens=50, output_spread=0.2) as claude:
        mill = start_mill(database_url, claude)
        first = of_template(mill.database, 60, "What is")
        worker = mill.start_worker()
        mill.wait_for_end(first.id)
        worker.terminate()
        worker.wait(60)

        second = of_template(mill.database, 5, "What was")
        mill.start_worker()
        mill.wait_for_end(second.id)

    used = [each.usage.output_tokens for each in attempts_of(mill.database, first)]
    guessed, learned = attempts_of(mill.database, first)[0], attempts_of(mill.database, second)[0]
    assert guessed.reserved_nanos
    assert learned.reserved_nanos
    assert guessed.reserved_nanos > 400 * OUTPUT_NANOS
    learned_output = (learned.reserved_nanos - learned.usage.total_input_tokens * 2_000) / OUTPUT_NANOS
    # What about one call in forty exceeds is set aside: two deviations above the mean, both as they were seen.
    assert learned_output == pytest.approx(mean(used) + 2 * stdev(used), rel=0.1)


def test_a_cached_prefix_is_charged_when_it_is_written_and_not_when_it_is_read(
    start_mill: Callable[..., Any], sqlite_url: str, clean_redis: str
) -> None:
    rules = "Answer in one word, and mind every rule of this list. " * 120
    system = [{"type": "text", "text": rules, "cache_control": {"type": "ephemeral"}}]
    prompts = [a_prompt(f"Question {n}", system=system, max_tokens=50) for n in range(60)]
    limits = {"PROMPTMILL_ITPM": "600000", "PROMPTMILL_CONCURRENCY": "2"}
    with simulated_claude(mean_output_tokens=5, itpm=600_000) as claude:
        mill = start_mill(sqlite_url, claude, **limits)
        batch = a_batch(mill.database, prompts, template="cached")
        mill.start_worker()
        mill.wait_for_end(batch.id)
        at_first = reserved_input(clean_redis)
        again = a_batch(mill.database, prompts, template="cached")
        mill.wait_for_end(again.id)
        learned = reserved_input(clean_redis)
        counted = sum(pool["admitted"]["input_tokens"] for pool in claude.limits())
    attempts, later = attempts_of(mill.database, batch), attempts_of(mill.database, again)

    writes = [each for each in attempts if each.usage.cache_write_tokens]
    assert 1 <= len(writes) <= 2  # those that were under way before the first answer began
    assert all(each.usage.cache_read_tokens > 1_000 for each in later)
    whole = later[0].usage.total_input_tokens
    assert counted == sum(each.usage.limited_input_tokens for each in [*attempts, *later])
    assert counted < 0.1 * whole * len([*attempts, *later])
    assert learned < 0.3 * at_first  # it still fades
    assert at_first <= 1.5 * whole
