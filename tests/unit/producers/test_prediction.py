"""Predicted against actual: pure figures from the counters of a batch and what is known of it."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from producers.prediction import Terms, predict
from promptmill.experience import Answered, Experience, of_batch
from promptmill.intake.forecast import Shape, forecast
from promptmill.pricing import PriceBook
from promptmill.usage import Usage
from tests.unit.producers.rows import batch_row

NOW = datetime(2026, 11, 22, tzinfo=UTC)
MODEL = "claude-opus-5"  # 5 and 25 dollars a million
PRICES = PriceBook()
BATCH = batch_row(
    model=MODEL, total=100, succeeded=50, input_tokens=7_000, output_tokens=10_000, attempts=50,
    cost_nanos=285_000_000, estimate_nanos=1_050_000_000, formula_tokens=10_000, formula_tokens_answered=5_000,
    estimated_input_tokens=10_000, estimated_output_tokens=40_000,
)  # fmt: skip
KNOWN = of_batch(
    Experience.first_guess(), [Answered(100, 400, Usage(input_tokens=140, output_tokens=200))] * 200
)


def test_what_was_expected_at_admission_is_the_part_of_the_jobs_answered() -> None:
    admitted = predict(BATCH, KNOWN, PRICES).as_admitted
    assert admitted is not None
    assert (admitted.input_tokens, admitted.output_tokens) == (5_000, 20_000)
    assert admitted.cost_nanos == BATCH.estimate_nanos / 2  # type: ignore[operator]  # it is set above


def test_longer_prompts_first_are_more_of_the_estimate() -> None:
    admitted = predict(replace(BATCH, formula_tokens_answered=8_000), KNOWN, PRICES).as_admitted
    assert admitted is not None
    assert (admitted.input_tokens, admitted.output_tokens) == (8_000, 20_000)


def test_what_was_learned_is_near_what_was_used() -> None:
    found = predict(BATCH, KNOWN, PRICES)
    assert found.as_learned.input_tokens == pytest.approx(found.actual.input_tokens, rel=0.01)
    assert found.as_learned.output_tokens == pytest.approx(found.actual.output_tokens, rel=0.01)
    assert found.as_learned.cost_nanos == pytest.approx(BATCH.cost_nanos, rel=0.01)


def test_half_way_the_projected_cost_is_twice_what_was_spent() -> None:
    assert predict(BATCH, KNOWN, PRICES).projected_nanos == pytest.approx(2 * BATCH.cost_nanos, rel=0.01)


def test_an_ended_batch_will_have_cost_what_it_has() -> None:
    ended = replace(BATCH, succeeded=90, errored=10)
    assert predict(ended, KNOWN, PRICES).projected_nanos == BATCH.cost_nanos


def test_before_an_answer_the_projection_is_the_estimate() -> None:
    fresh = replace(BATCH, succeeded=0, formula_tokens_answered=0, cost_nanos=0)
    assert predict(fresh, Experience.first_guess(), PRICES).projected_nanos == BATCH.estimate_nanos


def test_a_batch_of_an_earlier_version_has_no_estimate_of_tokens() -> None:
    old = replace(BATCH, estimated_input_tokens=None, estimated_output_tokens=None, estimate_nanos=None)
    found = predict(old, KNOWN, PRICES)
    assert found.as_admitted is None
    assert found.projected_nanos is not None


def test_without_a_price_costs_are_unknown_and_tokens_are_not() -> None:
    found = predict(replace(BATCH, model="claude-opus-9"), KNOWN, PRICES)
    assert found.as_learned.cost_nanos is None
    assert found.projected_nanos is None
    assert found.as_learned.output_tokens > 0


@pytest.mark.parametrize("speed", [None, "fast"])
@pytest.mark.parametrize("geo", [None, "us"])
def test_what_is_left_is_priced_as_an_estimate_prices_it(speed: str | None, geo: str | None) -> None:
    left = Shape(MODEL, "group", 100, 4096, geo, speed)
    rest = forecast([(left, 50)], lambda _group: KNOWN, PRICES).expected.cost_nanos
    assert rest is not None

    found = predict(BATCH, KNOWN, PRICES, terms=Terms(speed, geo))

    # An estimate rounds each answer up to a whole token.
    assert found.projected_nanos == pytest.approx(BATCH.cost_nanos + rest, rel=0.005)
