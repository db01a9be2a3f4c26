"""What a call will use and cost, before it is made; learned from what came back.

Two parts: a raw length from the formula of `promptlength`, and factors that are learned online, for input per
model (the tokenizer), for output per family of prompts (a batch). Calibration is worth ten times more than a
better formula (platform study of libraries, section 3). No clock, no I/O; one Estimator belongs to one thread.
"""

import math
from dataclasses import dataclass
from typing import Any, TypeVar

from promptmill.catalogue import CATALOGUE, Catalogue
from promptmill.pricing import PriceBook
from promptmill.promptlength import Length, measure
from promptmill.prompts import Body, Prompt
from promptmill.states import Lane
from promptmill.textlength import count_text
from promptmill.usage import Usage

__all__ = ["Estimate", "Estimator", "Length", "count_text", "estimate_input", "measure"]

# The tokenizer of Claude 4.6 and earlier counts the same text about 30 % lower (claude-api.md, 8).
_OLD_TOKENIZER_FACTOR = 1 / 1.3
_ANSWER_TOKENS = 400.0
_PRIOR_INPUT_DEVIATION = 0.2

_INPUT_PRIOR_WEIGHT = 5
_OUTPUT_PRIOR_WEIGHT = 3
_MEMORY = 50  # observations; older ones fade, so a change of content is followed
_FURTHEST_FACTOR = 4.0
_FURTHEST_DEVIATIONS = 5.0
_NAMES_KEPT = 10_000  # models or families; the oldest are forgotten
_HIGH = 2.0  # standard deviations above the mean: about 1 in 40 needs more
_UNMEASURED = Length(0.0, text_only=False)

_Kept = TypeVar("_Kept")


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a call will probably use and cost.

    Attributes:
        input_tokens: the whole prompt, cached or not.
        output_tokens: thinking and text.
        cost_nanos: nano-dollars; None when the model's price is unknown.
        limited_input_tokens: the part that counts against the input limit, which cache reads do not.
        input_high, output_high: about one call in forty needs more.
        model: what was asked for.
        length: the raw length, to learn from.
    """

    input_tokens: int
    output_tokens: int
    cost_nanos: int | None
    limited_input_tokens: int = 0
    input_high: int = 0
    output_high: int = 0
    model: str = ""
    length: Length = _UNMEASURED


class _Running:
    """A fading mean and variance; one outlier cannot carry it away."""

    __slots__ = ("mean", "variance", "weight")

    def __init__(self, mean: float, deviation: float, prior_weight: float) -> None:
        self.mean = mean
        self.variance = deviation * deviation
        self.weight = prior_weight

    def learn(self, value: float) -> None:
        """Take in one observation, pulled to at most five standard deviations from the mean."""
        reach = _FURTHEST_DEVIATIONS * math.sqrt(self.variance)
        distance = max(-reach, min(reach, value - self.mean))
        self.weight = min(self.weight + 1, _MEMORY)
        share = 1 / self.weight
        self.mean += share * distance
        self.variance = (1 - share) * (self.variance + share * distance * distance)
        # Equal answers must not make the next different one look impossible.
        self.variance = max(self.variance, (0.02 * self.mean) ** 2, 1e-9)

    @property
    def high(self) -> float:
        """What few observations exceed."""
        return self.mean + _HIGH * math.sqrt(self.variance)


@dataclass(slots=True)
class _Family:
    output: _Running
    limited_share: _Running


class Estimator:
    """Estimates that get better with every reply.

    Args:
        prices: the prices to use; the published ones when None.
        catalogue: what is known of models.
    """

    def __init__(self, prices: PriceBook | None = None, catalogue: Catalogue = CATALOGUE) -> None:
        self._prices = prices or PriceBook()
        self._catalogue = catalogue
        self._factors: dict[str, _Running] = {}
        self._families: dict[str, _Family] = {}

    def estimate(self, prompt: Prompt, *, family: str, lane: Lane = Lane.REALTIME) -> Estimate:
        """What one call of this prompt will use; `family` is the batch, whose answers are alike."""
        return self.estimate_length(measure(prompt.body), prompt.body, family=family, lane=lane)

    def estimate_length(
        self, length: Length, body: Body, *, family: str, lane: Lane = Lane.REALTIME
    ) -> Estimate:
        """The same for a prompt that was measured already; of `body` only the parameters are read."""
        model = str(body.get("model", ""))
        ceiling = _whole(body.get("max_tokens"))
        factor = self._factor(model)
        known = self._families.get(family)
        answer = known.output if known else _first_guess(ceiling)
        share = min(1.0, known.limited_share.mean) if known else 1.0
        whole = math.ceil(length.tokens * factor.mean)
        limited = math.ceil(whole * share)
        expected = _at_most(answer.mean, ceiling)
        usage = Usage(input_tokens=limited, cache_read_tokens=whole - limited, output_tokens=expected)
        return Estimate(
            input_tokens=whole,
            output_tokens=expected,
            cost_nanos=self._prices.price_of(
                usage,
                model=model,
                lane=lane,
                inference_geo=body.get("inference_geo"),
                speed=body.get("speed"),
            ),
            limited_input_tokens=limited,
            input_high=math.ceil(length.tokens * factor.high),
            output_high=_at_most(answer.high, ceiling),
            model=model,
            length=length,
        )

    def learn(self, estimate: Estimate, usage: Usage, *, family: str) -> None:
        """Take in what a complete reply used. Partial usage of a failed call teaches nothing true."""
        total = usage.total_input_tokens
        if total <= 0:
            return
        if estimate.length.text_only and estimate.length.tokens > 0:
            start = self._start_factor(estimate.model)
            ratio = total / estimate.length.tokens
            ratio = max(start / _FURTHEST_FACTOR, min(start * _FURTHEST_FACTOR, ratio))
            self._factor(estimate.model).learn(ratio)
        known = self._families.get(family) or self._new_family(family, estimate)
        known.output.learn(usage.output_tokens)
        known.limited_share.learn(usage.limited_input_tokens / total)

    def _factor(self, model: str) -> _Running:
        known = self._factors.get(model)
        if known is None:
            start = self._start_factor(model)
            known = _Running(start, start * _PRIOR_INPUT_DEVIATION, _INPUT_PRIOR_WEIGHT)
            _keep(self._factors, model, known)
        return known

    def _start_factor(self, model: str) -> float:
        facts = self._catalogue.find_model(model)
        return 1.0 if facts is None or facts.dense_tokenizer else _OLD_TOKENIZER_FACTOR

    def _new_family(self, family: str, estimate: Estimate) -> _Family:
        expected = max(1.0, float(estimate.output_tokens))
        guess = _Running(expected, expected, _OUTPUT_PRIOR_WEIGHT)
        fresh = _Family(guess, _Running(1.0, 0.3, _OUTPUT_PRIOR_WEIGHT))
        _keep(self._families, family, fresh)
        return fresh


def estimate_input(body: Body) -> int:
    """Tokens of a prompt by the formula and the starting factor of its model; nothing learned."""
    facts = CATALOGUE.find_model(str(body.get("model", "")))
    factor = 1.0 if facts is None or facts.dense_tokenizer else _OLD_TOKENIZER_FACTOR
    return math.ceil(measure(body).tokens * factor)


def _keep(known: dict[str, _Kept], name: str, value: _Kept) -> None:
    if len(known) >= _NAMES_KEPT:
        known.pop(next(iter(known)))
    known[name] = value


def _first_guess(ceiling: int | None) -> _Running:
    guess = _ANSWER_TOKENS if ceiling is None else min(_ANSWER_TOKENS, float(ceiling))
    return _Running(guess, guess, _OUTPUT_PRIOR_WEIGHT)


def _at_most(tokens: float, ceiling: int | None) -> int:
    rounded = math.ceil(tokens)
    return rounded if ceiling is None else min(rounded, ceiling)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
