"""What a submission will use and cost: sums over rows, with an interval that says how much is known."""

import pytest

from promptmill.experience import Answered, Experience, of_batch, of_template
from promptmill.intake.forecast import Forecast, Shape, forecast
from promptmill.pricing import PriceBook
from promptmill.usage import Usage

MODEL = "claude-opus-5"
PRICES = PriceBook()


def shape(input_tokens: int = 100, *, ceiling: int = 4_096, model: str = MODEL) -> Shape:
    return Shape(model, model, input_tokens, ceiling)


def known(usage: Usage, count: int = 200) -> Experience:
    return of_batch(of_template(Experience.first_guess(), [Answered(100, 400, usage)] * count), [])


def of(shapes: list[tuple[Shape, int]], experience: Experience | None = None) -> Forecast:
    return forecast(shapes, lambda _group: experience or Experience.first_guess(), PRICES)


def test_without_answers_it_is_the_formula_and_the_first_guess() -> None:
    found = of([(shape(100), 3), (shape(200), 2)])
    assert (found.jobs, found.expected.input_tokens, found.expected.output_tokens) == (5, 700, 2_000)
    assert found.expected.cost_nanos == 700 * 5_000 + 2_000 * 25_000


def test_the_first_guess_is_wide_and_what_was_learned_is_narrow() -> None:
    guess = of([(shape(), 1_000)])
    sure = of([(shape(), 1_000)], known(Usage(input_tokens=140, output_tokens=50)))
    assert guess.high.output_tokens > 2.5 * guess.expected.output_tokens > 5 * guess.low.output_tokens
    assert sure.high.output_tokens < 1.1 * sure.expected.output_tokens
    assert sure.expected.input_tokens == pytest.approx(140_000, rel=0.02)
    assert sure.expected.output_tokens == pytest.approx(50_000, rel=0.05)


def test_low_expected_and_high_are_in_order_in_every_figure() -> None:
    found = of([(shape(50), 7), (shape(900, ceiling=30), 2)])
    for figure in ("input_tokens", "output_tokens", "cost_nanos"):
        low, expected, high = (getattr(each, figure) for each in (found.low, found.expected, found.high))
        assert low <= expected <= high


def test_no_answer_is_expected_above_its_ceiling() -> None:
    found = of([(shape(ceiling=30), 10)])
    assert found.expected.output_tokens == found.high.output_tokens == 300


def test_one_unknown_price_makes_the_cost_unknown() -> None:
    found = of([(shape(), 3), (shape(model="claude-opus-9"), 2)])
    assert found.expected.cost_nanos is None
    assert found.unpriced == 2


def test_cached_input_is_billed_at_its_own_rate() -> None:
    cached = known(Usage(input_tokens=10, cache_read_tokens=90, output_tokens=50))
    plain = known(Usage(input_tokens=100, output_tokens=50))
    costs = [of([(shape(), 100)], each).expected.cost_nanos or 0 for each in (cached, plain)]
    saved = 100 * 90 * (5_000 - 500)
    assert costs[1] - costs[0] == pytest.approx(saved, rel=0.1)


def test_the_load_of_a_group_says_what_it_rests_on() -> None:
    load = of([(shape(), 10)], known(Usage(input_tokens=100, output_tokens=50), 60)).loads[MODEL]
    assert load.basis.template == 60
    assert load.expected.requests == 10


def test_answers_that_were_all_cut_off_leave_the_range_as_wide_as_a_first_guess() -> None:
    answers = [Answered(100, 50, Usage(input_tokens=100, output_tokens=50), is_cut=True)] * 40
    found = of([(shape(), 60)], of_batch(of_template(Experience.first_guess(), answers), []))
    assert found.high.output_tokens > 2.5 * found.expected.output_tokens
