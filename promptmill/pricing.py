"""What a Usage costs: exact, in integer nano-dollars, rounded once. Unknown is None, never zero.

The rates of a (model, lane, speed, geography, day) are worked out once, as integers over one denominator;
after that a price is six multiplications and one division.

Rules of the price list (claude-api.md, 9.2 to 9.5): the bulk lane halves every token price, `us` adds a
tenth, fast mode has rates of its own and does not exist in the bulk lane, a long prompt moves the whole
request to the higher rates, and a web search has a fee that nothing discounts.
"""

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from importlib.metadata import version
from typing import Any

from promptmill import pricelist
from promptmill.pricelist import Steps
from promptmill.prompts import fingerprint_of
from promptmill.states import Lane
from promptmill.usage import Usage

NANOS_PER_DOLLAR = 1_000_000_000
PRICE_VERSION = f"genai-prices {version('genai-prices')}, own {pricelist.OWN_PRICES_CHECKED}"

_SECONDS_PER_DAY = 86_400
_NANOS_PER_TOKEN_AT_ONE_USD_PER_MILLION = 1000
_NANOS_PER_SEARCH_AT_ONE_USD_PER_THOUSAND = NANOS_PER_DOLLAR // 1000
_BULK_FACTOR = Fraction(1, 2)
_US_FACTOR = Fraction(11, 10)
_TARIFFS_KEPT = 10_000

_log = logging.getLogger(__name__)

_Key = tuple[str, Lane, str | None, str | None, int]


_SixInts = tuple[int, int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Tariff:
    """Exact rates: nano-dollars per token and per search, times `denominator`.

    Prompts of more than `step` tokens pay the rates of `longer`.
    """

    rates: _SixInts
    denominator: int
    step: int = 0
    longer: "_Tariff | None" = None

    def price(self, usage: Usage) -> int:
        """Nano-dollars, rounded half-even."""
        if self.longer is not None and usage.total_input_tokens > self.step:
            return self.longer.price(usage)
        plain, output, write_5m, write_1h, read, search = self.rates
        return _divide_half_even(
            usage.input_tokens * plain
            + usage.output_tokens * output
            + usage.cache_write_5m_tokens * write_5m
            + usage.cache_write_1h_tokens * write_1h
            + usage.cache_read_tokens * read
            + usage.web_searches * search,
            self.denominator,
        )


class PriceBook:
    """The published prices, under those a user set.

    Args:
        overrides: exact model name → `{"input", "output", "cache_write_5m"?, "cache_write_1h"?,
            "cache_read"?, "web_search_per_1000"?}`, USD per million tokens (the last per thousand searches).
            They hold at any date and speed and prompt length; lane and geography still apply.

    Raises:
        ConfigurationError: an override is incomplete, not a number, or looks like a price per token.
    """

    def __init__(self, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._overrides = pricelist.read_overrides(overrides or {})
        self.version = PRICE_VERSION
        if self._overrides:
            self.version += f", yours {fingerprint_of(repr(sorted(self._overrides.items())))[:8]}"
        self._tariffs: dict[_Key, _Tariff | None] = {}
        self._warned: set[str] = set()

    def price_of(
        self,
        usage: Usage,
        *,
        model: str,
        lane: Lane = Lane.REALTIME,
        inference_geo: str | None = None,
        speed: str | None = None,
        at: datetime | None = None,
    ) -> int | None:
        """The cost in nano-dollars; None, with one warning per model, when the price is not known.

        Args:
            usage: what was used.
            model: the model that answered (`message.model`), not the one that was asked for.
            lane: `bulk` halves the token prices.
            inference_geo: `usage.inference_geo` of the reply; `us` costs 1.1 times.
            speed: `usage.speed` of the reply.
            at: the day (UTC) whose prices hold, an aware datetime; today when None.
        """
        day = int((time.time() if at is None else at.timestamp()) // _SECONDS_PER_DAY)
        key = (model, lane, speed, inference_geo, day)
        try:
            tariff = self._tariffs[key]
        except KeyError:
            tariff = self._prepare(key)
        return None if tariff is None else tariff.price(usage)

    def _prepare(self, key: _Key) -> _Tariff | None:
        model, lane, speed, geo, day = key
        at = datetime.fromtimestamp(day * _SECONDS_PER_DAY, UTC)
        steps = self._steps(model, None if lane is Lane.BULK else speed, at)
        if steps is None:
            self._warn_once(model)
        factor = (_BULK_FACTOR if lane is Lane.BULK else 1) * (_US_FACTOR if geo == "us" else Fraction(1))
        tariff = None if steps is None else _tariff(steps, factor)
        if len(self._tariffs) >= _TARIFFS_KEPT:  # only a stream of made-up model names gets here
            self._tariffs.clear()
        self._tariffs[key] = tariff
        return tariff

    def _steps(self, model: str, speed: str | None, at: datetime) -> Steps | None:
        set_by_hand = self._overrides.get(model) or pricelist.own().get(model)
        return ((0, set_by_hand),) if set_by_hand else pricelist.published(model, speed, at)

    def _warn_once(self, model: str) -> None:
        if model not in self._warned:
            self._warned.add(model)
            _log.warning("price_unknown", extra={"model": model})


_published_prices = PriceBook()


def price_of(
    usage: Usage,
    *,
    model: str,
    lane: Lane = Lane.REALTIME,
    inference_geo: str | None = None,
    speed: str | None = None,
    at: datetime | None = None,
) -> int | None:
    """The cost at published prices in nano-dollars; see `PriceBook.price_of`."""
    return _published_prices.price_of(
        usage, model=model, lane=lane, inference_geo=inference_geo, speed=speed, at=at
    )


def usd(nanos: int | None) -> str | None:
    """Nano-dollars as dollars with nine decimals, `"0.000012345"`; None stays None."""
    if nanos is None:
        return None
    whole, rest = divmod(abs(nanos), NANOS_PER_DOLLAR)
    return f"{'-' if nanos < 0 else ''}{whole}.{rest:09d}"


def _tariff(steps: Steps, factor: Fraction) -> _Tariff:
    (_, rates), *longer = steps
    per_token = factor * _NANOS_PER_TOKEN_AT_ONE_USD_PER_MILLION
    exact = (
        Fraction(rates.input) * per_token,
        Fraction(rates.output) * per_token,
        Fraction(rates.cache_write_5m) * per_token,
        Fraction(rates.cache_write_1h) * per_token,
        Fraction(rates.cache_read) * per_token,
        Fraction(rates.web_search_per_1000) * _NANOS_PER_SEARCH_AT_ONE_USD_PER_THOUSAND,
    )
    denominator = math.lcm(*(rate.denominator for rate in exact))
    plain, output, write_5m, write_1h, read, search = (int(rate * denominator) for rate in exact)
    whole = (plain, output, write_5m, write_1h, read, search)
    if not longer:
        return _Tariff(whole, denominator)
    return _Tariff(whole, denominator, step=longer[0][0], longer=_tariff(tuple(longer), factor))


def _divide_half_even(numerator: int, denominator: int) -> int:
    quotient, rest = divmod(numerator, denominator)
    twice = 2 * rest
    return quotient + (twice > denominator or (twice == denominator and quotient & 1 == 1))
