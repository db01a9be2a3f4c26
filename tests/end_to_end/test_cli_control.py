"""Changing one's mind as typed: `retry` and `set`, said rightly and wrongly. No worker is needed."""

import json
import re
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(180)

NOBODY = "no worker is running; start one with: promptmill up"
ROWS = [{"prompt": f"Say {n}"} for n in range(3)]


SUBMIT = ("submit", "three.jsonl", "-m", "claude-haiku-5-5", "--name", "three")


@pytest.fixture
def three(cli: Any) -> Any:
    """The command line, with a batch `three` of three prompts that nobody answers."""
    cli.file("three.jsonl", *ROWS)
    done = cli(*SUBMIT)
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith(f"\n{NOBODY}\n")
    return cli


def test_what_was_canceled_is_taken_up_again_when_asked_for(three: Any) -> None:
    three("cancel", "three")
    said = three("retry", "three")
    assert (said.returncode, said.stdout) == (0, "")
    assert said.stderr.strip() == (
        "three: nothing to retry: no job is errored or expired; 3 are canceled: --only canceled"
    )
    assert three("retry", "three", "--only", "lost").stderr.endswith("no job is errored with lost\n")
    document = three.json("retry", "three", "--only", "canceled")
    assert (document["retried"], document["state"], document["ended_at"]) == (3, "active", None)
    assert document["jobs"]["pending"] == 3


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["retry", "three", "--only", "succeeded"], "paid for twice"),
        (
            ["retry", "three", "--only", "gone"],
            "gone is none of errored, expired, canceled, nor a kind of error",
        ),
        (["set", "three"], "say what to change"),
        (["set", "three", "--budget", "ten"], "no amount in dollars"),
        (["set", "three", "--budget", "-1"], "no amount in dollars"),
        (["set", "three", "--priority", "0"], "a weight above 0"),
        (["set", "three", "--deadline", "2020-01-01"], "over already"),
        (["set", "three", "--deadline", "soon"], "neither a duration"),
    ],
)
def test_a_word_without_meaning_is_named_with_its_option(three: Any, words: list[str], why: str) -> None:
    said = three(*words)
    assert said.returncode == 2
    # The box around it is drawn by the width of a terminal.
    assert why in " ".join(said.stderr.replace("│", " ").split())


def test_what_is_so_already_may_be_said_again_and_what_cannot_be_says_what_can(three: Any) -> None:
    for words in (("pause", "three"), ("pause", "three")):
        said = three(*words)
        assert (said.returncode, said.stderr.strip()) == (
            0,
            "three is paused; go on with: promptmill resume three",
        )
    for _ in range(2):
        said = three("resume", "three")
        assert (said.returncode, said.stderr.strip()) == (0, f"three goes on; {NOBODY}")
    for _ in range(2):
        said = three("cancel", "three")
        assert (said.returncode, said.stderr.strip()) == (0, "three is canceled")
    for word in ("pause", "resume"):
        said = three(word, "three")
        assert said.returncode == 1
        assert (
            "three has ended: try again what has no answer with: promptmill retry three --only canceled"
            in (said.stderr)
        )


def test_submitted_again_it_says_why_nothing_goes_on(three: Any) -> None:
    for word, why in {
        "status": NOBODY,
        "pause": "three is paused (paused by a person); go on with: promptmill resume three",
        "cancel": "three has ended: try again what has no answer with: promptmill retry three --only canceled",
    }.items():
        three(word, "three")
        said = three(*SUBMIT)
        assert (said.returncode, said.stderr.splitlines()[-1]) == (0, why)
        assert ("going on with them" in said.stderr) == (word == "status")


def test_a_batch_that_is_not_there_is_answered_with_those_that_are(three: Any) -> None:
    for words in (["retry", "four"], ["set", "four", "--priority", "high"]):
        said = three(*words)
        assert said.returncode == 1
        assert "no batch 'four'; the newest are: three" in said.stderr


def test_terms_are_set_and_taken_away_again(three: Any) -> None:
    said = three("set", "three", "--budget", "0.25", "--priority", "high", "--deadline", "2126-01-01")
    assert said.stderr.strip() == (
        "three has priority high (10), a budget of $0.25 and the deadline 2126-01-01 00:00 UTC; " + NOBODY
    )
    said = three("set", "three", "--budget", "none", "--deadline", "none", "--priority", "2.5")
    assert said.stderr.strip() == f"three has priority 2.5, no budget and no deadline; {NOBODY}"
    assert re.search(
        r"deadline \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", three("set", "three", "--deadline", "90s").stderr
    )
    assert json.loads(three("set", "three", "--budget", "2", "--json").stdout)["budget_usd"] is not None
