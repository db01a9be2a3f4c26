"""Promise 7: what may pass is tried again, what cannot pass is not, and you are told which it was."""

from producers import results, submit, wait
from promptmill.simulator.process import SimulatorHandle


def test_a_cut_answer_is_asked_for_again(claude: SimulatorHandle) -> None:
    claude.set_scenario(fault=[{"kind": "reset", "attempts": 1}])
    batch = submit(["Hello", "Good evening"], model="claude-haiku-5-5")

    status = wait(batch, timeout=60)

    assert status.batch.succeeded == 2
    assert status.failures == {"connection_failed": 2}


def test_a_prompt_that_is_refused_is_not_sent_again(claude: SimulatorHandle) -> None:
    claude.set_scenario(fault=[{"kind": "server_error", "status": 400, "text": "forbidden fruit"}])
    batch = submit(["Hello there", "forbidden fruit"], model="claude-haiku-5-5")

    wait(batch, timeout=60)

    answered, refused = results(batch)
    assert answered.state == "succeeded"
    assert refused.state == "errored"
    assert refused.attempts == 1
    assert refused.error is not None
    assert (refused.error.kind, refused.error.status) == ("prompt_rejected", 400)
    assert refused.text is None


def test_a_cut_off_or_refused_answer_is_an_answer_and_says_so(claude: SimulatorHandle) -> None:
    claude.set_scenario(fault=[{"kind": "answer", "stop_reason": "refusal"}])
    batch = submit(["How do I pick a lock?"], model="claude-haiku-5-5")

    wait(batch, timeout=60)

    (answer,) = results(batch)
    assert answer.state == "succeeded"
    assert answer.message is not None
    assert answer.message["stop_reason"] == "refusal"
