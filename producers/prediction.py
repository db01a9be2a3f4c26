"""How well a batch was predicted, and what it will cost in the end. Pure: its counters and what is known of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from promptmill.experience import Experience
from promptmill.intake.forecast import Expected
from promptmill.pricing import PriceBook
from promptmill.store.batches import BatchRow
from promptmill.usage import Usage

_MANY = 1_000  # tokens, below every step to higher rates: rates are asked for so many, because single ones are rounded


class Terms(NamedTuple):
    """What of a request decides its price beside model and lane, as far as a batch's requests have it in common."""

    speed: str | None = None
    inference_geo: str | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted against actual for the jobs answered so far. Input is all that was read, cached or not.

    Attributes:
        jobs: how many were answered.
        as_admitted: what was expected of them at admission; None for a batch of an earlier version.
        as_learned: what would be expected of them now.
        actual: what was used and cost, by tries that failed too.
        projected_nanos: what the whole batch will have cost; None while a price is unknown.
    """

    jobs: int
    as_admitted: Expected | None
    as_learned: Expected
    actual: Expected
    projected_nanos: int | None


def predict(
    batch: BatchRow,
    known: Experience,
    prices: PriceBook,
    *,
    terms: Terms = Terms(),  # noqa: B008  # a value
) -> Prediction:
    """Compare a batch with what was and is expected of it.

    Args:
        batch: its counters.
        known: what is known of its answers now.
        prices: what tokens cost, for a share of the estimate and for the answers that are still to come.
        terms: at which terms.
    """
    pricer = _Pricer(batch, known, prices, terms)
    learned_output = round(known.output.mean * batch.succeeded)
    read = batch.input_tokens + batch.cache_read_tokens + batch.cache_write_tokens
    return Prediction(
        jobs=batch.succeeded,
        as_admitted=_as_admitted(batch, pricer.plain),
        as_learned=pricer.expected(known.input_tokens(batch.formula_tokens_answered), learned_output),
        actual=Expected(read, batch.output_tokens, batch.cost_nanos),
        projected_nanos=_projected(batch, known, pricer),
    )


class _Pricer:
    """Costs of sums over many calls, at the rates of the batch's model; rates are nano-dollars for `_MANY` tokens."""

    def __init__(self, batch: BatchRow, known: Experience, prices: PriceBook, terms: Terms) -> None:
        def rate(usage: Usage) -> int | None:
            return prices.price_of(usage, model=batch.model, lane=batch.lane, **terms._asdict())

        self._cached = rate(known.usage(_MANY, 0))
        self._input = rate(Usage(input_tokens=_MANY))
        self._output = rate(Usage(output_tokens=_MANY))

    def expected(self, input_tokens: int, output_tokens: int) -> Expected:
        """With the prompt cache used as it was so far."""
        return Expected(input_tokens, output_tokens, self._cost(self._cached, input_tokens, output_tokens))

    def plain(self, input_tokens: int, output_tokens: int) -> int | None:
        """Without a prompt cache."""
        return self._cost(self._input, input_tokens, output_tokens)

    def _cost(self, input_rate: int | None, input_tokens: int, output_tokens: int) -> int | None:
        if input_rate is None or self._output is None:
            return None
        return (input_tokens * input_rate + output_tokens * self._output) // _MANY


def _as_admitted(batch: BatchRow, cost: Callable[[int, int], int | None]) -> Expected | None:
    """The part of the estimate that fell to the jobs answered so far."""
    if batch.estimated_input_tokens is None or batch.estimated_output_tokens is None or not batch.total:
        return None
    by_count = batch.succeeded / batch.total
    by_length = batch.formula_tokens_answered / batch.formula_tokens if batch.formula_tokens else by_count
    input_tokens = round(batch.estimated_input_tokens * by_length)
    output_tokens = round(batch.estimated_output_tokens * by_count)
    part = cost(input_tokens, output_tokens)
    whole = cost(batch.estimated_input_tokens, batch.estimated_output_tokens)
    if batch.estimate_nanos is None or part is None or not whole:
        return Expected(input_tokens, output_tokens, None)
    return Expected(input_tokens, output_tokens, batch.estimate_nanos * part // whole)


def _projected(batch: BatchRow, known: Experience, pricer: _Pricer) -> int | None:
    """What was spent, and what the jobs that have not ended will cost."""
    left = batch.total - batch.done
    if not left:
        return batch.cost_nanos
    if not known.basis.batch:
        return (
            None
            if batch.estimate_nanos is None
            else batch.cost_nanos + batch.estimate_nanos * left // batch.total
        )
    unanswered = batch.total - batch.succeeded
    by_formula = (batch.formula_tokens - batch.formula_tokens_answered) * left / unanswered
    rest = pricer.expected(known.input_tokens(by_formula), round(known.output.mean * left))
    return None if rest.cost_nanos is None else batch.cost_nanos + rest.cost_nanos
