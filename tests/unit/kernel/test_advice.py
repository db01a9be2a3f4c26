"""Every way to fail has a sentence that says what to do."""

import pytest

from promptmill import advice, errors
from promptmill.advice import advice_for
from promptmill.retries import UNREACHABLE
from promptmill.store.ledger import LOST
from workers.outcomes import INTERRUPTED

CLAUDE_ERRORS = [each.kind for each in errors.ClaudeError.__subclasses__()]
OURS = [
    "request_too_large", "reply_not_stored", "text_damaged", "truncated", "budget", "expired", "canceled", "refusal",
]  # fmt: skip


@pytest.mark.parametrize("kind", [*CLAUDE_ERRORS, *OURS, LOST, INTERRUPTED, UNREACHABLE])
def test_every_kind_has_its_own_advice(kind: str) -> None:
    assert kind in advice.KINDS


@pytest.mark.parametrize("kind", sorted(advice.KINDS))
def test_advice_is_one_sentence_that_stands_in_a_line(kind: str) -> None:
    sentence = advice_for(kind)

    assert "\n" not in sentence
    assert not sentence.endswith(".")
    assert len(sentence) < 200


@pytest.mark.parametrize(
    ("kind", "facts", "says"),
    [
        ("prompt_rejected", {"status": 400}, "change the prompt"),
        ("prompt_rejected", {"status": 404}, "--model"),
        ("prompt_rejected", {"status": 413}, "32 MB"),
        ("key_rejected", {"status": 401}, "promptmill doctor"),
        ("key_rejected", {"status": 403}, "may not use this model"),
        ("spend_cap_reached", {"error_code": "organization_on_hold"}, "support"),
        ("rate_limited", {"error_code": "ramp_limit_exceeded"}, "rose too fast"),
        ("rate_limited", {"error_code": "another_code"}, "rate limit"),
    ],
)
def test_status_and_code_make_it_more_exact(kind: str, facts: dict[str, object], says: str) -> None:
    assert says in advice_for(kind, **facts)  # type: ignore[arg-type]  # facts by name


def test_a_kind_from_the_future_is_met_with_the_message() -> None:
    assert "the message" in advice_for("struck_by_lightning", status=499)
