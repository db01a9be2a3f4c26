"""Promise 1: prompts go in, answers come out, in the same order."""

from producers import results, submit, wait
from promptmill.simulator.process import SimulatorHandle

QUESTIONS = [f"What is {n} + {n}?" for n in range(20)]


def test_texts_go_in_and_answers_come_out(claude: SimulatorHandle) -> None:
    batch = submit(QUESTIONS, model="claude-haiku-5-5")

    wait(batch, timeout=60)

    answers = list(results(batch))
    assert [answer.input for answer in answers] == [{"prompt": question} for question in QUESTIONS]
    assert all(answer.state == "succeeded" and answer.text for answer in answers)


def test_an_answer_carries_your_name_for_it_your_row_and_what_it_cost(claude: SimulatorHandle) -> None:
    rows = [{"custom_id": "apple", "fruit": "apple", "price": 3}]
    batch = submit(rows, model="claude-haiku-5-5", template="What is a good rhyme for {{ fruit }}?")

    wait(batch, timeout=60)

    (answer,) = results(batch)
    assert answer.custom_id == "apple"
    assert answer.input == rows[0]
    assert answer.message is not None
    assert answer.message["role"] == "assistant"
    assert answer.cost is not None
    assert answer.cost > 0


def test_a_generator_is_read_lazily_and_any_of_the_known_lines_is_understood(claude: SimulatorHandle) -> None:
    def lines() -> object:
        message = {"role": "user", "content": "Hello"}
        yield {
            "custom_id": "a",
            "params": {"model": "claude-sonnet-5", "max_tokens": 9, "messages": [message]},
        }
        yield {
            "custom_id": "b",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"messages": [message]},
        }
        yield "Hello"

    batch = submit(lines(), model="claude-haiku-5-5")

    assert wait(batch, timeout=60).batch.succeeded == 3
    assert [answer.custom_id for answer in results(batch)][:2] == ["a", "b"]
