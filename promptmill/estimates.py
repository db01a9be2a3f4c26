"""What a call will use and cost, before it is made; learned from what came back.

Two parts: a raw length from the formula of `promptlength`, and what earlier answers teach (`experience`), per
family of prompts: the answers to one batch are alike. Calibration is worth ten times more than a better formula
(platform study of libraries, section 3). No clock, no I/O; one Estimator belongs to one thread.
"""

import math
from dataclasses import dataclass
from typing import Any, TypeVar

from promptmill.catalogue import CATALOGUE, Catalogue
from promptmill.experience import FIRST_GUESS, Answered, Experience
from promptmill.pricing import PriceBook
from promptmill.promptlength import Length, measure
from promptmill.prompts import Body, Prompt
from promptmill.states import Lane
from promptmill.textlength import count_text
from promptmill.usage import Usage

__all__ = ["Estimate", "Estimator", "Length", "count_text", "estimate_input", "measure"]

# The tokenizer of Claude 4.6 and earlier counts the same text about 30 % lower (claude-api.md, 8).
_OLD_TOKENIZER_FACTOR = 1 / 1.3
_NAMES_KEPT = 10_000  # models or families; the oldest are forgotten
_UNMEASURED = Length(0.0, text_only=False)
_NOTHING_KNOWN = Experience.first_guess()

_Kept = TypeVar("_Kept")


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a call will probably use and cost.

    Attributes:
        input_tokens: the whole prompt, cached or not.
        output_tokens: thinking and text.
        cost_nanos: nano-dollars; None when the model's price is unknown.
        cost_high_nanos: what about one call in forty costs more than; what a budget sets aside.
        limited_input_tokens: the part that counts against the input limit, which cache reads do not.
        input_high, output_high: about one call in forty needs more.
        model: what was asked for.
        length: the raw length.
        first: what is expected by the formula alone (input, output); what is learned is learned against it.
    """

    input_tokens: int
    output_tokens: int
    cost_nanos: int | None
    cost_high_nanos: int | None = None
    limited_input_tokens: int = 0
    input_high: int = 0
    output_high: int = 0
    model: str = ""
    length: Length = _UNMEASURED
    first: tuple[int, int] = (0, 0)


class Estimator:
    """Estimates that get better with every reply.

    Args:
        prices: the prices to use; the published ones when None.
        catalogue: what is known of models.
    """

    def __init__(self, prices: PriceBook | None = None, catalogue: Catalogue = CATALOGUE) -> None:
        self._prices = prices or PriceBook()
        self._catalogue = catalogue
        self._models: dict[str, Experience] = {}
        self._families: dict[str, Experience] = {}
        self._taught: dict[str, None] = {}

    def estimate(self, prompt: Prompt, *, family: str, lane: Lane = Lane.REALTIME) -> Estimate:
        """What one call of this prompt will use; `family` is the batch, whose answers are alike."""
        return self.estimate_length(measure(prompt.body), prompt.body, family=family, lane=lane)

    def estimate_length(
        self, length: Length, body: Body, *, family: str, lane: Lane = Lane.REALTIME
    ) -> Estimate:
        """The same for a prompt that was measured already; of `body` only the parameters are read."""
        model = str(body.get("model", ""))
        ceiling = ceiling_of(body)
        known = self._families.get(family) or self._models.get(model, _NOTHING_KNOWN)
        by_formula = math.ceil(length.tokens * start_factor(model, self._catalogue))
        whole = known.input_tokens(by_formula)
        expected = known.output_tokens(ceiling)
        whole_high = math.ceil(by_formula * known.factor.high)
        expected_high = _at_most(known.output.high, ceiling)

        def price(input_tokens: int, output_tokens: int) -> int | None:
            return self._prices.price_of(
                known.usage(input_tokens, output_tokens),
                model=model,
                lane=lane,
                inference_geo=body.get("inference_geo"),
                speed=body.get("speed"),
            )

        return Estimate(
            input_tokens=whole,
            output_tokens=expected,
            cost_nanos=price(whole, expected),
            cost_high_nanos=price(max(whole, whole_high), max(expected, expected_high)),
            limited_input_tokens=known.limited_input_tokens(by_formula),
            input_high=whole_high,
            output_high=expected_high,
            model=model,
            length=length,
            first=(by_formula, _at_most(FIRST_GUESS, ceiling)),
        )

    def learn(self, estimate: Estimate, usage: Usage, *, family: str) -> None:
        """Take in what a complete reply used. Partial usage of a failed call teaches nothing true.

        A family that is taught is left to its teacher: the first replies of many calls are the short ones, and
        who sees only them as they come in learns too little.
        """
        if family in self._taught:
            return
        above = self._models.get(estimate.model)
        if above is None:
            above = Experience.first_guess()
            _keep(self._models, estimate.model, above)
        known = self._families.get(family)
        if known is None:
            known = above.as_prior()
            _keep(self._families, family, known)
        answered = Answered(*estimate.first, usage)
        known.learn(answered)
        if estimate.length.text_only:
            above.learn(answered)

    def teach(self, family: str, experience: Experience) -> None:
        """Take over what all processes together know of a family, in place of what this one saw of it."""
        _keep(self._families, family, experience)
        _keep(self._taught, family, None)


def estimate_input(body: Body) -> int:
    """Tokens of a prompt by the formula and the starting factor of its model; nothing learned."""
    return math.ceil(measure(body).tokens * start_factor(str(body.get("model", "")), CATALOGUE))


def start_factor(model: str, catalogue: Catalogue) -> float:
    """What the formula's tokens are multiplied by for the tokenizer of a model."""
    facts = catalogue.find_model(model)
    return 1.0 if facts is None or facts.dense_tokenizer else _OLD_TOKENIZER_FACTOR


def ceiling_of(body: Body) -> int | None:
    """The longest answer that a request allows; None where it does not say so in a whole number."""
    value: Any = body.get("max_tokens")
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _keep(known: dict[str, _Kept], name: str, value: _Kept) -> None:
    if name not in known and len(known) >= _NAMES_KEPT:
        known.pop(next(iter(known)))
    known[name] = value


def _at_most(tokens: float, ceiling: int | None) -> int:
    rounded = math.ceil(tokens)
    return rounded if ceiling is None else min(rounded, ceiling)
