import logging
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal

import genai_prices
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmill.errors import ConfigurationError
from promptmill.pricing import PRICE_VERSION, PriceBook, price_of, usd
from promptmill.states import Lane
from promptmill.usage import Usage

TODAY = datetime(2026, 11, 22, tzinfo=UTC)
PUBLISHED = (
    "claude-fable-5-2",
    "claude-mythos-5-2",
    "claude-fable-5-1",
    "claude-fable-5",
    "claude-opus-5-5",
    "claude-opus-5",
    "claude-opus-4-8",
    "claude-opus-4-7",
    "claude-opus-4-6",
    "claude-opus-4-5",
    "claude-sonnet-5-5",
    "claude-sonnet-5",
    "claude-sonnet-4-6",
    "claude-sonnet-4-5-20250929",
    "claude-haiku-5-5",
    "claude-haiku-4-5-20251001",
)
# USD per million: input, output, 5m write, 1h write, cache read (claude-api.md, 9.1)
TABLE = {
    "claude-fable-5-2": ("8", "40", "10", "16", "0.20"),
    "claude-mythos-5-1": ("10", "50", "12.50", "20", "0.25"),
    "claude-mythos-5": ("10", "50", "12.50", "20", "1.00"),
    "claude-opus-5-5": ("4", "20", "5", "8", "0.20"),
    "claude-opus-4-5-20251101": ("5", "25", "6.25", "10", "0.50"),
    "claude-sonnet-5-5": ("2", "10", "2.50", "4", "0.10"),
    "claude-sonnet-4-5": ("3", "15", "3.75", "6", "0.30"),
    "claude-haiku-5-5": ("0.10", "0.50", "0.125", "0.20", "0.01"),
    "claude-haiku-4-5": ("1", "5", "1.25", "2", "0.10"),
}

counts = st.integers(min_value=0, max_value=2_000_000)
usages = st.builds(
    Usage,
    input_tokens=counts,
    output_tokens=counts,
    cache_write_5m_tokens=counts,
    cache_write_1h_tokens=counts,
    cache_read_tokens=counts,
    web_searches=st.integers(min_value=0, max_value=50),
)
EXAMPLE = Usage(
    input_tokens=50,
    cache_write_5m_tokens=200,
    cache_write_1h_tokens=1_000,
    cache_read_tokens=100_000,
    output_tokens=503,
    web_searches=3,
)


def by_genai_prices(usage: Usage, model: str, context: dict[str, str] | None = None) -> Decimal:
    return genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=usage.total_input_tokens,
            output_tokens=usage.output_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            cache_write_5m_tokens=usage.cache_write_5m_tokens,
            cache_write_1h_tokens=usage.cache_write_1h_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            web_searches=usage.web_searches,
        ),
        model,
        provider_id="anthropic",
        genai_request_timestamp=TODAY,
        price_context=context,
    ).total_price


def price_in_haiku(usage: Usage, *, times: int) -> int:
    return times * (
        usage.input_tokens * 100
        + usage.cache_read_tokens * 10
        + usage.cache_write_5m_tokens * 125
        + usage.output_tokens * 500
    )


def in_nanos(dollars: Decimal) -> int:
    return int((dollars * 10**9).quantize(Decimal(1), ROUND_HALF_EVEN))


@given(usage=usages, model=st.sampled_from(PUBLISHED))
def test_the_realtime_price_is_that_of_genai_prices_to_the_nano_dollar(usage: Usage, model: str) -> None:
    assert price_of(usage, model=model, at=TODAY) == in_nanos(by_genai_prices(usage, model))


@given(usage=usages, model=st.sampled_from(PUBLISHED))
def test_the_bulk_price_is_that_of_genai_prices_to_the_nano_dollar(usage: Usage, model: str) -> None:
    expected = by_genai_prices(usage, model, {"processing": "batch"})
    assert price_of(usage, model=model, lane=Lane.BULK, at=TODAY) == in_nanos(expected)


@given(
    usage=usages,
    model=st.sampled_from(("claude-fable-5-2", "claude-opus-5-5", "claude-opus-5", "claude-opus-4-6")),
)
def test_the_fast_price_is_that_of_genai_prices_to_the_nano_dollar(usage: Usage, model: str) -> None:
    expected = by_genai_prices(usage, model, {"speed": "fast"})
    assert price_of(usage, model=model, speed="fast", at=TODAY) == in_nanos(expected)


@given(usage=usages)
def test_us_inference_adds_a_tenth_to_tokens_and_nothing_to_searches(usage: Usage) -> None:
    searches = Decimal(usage.web_searches) / 100
    tokens = by_genai_prices(usage, "claude-haiku-5-5") - searches
    expected = in_nanos(tokens * Decimal("1.1") + searches)
    assert price_of(usage, model="claude-haiku-5-5", inference_geo="us", at=TODAY) == expected


@pytest.mark.parametrize(("model", "row"), TABLE.items())
def test_a_token_of_each_kind_costs_what_the_price_list_says(model: str, row: tuple[str, ...]) -> None:
    kinds = (
        "input_tokens",
        "output_tokens",
        "cache_write_5m_tokens",
        "cache_write_1h_tokens",
        "cache_read_tokens",
    )
    for kind, dollars in zip(kinds, row, strict=True):
        usage = Usage(**{kind: 2_000})
        assert price_of(usage, model=model, at=TODAY) == int(Decimal(dollars) * 2_000 * 1_000), kind


def test_the_checked_example_costs_what_the_reference_says() -> None:
    assert usd(price_of(EXAMPLE, model="claude-opus-5-5", at=TODAY)) == "0.069260000"
    assert usd(price_of(EXAMPLE, model="claude-opus-5-5", lane=Lane.BULK, at=TODAY)) == "0.049630000"


@pytest.mark.parametrize("kind", ["input_tokens", "cache_read_tokens", "cache_write_5m_tokens"])
def test_one_token_over_the_step_of_haiku_moves_the_whole_request(kind: str) -> None:
    below, over = (Usage(output_tokens=1_000, **{kind: tokens}) for tokens in (100_000, 100_001))
    assert price_of(below, model="claude-haiku-5-5", at=TODAY) == price_in_haiku(below, times=1)
    assert price_of(over, model="claude-haiku-5-5", at=TODAY) == price_in_haiku(over, times=5)


def test_the_rounding_is_half_even_and_done_once() -> None:
    # One cache read of Haiku 5.5 in the bulk lane is 5 nano-dollars; with `us` 5.5, which goes to the even side.
    one, three = (Usage(cache_read_tokens=n) for n in (1, 3))
    assert price_of(one, model="claude-haiku-5-5", lane=Lane.BULK, inference_geo="us", at=TODAY) == 6
    assert price_of(three, model="claude-haiku-5-5", lane=Lane.BULK, inference_geo="us", at=TODAY) == 16


def test_prices_are_those_of_the_day() -> None:
    long_prompt = Usage(input_tokens=300_000)
    before = price_of(long_prompt, model="claude-opus-4-6", at=datetime(2026, 3, 1, tzinfo=UTC))
    after = price_of(long_prompt, model="claude-opus-4-6", at=TODAY)
    assert (before, after) == (3_000_000_000, 1_500_000_000)


def test_the_bulk_lane_was_half_price_before_genai_prices_dates_it() -> None:
    september = datetime(2026, 9, 1, tzinfo=UTC)
    million = Usage(input_tokens=1_000_000)
    assert price_of(million, model="claude-opus-5", lane=Lane.BULK, at=september) == 2_500_000_000


def test_fast_mode_does_not_exist_in_the_bulk_lane() -> None:
    fast = price_of(EXAMPLE, model="claude-opus-5-5", lane=Lane.BULK, speed="fast", at=TODAY)
    assert fast == price_of(EXAMPLE, model="claude-opus-5-5", lane=Lane.BULK, at=TODAY)


def test_an_unknown_model_costs_none_and_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    book = PriceBook()
    with caplog.at_level(logging.WARNING):
        prices = [book.price_of(EXAMPLE, model=m, lane=lane) for m in ("claude-opus-9", "x") for lane in Lane]
    assert prices == [None] * 4
    assert [record.message for record in caplog.records] == ["price_unknown"] * 2
    assert [vars(record)["model"] for record in caplog.records] == ["claude-opus-9", "x"]


def test_the_price_of_the_user_wins_and_the_lane_still_halves_it() -> None:
    book = PriceBook({"claude-opus-5-5": {"input": "3.6", "output": 18}})
    usage = Usage(input_tokens=1_000_000, cache_read_tokens=1_000_000)
    assert book.price_of(usage, model="claude-opus-5-5") == 3_960_000_000
    assert book.price_of(usage, model="claude-opus-5-5", lane=Lane.BULK) == 1_980_000_000


def test_the_version_tells_tables_apart() -> None:
    mine, yours = (PriceBook({"m": {"input": price, "output": 5}}) for price in (1, 2))
    assert PriceBook().version == PRICE_VERSION
    assert len({mine.version, yours.version, PRICE_VERSION}) == 3


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"input": 0.000003, "output": 15}, "prices.m.input: .* looks like a price per token"),
        ({"input": 3000, "output": 15}, "prices.m.input: .* not plausible"),
        ({"input": 3}, "prices.m: output is missing"),
        ({"input": 3, "output": "much"}, "prices.m.output: 'much' is not a number"),
        ({"input": -3, "output": 15}, "prices.m.input: -3 is not a price"),
        ({"input": 3, "output": float("nan")}, "prices.m.output: nan is not a price"),
        ({"input": 3, "output": 15, "cached": 1}, "prices.m: unknown field cached"),
    ],
)
def test_a_slip_in_a_price_names_its_setting(fields: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        PriceBook({"m": fields})


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "0.000000000"),
        (12_345, "0.000012345"),
        (-1, "-0.000000001"),
        (1_500_000_000, "1.500000000"),
        (None, None),
    ],
)
def test_dollars_always_have_nine_decimals(nanos: int | None, text: str | None) -> None:
    assert usd(nanos) == text
