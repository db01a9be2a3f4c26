"""Promise 5: tokens and cost in the database are those of the bill, to the last nano-dollar."""

from decimal import Decimal

from producers import results, submit, wait
from promptmill.simulator.process import SimulatorHandle

QUESTIONS = [f"Tell me about the number {n}." for n in range(25)]


def test_the_batch_and_its_results_sum_to_the_bill(claude: SimulatorHandle) -> None:
    batch = submit(QUESTIONS, model="claude-haiku-5-5")

    status = wait(batch, timeout=60)

    bill = claude.ledger()["billed"]
    assert status.batch.cost_nanos == bill["cost_nanos"]
    assert status.batch.output_tokens == bill["usage"]["output_tokens"]
    assert sum(answer.cost or 0 for answer in results(batch)) == Decimal(bill["cost_usd"])


def test_a_failure_on_the_way_is_in_the_books_too(claude: SimulatorHandle) -> None:
    claude.set_scenario(fault=[{"kind": "overloaded", "every": 3, "retry_after_s": 1, "attempts": 1}])
    batch = submit(QUESTIONS, model="claude-haiku-5-5", new=True)

    status = wait(batch, timeout=120)

    assert status.batch.succeeded == len(QUESTIONS)
    assert status.failures["overloaded"] > 0
    assert status.batch.attempts == len(QUESTIONS) + status.failures["overloaded"]
    assert status.batch.cost_nanos == claude.ledger()["billed"]["cost_nanos"]
