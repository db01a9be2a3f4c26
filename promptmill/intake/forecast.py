"""What a whole submission will use and cost: the sum over its rows, with an interval, and what that rests on. Pure.

Rows that are alike for this purpose are counted, not repeated, so a forecast takes no longer for a million of
them. The interval is two deviations wide: how well the mean answer is known, and how much the sum of so many
answers varies.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from promptmill.dimensions import Amounts
from promptmill.experience import Basis, Experience
from promptmill.pricing import PriceBook
from promptmill.states import Lane

ExperienceOf = Callable[[str | None, str], Experience]
"""What is known of the answers to a template (None: there is none) by a model group."""


class Shape(NamedTuple):
    """What of a row decides its estimate; `input_tokens` is by formula alone."""

    model: str
    model_group: str
    input_tokens: int
    ceiling: int
    inference_geo: str | None = None
    speed: str | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """Tokens, cached or not, and nano-dollars; None where a price is unknown."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_nanos: int | None = 0


@dataclass(frozen=True, slots=True)
class Load:
    """What will count against the limits of one model group, and what that rests on.

    Input that the prompt cache gives counts against none, once it is in the cache.
    """

    low: Amounts
    expected: Amounts
    high: Amounts
    basis: Basis


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a submission will use; `loads` is by model group, `unpriced` counts jobs whose price is unknown."""

    jobs: int
    low: Expected
    expected: Expected
    high: Expected
    loads: Mapping[str, Load]
    unpriced: int


def nothing_known(_template: str | None, _model_group: str) -> Experience:
    """For who has no earlier answers to learn from."""
    return Experience.first_guess()


def forecast(
    shapes: Iterable[tuple[Shape, int]],
    experience_of: Callable[[str], Experience],
    prices: PriceBook,
    *,
    lane: Lane = Lane.REALTIME,
) -> Forecast:
    """The sum over rows.

    Args:
        shapes: each with how many rows have it.
        experience_of: what is known, by model group.
        prices: what tokens cost.
        lane: how the jobs will travel.
    """
    by_group: defaultdict[str, list[tuple[Shape, int]]] = defaultdict(list)
    for shape, rows in shapes:
        by_group[shape.model_group].append((shape, rows))
    sums = [_Sum(prices, lane) for _ in range(3)]
    loads = {group: _load(members, experience_of(group), sums) for group, members in by_group.items()}
    low, expected, high = (each.expected() for each in sums)
    jobs = sum(rows for members in by_group.values() for _, rows in members)
    return Forecast(jobs, low, expected, high, loads, sums[1].unpriced)


class _Sum:
    """Adds up one side of the interval."""

    def __init__(self, prices: PriceBook, lane: Lane) -> None:
        self._prices = prices
        self._lane = lane
        self._input_tokens = self._output_tokens = self._cost_nanos = 0
        self.unpriced = 0

    def add(self, shape: Shape, rows: int, known: Experience, input_by: float, output_by: float) -> Amounts:
        """Add rows of one shape, with input and output so many times what is expected; what they take of limits."""
        by_formula = shape.input_tokens * input_by
        whole = known.input_tokens(by_formula)
        output = min(shape.ceiling, max(1, round(known.output.mean * output_by)))
        if output_by == 1.0:
            output = known.output_tokens(shape.ceiling)
        cost = self._prices.price_of(
            known.usage(whole, output),
            model=shape.model,
            lane=self._lane,
            inference_geo=shape.inference_geo,
            speed=shape.speed,
        )
        self._input_tokens += rows * whole
        self._output_tokens += rows * output
        self._cost_nanos += rows * (cost or 0)
        self.unpriced += rows if cost is None else 0
        return Amounts(rows, rows * known.limited_input_tokens(by_formula), rows * output)

    def expected(self) -> Expected:
        """The sum; without a cost where one is unknown."""
        cost = None if self.unpriced else self._cost_nanos
        return Expected(self._input_tokens, self._output_tokens, cost)


def _load(members: Iterable[tuple[Shape, int]], known: Experience, sums: list[_Sum]) -> Load:
    members = list(members)
    ahead = sum(rows for _, rows in members)
    input_by = 1 + known.factor.doubt(known.basis.own, ahead)
    output_by = 1 + known.output.doubt(known.basis.whole, ahead)
    sides = ((1 / input_by, 1 / output_by), (1.0, 1.0), (input_by, output_by))
    low, expected, high = (
        _total(total.add(shape, rows, known, *side) for shape, rows in members)
        for total, side in zip(sums, sides, strict=True)
    )
    return Load(low, expected, high, known.basis)


def _total(amounts: Iterable[Amounts]) -> Amounts:
    columns = zip(*amounts, strict=True)
    return Amounts(*(sum(column) for column in columns))
