"""Where prices come from: genai-prices, `prices.toml` for what it lacks, and what the user set.

Everything here is USD per million tokens in the realtime lane, as price lists are printed. A model's price
is a short list of (more than so many prompt tokens, Rates): most have one entry, Haiku 5.5 has two.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import Any

from promptmill.errors import ConfigurationError

WEB_SEARCH_USD_PER_THOUSAND = Decimal(10)
OWN_PRICES_CHECKED = "2026-11-22"

# No Claude price per million tokens ever lay outside these; a price per token is a million times lower.
_LOWEST_PLAUSIBLE = Decimal("0.0005")
_HIGHEST_PLAUSIBLE = Decimal(2000)
_REQUIRED = frozenset({"input", "output"})
_FIELDS = _REQUIRED | {"cache_write_5m", "cache_write_1h", "cache_read", "web_search_per_1000"}


@dataclass(frozen=True, slots=True)
class Rates:
    """USD per million tokens at one prompt length, and USD per thousand web searches."""

    input: Decimal
    output: Decimal
    cache_write_5m: Decimal
    cache_write_1h: Decimal
    cache_read: Decimal
    web_search_per_1000: Decimal = WEB_SEARCH_USD_PER_THOUSAND


Steps = tuple[tuple[int, Rates], ...]
"""(0, Rates) and, ascending, (n, Rates of a whole request whose prompt is longer than n tokens)."""


def published(model: str, speed: str | None, at: datetime) -> Steps | None:
    """What genai-prices knows of a model on a day; None when it does not know it.

    A `speed` without a price of its own costs the standard price, as the API bills it (claude-api.md, 9.4).
    """
    # Imported late: its tables take 7 MB, and commands that ask no price should not pay for it.
    import genai_prices  # noqa: PLC0415

    try:
        table = genai_prices.calc_price(
            genai_prices.Usage(),
            model,
            provider_id="anthropic",
            genai_request_timestamp=at,
            price_context={"speed": speed} if speed else None,
        ).model_price
    except LookupError:
        return None
    prices = (getattr(table, name) for name in ("input_mtok", "output_mtok", "cache_read_mtok"))
    starts = {tier.start for price in prices for tier in getattr(price, "tiers", ())}
    return tuple((start, _rates_beyond(table, start)) for start in sorted({0, *starts}))


@cache
def own() -> Mapping[str, Rates]:
    """The prices of `prices.toml`."""
    text = Path(__file__).with_name("prices.toml").read_text(encoding="utf-8")
    return read_overrides(tomllib.loads(text, parse_float=Decimal)["prices"])


def read_overrides(prices: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Rates]:
    """Rates by exact model name; what is left out follows the usual multiples of the input price.

    Raises:
        ConfigurationError: a field is missing, unknown, not a number, or looks like a price per token.
    """
    return {model: _read(f"prices.{model}", fields) for model, fields in prices.items()}


def _read(setting: str, fields: Mapping[str, Any]) -> Rates:
    if strange := sorted(set(fields) - _FIELDS):
        raise ConfigurationError(f"{setting}: unknown field {strange[0]}", setting=setting)
    if missing := sorted(_REQUIRED - set(fields)):
        raise ConfigurationError(
            f"{setting}: {missing[0]} is missing (USD per million tokens)", setting=setting
        )
    given = {name: _read_price(f"{setting}.{name}", value) for name, value in fields.items()}
    # The multiples of the price list (claude-api.md, 9.2).
    usual = {
        "cache_write_5m": given["input"] * Decimal("1.25"),
        "cache_write_1h": given["input"] * 2,
        "cache_read": given["input"] * Decimal("0.1"),
    }
    return Rates(**{**usual, **given})


def _read_price(setting: str, value: object) -> Decimal:
    try:
        price = Decimal(str(value))
    except InvalidOperation:
        raise ConfigurationError(f"{setting}: {value!r} is not a number", setting=setting) from None
    if not price.is_finite() or price < 0:
        raise ConfigurationError(f"{setting}: {value!r} is not a price", setting=setting)
    if price and price < _LOWEST_PLAUSIBLE:
        raise ConfigurationError(
            f"{setting}: {value} looks like a price per token; state USD per million tokens", setting=setting
        )
    if price > _HIGHEST_PLAUSIBLE:
        raise ConfigurationError(
            f"{setting}: {value} USD per million tokens is not plausible", setting=setting
        )
    return price


def _rates_beyond(table: Any, start: int) -> Rates:
    def rate(name: str, fallback: Decimal = Decimal(0)) -> Decimal:
        price = getattr(table, name)
        if price is None:
            return fallback
        reached = [tier.price for tier in getattr(price, "tiers", ()) if tier.start <= start]
        chosen: Decimal = reached[-1] if reached else getattr(price, "base", price)
        return chosen

    write = rate("cache_write_mtok", rate("input_mtok"))
    return Rates(
        input=rate("input_mtok"),
        output=rate("output_mtok"),
        cache_write_5m=rate("cache_write_5m_mtok", write),
        cache_write_1h=rate("cache_write_1h_mtok", write),
        cache_read=rate("cache_read_mtok", rate("input_mtok")),
        web_search_per_1000=rate("web_searches_kcount"),
    )
