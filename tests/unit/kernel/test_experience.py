"""What earlier answers teach: level over level, robust, and following."""

import random

import pytest

from promptmill.experience import Answered, Experience, of_batch, of_model, of_template, template_of
from promptmill.usage import Usage


def answers(
    count: int, mean: float, *, spread: float = 0.6, factor: float = 1.0, seed: int = 1
) -> list[Answered]:
    """Answers of lognormal length around a mean, to prompts of 100 tokens by formula."""
    chance = random.Random(seed)
    return [
        Answered(
            100,
            400,
            Usage(
                input_tokens=round(100 * factor),
                output_tokens=max(1, round(mean * chance.lognormvariate(-spread * spread / 2, spread))),
            ),
        )
        for _ in range(count)
    ]


GUESS = Experience.first_guess()


@pytest.mark.parametrize("truth", [12, 60, 900, 5_000])
@pytest.mark.parametrize("elsewhere", [30, 400, 3_000])
def test_a_new_batch_of_a_known_template_begins_within_a_tenth_of_the_truth(
    truth: float, elsewhere: float
) -> None:
    model = of_model(answers(100, elsewhere))
    seen = answers(200, truth, spread=0.4, factor=1.4)
    mean = sum(each.usage.output_tokens for each in seen) / len(seen)
    fresh = of_batch(of_template(model, seen), [])
    assert fresh.output.mean == pytest.approx(mean, rel=0.1)
    assert fresh.factor.mean == pytest.approx(1.4, rel=0.05)
    assert (fresh.basis.batch, fresh.basis.template, fresh.basis.model) == (0, 200, 100)


def test_over_many_templates_the_beginning_is_right_on_average() -> None:
    errors = []
    for seed in range(40):
        begun = of_batch(of_template(GUESS, answers(200, 300, seed=seed)), [])
        errors.append(begun.output.mean / 300 - 1)
    assert abs(sum(errors) / len(errors)) < 0.03
    assert sum(abs(error) < 0.1 for error in errors) > 0.75 * len(errors)


def test_few_answers_of_its_own_outweigh_what_the_model_did_elsewhere() -> None:
    model = of_model(answers(100, 2_000))
    assert of_batch(of_template(model, []), answers(30, 50)).output.mean == pytest.approx(50, rel=0.9)
    assert of_batch(of_template(model, []), answers(200, 50)).output.mean == pytest.approx(50, rel=0.2)


def test_an_outlier_cannot_carry_an_estimate_away() -> None:
    usual = answers(200, 200)
    odd = Answered(100, 400, Usage(input_tokens=1_000_000, output_tokens=90_000))
    calm = of_batch(of_template(GUESS, usual), usual[:20])
    jolted = of_batch(of_template(GUESS, usual), [*usual[:10], odd, *usual[10:20]])
    assert jolted.output.mean == pytest.approx(calm.output.mean, rel=0.25)
    assert jolted.factor.mean == pytest.approx(calm.factor.mean, rel=0.25)


def test_a_change_of_content_is_followed() -> None:
    above = of_template(GUESS, answers(200, 100))
    assert of_batch(above, answers(150, 1_500, spread=0.3)).output.mean == pytest.approx(1_500, rel=0.15)


def test_two_answers_of_one_kind_do_not_rule_out_another() -> None:
    same = [Answered(100, 400, Usage(input_tokens=100, output_tokens=10))] * 150
    model = of_model(same)
    assert model.output.high > 2 * model.output.mean


def test_a_prompt_with_a_low_ceiling_is_not_expected_to_answer_at_length() -> None:
    capped = [Answered(100, 50, Usage(input_tokens=100, output_tokens=40))] * 5
    assert of_batch(GUESS, capped).output.mean <= 50


CUT = [Answered(100, 50, Usage(input_tokens=100, output_tokens=50), is_cut=True)] * 40


def test_answers_that_were_all_cut_off_do_not_make_others_expected_to_be_short() -> None:
    model = of_model(CUT)
    fresh = of_batch(of_template(model, CUT), [])
    assert model.output.mean == fresh.output.mean == GUESS.output.mean
    assert model.factor.mean == pytest.approx(1.0, abs=0.05)
    assert (fresh.basis.template_cut, fresh.basis.model_cut, fresh.basis.whole) == (40, 40, 0)


def test_an_answer_that_was_cut_off_beyond_what_was_expected_says_how_long_they_are_at_least() -> None:
    long = [Answered(100, 400, Usage(input_tokens=100, output_tokens=4_000), is_cut=True)] * 40
    assert of_model(long).output.mean == pytest.approx(4_000, rel=0.05)


def test_within_a_batch_an_answer_that_was_cut_off_is_as_long_as_the_next_will_be() -> None:
    assert of_batch(of_model(CUT), CUT).output.mean == pytest.approx(50)


def test_the_doubt_falls_with_answers_of_the_same_kind() -> None:
    unknown = of_batch(of_template(GUESS, []), [])
    known = of_batch(of_template(GUESS, answers(200, 300)), [])
    assert unknown.output.doubt(unknown.basis.own, 1_000) > 1.5
    assert known.output.doubt(known.basis.own, 1_000) < 0.2


def test_an_answer_without_usage_teaches_nothing() -> None:
    assert of_batch(GUESS, [Answered(100, 400, Usage())]).basis.own == 0


def test_cached_input_counts_against_no_limit_while_the_cache_is_warm() -> None:
    cached = [Answered(100, 400, Usage(input_tokens=10, cache_read_tokens=90, output_tokens=9))] * 100
    warm, cold = of_batch(GUESS, cached, is_warm=True), of_batch(GUESS, cached)
    assert warm.limited_input_tokens(100) == pytest.approx(10, abs=3)
    assert cold.limited_input_tokens(100) == cold.input_tokens(100)


def test_cache_writes_count_against_the_limit() -> None:
    writing = [Answered(100, 400, Usage(input_tokens=10, cache_write_5m_tokens=90, output_tokens=9))] * 100
    assert of_batch(GUESS, writing, is_warm=True).limited_input_tokens(100) == pytest.approx(100, abs=3)


def test_the_buckets_of_an_expected_usage_add_up() -> None:
    cached = [
        Answered(
            100, 400, Usage(input_tokens=10, cache_read_tokens=60, cache_write_1h_tokens=30, output_tokens=9)
        )
    ] * 100
    usage = of_batch(GUESS, cached).usage(1_000, 50)
    assert usage.total_input_tokens == 1_000
    assert usage.cache_read_tokens == pytest.approx(600, abs=30)
    assert usage.cache_write_1h_tokens == pytest.approx(300, abs=30)


def test_a_template_is_what_is_shared_beside_the_model() -> None:
    system = {"model": "a", "max_tokens": 100, "system": "You are terse."}
    assert template_of(system, None) == template_of({**system, "model": "b"}, None)
    assert template_of(system, None) != template_of({**system, "system": "You are wordy."}, None)
    assert template_of(system, "{{ a }}") != template_of(system, "{{ b }}")


def test_prompts_that_share_nothing_telling_have_no_template() -> None:
    assert template_of({"model": "a", "max_tokens": 4096, "temperature": 0}, None) is None
    assert template_of({"model": "a"}, "{{ question }}") is not None
