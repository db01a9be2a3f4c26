import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmill.estimates import Estimate, Estimator, count_text, estimate_input, measure
from promptmill.pricing import PriceBook
from promptmill.prompts import Prompt
from promptmill.usage import Usage

PROSE = (
    "The committee met again on Tuesday, and nobody could remember why the last meeting had ended so early. "
)
CODE = "def area(width: float, height: float) -> float:\n    return width * height  # square metres\n\n"
DATA = '{"id": 4711, "name": "widget", "tags": ["a", "b"], "price": 12.5, "in_stock": true}'
CHINESE = "珍妮特的鸭子每天下十六颗蛋。她每天早上早餐时吃三颗。每天用四颗为自己的朋友做松饼。"
RUSSIAN = "Сегодня большие языковые модели отвечают на вопросы и переводят документы, но всё имеет цену. "


def a_prompt(text: str = PROSE, *, model: str = "claude-sonnet-5", max_tokens: int = 1_000) -> Prompt:
    return Prompt({"model": model, "max_tokens": max_tokens, "messages": [{"role": "user", "content": text}]})


# Characters per token of Claude 5 (libraries study, section 3); the formula is meant to be within a third.
@pytest.mark.parametrize(
    ("text", "characters_per_token"),
    [(PROSE, 3.05), (CODE, 2.30), (DATA, 1.87), (CHINESE, 0.83), (RUSSIAN, 2.4)],
)
def test_the_formula_is_near_the_measured_density(text: str, characters_per_token: float) -> None:
    assert count_text(text * 20) == pytest.approx(20 * len(text) / characters_per_token, rel=0.34)


@given(st.text())
def test_any_text_has_a_length(text: str) -> None:
    assert 0 <= count_text(text) <= 2 * len(text) + 1


def test_what_no_database_can_hold_has_a_length_too() -> None:
    assert count_text("a\x00b \ud800 \udfff") > 0


def test_the_formula_reads_megabytes_in_a_blink() -> None:
    text = (PROSE + CODE + CHINESE) * 8_000
    began = time.process_time()
    count_text(text)
    # Meant to be 5 MB/s or more; it is about 90, so a slow machine passes.
    assert len(text.encode()) / (time.process_time() - began) > 5_000_000


def test_the_lengths_of_parts_add_up() -> None:
    whole = {
        "model": "claude-sonnet-5",
        "system": PROSE,
        "tools": [{"name": "add", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any"},
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
        "messages": [{"role": "user", "content": CODE}],
    }
    parts = [measure({name: value}) for name, value in whole.items()]
    assert measure(whole).tokens == pytest.approx(sum(part.tokens for part in parts))


def test_pictures_and_documents_count_as_a_constant_and_teach_nothing() -> None:
    def of(block: dict[str, object]) -> Estimate:
        return Estimator().estimate(
            Prompt(
                {
                    "model": "claude-opus-5",
                    "max_tokens": 9,
                    "messages": [{"role": "user", "content": [block]}],
                }
            ),
            family="b",
        )

    picture = of({"type": "image", "source": {"type": "base64", "data": "A" * 100_000}})
    document = of({"type": "document", "source": {"type": "base64", "data": "A" * 100_000}})
    text = of({"type": "document", "source": {"type": "text", "data": PROSE * 100}})
    assert 1_000 < picture.input_tokens < document.input_tokens < 10_000
    assert not picture.length.text_only
    assert not document.length.text_only
    assert text.length.text_only


@pytest.mark.parametrize(
    "broken", [None, 7, "text", [1, None, "x"], [{"content": 7}], [{"content": [{"type": 1}]}]]
)
def test_a_malformed_body_has_a_length_and_raises_nothing(broken: object) -> None:
    assert estimate_input({"messages": broken}) >= 0


def test_older_models_count_fewer_tokens() -> None:
    old, new = (estimate_input(a_prompt(model=m).body) for m in ("claude-sonnet-4-6", "claude-sonnet-5"))
    assert old == pytest.approx(new / 1.3, rel=0.05)


def test_before_anything_is_known_an_answer_is_four_hundred_tokens_or_its_ceiling() -> None:
    assert Estimator().estimate(a_prompt(), family="b").output_tokens == 400
    assert Estimator().estimate(a_prompt(max_tokens=50), family="b").output_tokens == 50


def test_an_estimate_carries_its_cost() -> None:
    estimate = Estimator().estimate(a_prompt(model="claude-opus-5"), family="b")
    assert estimate.cost_nanos == estimate.input_tokens * 5_000 + estimate.output_tokens * 25_000


def test_the_cost_of_a_model_without_a_price_is_unknown() -> None:
    assert Estimator().estimate(a_prompt(model="claude-opus-9"), family="b").cost_nanos is None
    mine = Estimator(PriceBook({"claude-opus-9": {"input": 1, "output": 2}}))
    assert mine.estimate(a_prompt(model="claude-opus-9"), family="b").cost_nanos is not None


def test_the_factor_of_a_model_is_learned() -> None:
    estimator, chance = Estimator(), random.Random(1)
    for _ in range(200):
        estimate = estimator.estimate(a_prompt(), family="b")
        real = int(estimate.length.tokens * 1.4 * chance.gauss(1, 0.05))
        estimator.learn(estimate, Usage(input_tokens=real, output_tokens=10), family="b")
    after = estimator.estimate(a_prompt(CODE * 9), family="other")
    assert after.input_tokens == pytest.approx(after.length.tokens * 1.4, rel=0.05)
    assert estimator.estimate(a_prompt(model="claude-opus-5"), family="b").input_tokens < after.input_tokens


def test_the_answers_of_a_family_are_learned_within_a_dozen() -> None:
    estimator = Estimator()
    for _ in range(12):
        estimate = estimator.estimate(a_prompt(), family="short")
        estimator.learn(estimate, Usage(input_tokens=30, output_tokens=40), family="short")
    assert estimator.estimate(a_prompt(), family="short").output_tokens < 130
    assert estimator.estimate(a_prompt(model="claude-opus-5"), family="other").output_tokens == 400


def test_an_unknown_family_begins_with_what_its_model_answered_elsewhere() -> None:
    estimator = Estimator()
    for _ in range(100):
        estimate = estimator.estimate(a_prompt(), family="one")
        estimator.learn(estimate, Usage(input_tokens=30, output_tokens=40), family="one")
    assert estimator.estimate(a_prompt(), family="other").output_tokens < 100


def test_a_change_of_content_is_followed() -> None:
    estimator = Estimator()
    for output in [50] * 300 + [900] * 200:
        estimator.learn(
            estimator.estimate(a_prompt(), family="b"),
            Usage(input_tokens=30, output_tokens=output),
            family="b",
        )
    assert estimator.estimate(a_prompt(), family="b").output_tokens == pytest.approx(900, rel=0.1)


def test_one_outlier_does_not_move_an_estimate_far() -> None:
    estimator = Estimator()
    estimate = estimator.estimate(a_prompt(max_tokens=100_000), family="b")
    usual = Usage(input_tokens=int(estimate.length.tokens), output_tokens=200)
    for _ in range(100):
        estimator.learn(estimate, usual, family="b")
    estimator.learn(estimate, Usage(input_tokens=10_000_000, output_tokens=90_000), family="b")
    after = estimator.estimate(a_prompt(max_tokens=100_000), family="b")
    assert after.input_tokens == pytest.approx(estimate.length.tokens, rel=0.15)
    assert after.output_tokens == pytest.approx(200, rel=0.15)


def test_no_estimate_is_above_the_ceiling_of_the_prompt() -> None:
    estimator = Estimator()
    estimator.learn(
        estimator.estimate(a_prompt(), family="b"), Usage(input_tokens=30, output_tokens=1_000), family="b"
    )
    estimate = estimator.estimate(a_prompt(max_tokens=20), family="b")
    assert (estimate.output_tokens, estimate.output_high) == (20, 20)


def test_the_cached_share_is_learned_and_does_not_count_against_the_limit() -> None:
    estimator = Estimator()
    for _ in range(200):
        estimate = estimator.estimate(a_prompt(), family="b")
        estimator.learn(estimate, Usage(input_tokens=5, cache_read_tokens=45, output_tokens=1), family="b")
    estimate = estimator.estimate(a_prompt(), family="b")
    assert estimate.limited_input_tokens == pytest.approx(estimate.input_tokens / 10, abs=2)


def test_the_upper_estimate_is_exceeded_by_few() -> None:
    estimator, chance = Estimator(), random.Random(7)
    above = 0
    for _ in range(2_000):
        estimate = estimator.estimate(a_prompt(max_tokens=50_000), family="b")
        real = Usage(input_tokens=50, output_tokens=int(chance.lognormvariate(5.5, 0.6)))
        above += real.output_tokens > estimate.output_high
        estimator.learn(estimate, real, family="b")
    assert above < 0.08 * 2_000


def test_a_reply_without_usage_teaches_nothing() -> None:
    estimator = Estimator()
    before = estimator.estimate(a_prompt(), family="b")
    estimator.learn(before, Usage(), family="b")
    assert estimator.estimate(a_prompt(), family="b") == before
