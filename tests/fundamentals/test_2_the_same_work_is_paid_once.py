"""Promise 2: submitted again, the same work is not done again."""

import pytest

from producers import submit, wait
from promptmill.errors import InvalidInput
from promptmill.simulator.process import SimulatorHandle

QUESTIONS = [f"What is {n} times {n}?" for n in range(10)]


def test_the_same_rows_are_the_same_batch(claude: SimulatorHandle) -> None:
    first = submit(QUESTIONS, model="claude-haiku-5-5")
    wait(first, timeout=60)

    second = submit(QUESTIONS, model="claude-haiku-5-5")
    wait(second, timeout=60)

    assert second == first
    assert claude.ledger()["answered"] == {"1": 10}


def test_new_work_is_new_work(claude: SimulatorHandle) -> None:
    first = submit(QUESTIONS[:2], model="claude-haiku-5-5")
    other_model = submit(QUESTIONS[:2], model="claude-sonnet-5")
    on_purpose = submit(QUESTIONS[:2], model="claude-haiku-5-5", new=True)

    assert len({first.id, other_model.id, on_purpose.id}) == 3
    assert [wait(batch, timeout=60).batch.succeeded for batch in (first, other_model, on_purpose)] == [
        2,
        2,
        2,
    ]


def test_a_name_stands_for_one_content(claude: SimulatorHandle) -> None:
    batch = submit(QUESTIONS[:2], model="claude-haiku-5-5", name="sums")
    wait(batch, timeout=60)

    with pytest.raises(InvalidInput, match="sums"):
        submit(QUESTIONS[2:4], model="claude-haiku-5-5", name="sums")
