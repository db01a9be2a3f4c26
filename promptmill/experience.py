"""What earlier answers teach about the next one, level over level: a batch, its template, its model, a first guess.

Each level begins as what the level above it knows and forgets that as answers of its own come: a new batch of a
known template starts near the truth, an unknown one starts wide. One outlier is cut to five standard deviations,
and old answers fade, so a change of content is followed. Pure: answers in, expectations out.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from promptmill.prompts import fingerprint_of
from promptmill.usage import Usage

FIRST_GUESS = 400.0
"""Output tokens of an answer, while nothing is known."""
SAMPLE = 200
"""Answers of a level that are looked at; older ones have faded."""

_MEMORY = 75
_FURTHEST_FACTOR = 4.0
_FURTHEST_DEVIATIONS = 5.0
_HIGH = 2.0
_GUESS_COUNTS = 3.0
_MODEL_COUNTS = 3.0
_TEMPLATE_COUNTS = 10.0
_FACTOR_DEVIATION = 0.2
_SHARE_DEVIATION = 0.1
# What does not say what is asked: batches that share no more than this have no template in common.
_SAYS_NOTHING = frozenset({"model", "max_tokens", "temperature", "top_p", "top_k", "stream", "metadata"})


class Answered(NamedTuple):
    """What was expected of an answered job when it was admitted, by formula alone, and what it used.

    `is_cut`: it ended at `max_tokens`, so it says how long such an answer is at least.
    """

    estimated_input_tokens: int
    estimated_output_tokens: int
    usage: Usage
    is_cut: bool = False


@dataclass(slots=True)
class Running:
    """A fading mean and variance.

    Attributes:
        weight: the observations it rests on, its prior's among them, as far as they have not faded.
        floor: the smallest deviation, so that equal answers do not make the next different one look impossible.
    """

    mean: float
    variance: float
    weight: float
    floor: float = 0.0

    def learn(self, value: float) -> None:
        """Take in one observation, pulled to at most five standard deviations from the mean."""
        reach = _FURTHEST_DEVIATIONS * math.sqrt(self.variance)
        distance = max(-reach, min(reach, value - self.mean))
        self.weight = min(self.weight + 1, _MEMORY)
        share = 1 / self.weight
        self.mean += share * distance
        self.variance = (1 - share) * (self.variance + share * distance * distance)
        self.variance = max(self.variance, (0.02 * self.mean) ** 2, self.floor**2, 1e-9)

    def as_prior(self, most: float) -> "Running":
        """The same expectation for a level below, worth at most `most` of its own observations."""
        return replace(self, weight=min(self.weight, most))

    @property
    def high(self) -> float:
        """What about one observation in forty exceeds."""
        return self.mean + _HIGH * math.sqrt(self.variance)

    def doubt(self, own: int, ahead: int) -> float:
        """The relative error of the mean of `ahead` observations to come, two deviations of it.

        With no observation of its own (`own`) the mean itself may be off by as much as single answers are.
        """
        if self.mean <= 0:
            return 0.0
        spread = 1 / max(1, min(own, 2 * _MEMORY)) + 1 / max(1, ahead)
        return _HIGH * math.sqrt(self.variance * spread) / self.mean


@dataclass(frozen=True, slots=True)
class Basis:
    """How many answers an expectation rests on, of each level, and how many of them were cut off at `max_tokens`.

    Those of the batch itself have the room that its next ones have, so of them nobody needs to know.
    """

    batch: int = 0
    template: int = 0
    model: int = 0
    template_cut: int = 0
    model_cut: int = 0

    @property
    def own(self) -> int:
        """Answers of the same kind: of the batch itself and of its template."""
        return self.batch + self.template

    @property
    def whole(self) -> int:
        """Those of them that say how long an answer is, and not only how long at least."""
        return self.own - self.template_cut

    @property
    def cut(self) -> int:
        """Answers that were cut off, of the template, or of the model where the template has none."""
        return self.template_cut if self.template else self.model_cut


@dataclass(slots=True)
class Experience:
    """What is known about the answers to prompts of one kind.

    Attributes:
        factor: real input tokens to those of the formula.
        output: tokens of an answer.
        read, written_5m, written_1h: shares of the input that the prompt cache gives and takes.
        is_warm: the cache was in use a few minutes ago, so reads may be counted on.
        basis: what this rests on.
    """

    factor: Running
    output: Running
    read: Running
    written_5m: Running
    written_1h: Running
    is_warm: bool = False
    basis: Basis = field(default_factory=Basis)

    @classmethod
    def first_guess(cls) -> "Experience":
        """What is expected before any answer."""

        def share() -> Running:
            return Running(0.0, 0.3**2, _GUESS_COUNTS, floor=_SHARE_DEVIATION)

        return cls(
            factor=Running(1.0, _FACTOR_DEVIATION**2, _GUESS_COUNTS),
            output=Running(FIRST_GUESS, FIRST_GUESS**2, _GUESS_COUNTS),
            read=share(),
            written_5m=share(),
            written_1h=share(),
        )

    def learn(self, answered: Answered, *, same_room: bool = True) -> None:
        """Take in one answer; one without usage teaches nothing.

        Args:
            answered: the answer.
            same_room: the answers to come end at the same `max_tokens`. Without that one that was cut off is longer
                than it looks, so it teaches only who expected less.
        """
        usage = answered.usage
        total = usage.total_input_tokens
        if total <= 0:
            return
        if same_room or not answered.is_cut:
            if not self.basis.batch and answered.estimated_output_tokens < FIRST_GUESS:
                # It is the prompt's own ceiling, whatever others answered: no answer of this kind can be longer.
                self.output.mean = min(self.output.mean, answered.estimated_output_tokens)
            self.output.learn(usage.output_tokens)
        elif usage.output_tokens > self.output.mean:
            self.output.learn(usage.output_tokens)
        if answered.estimated_input_tokens > 0:
            ratio = total / answered.estimated_input_tokens
            self.factor.learn(max(1 / _FURTHEST_FACTOR, min(_FURTHEST_FACTOR, ratio)))
        self.read.learn(usage.cache_read_tokens / total)
        self.written_5m.learn(usage.cache_write_5m_tokens / total)
        self.written_1h.learn(usage.cache_write_1h_tokens / total)
        self.is_warm = self.is_warm or usage.cache_read_tokens > 0
        self.basis = replace(self.basis, batch=self.basis.batch + 1)

    def as_prior(self, most: float = _MODEL_COUNTS) -> "Experience":
        """What a level below begins with; it has no answers of its own yet."""
        return Experience(
            factor=self.factor.as_prior(most),
            output=self.output.as_prior(most),
            read=self.read.as_prior(most),
            written_5m=self.written_5m.as_prior(most),
            written_1h=self.written_1h.as_prior(most),
            is_warm=False,
            basis=replace(self.basis, batch=0),
        )

    def input_tokens(self, by_formula: float) -> int:
        """Tokens of a prompt, cached or not, from those of the formula."""
        return math.ceil(by_formula * self.factor.mean)

    def limited_input_tokens(self, by_formula: float) -> int:
        """The part of it that will count against the input limit: reads of a warm cache do not."""
        reads = min(1.0, max(0.0, self.read.mean)) if self.is_warm else 0.0
        return math.ceil(by_formula * self.factor.mean * (1 - reads))

    def output_tokens(self, ceiling: int | None) -> int:
        """Tokens of an answer that may not be longer than `ceiling`."""
        rounded = math.ceil(self.output.mean)
        return rounded if ceiling is None else min(rounded, ceiling)

    def usage(self, input_tokens: int, output_tokens: int) -> Usage:
        """So many tokens, the input in the buckets that it will be billed by."""
        read, written_5m, written_1h = (
            round(input_tokens * min(1.0, max(0.0, share.mean)))
            for share in (self.read, self.written_5m, self.written_1h)
        )
        return Usage(
            input_tokens=max(0, input_tokens - read - written_5m - written_1h),
            cache_read_tokens=read,
            cache_write_5m_tokens=written_5m,
            cache_write_1h_tokens=written_1h,
            output_tokens=output_tokens,
        )


def of_model(answers: Iterable[Answered]) -> Experience:
    """What the answers of a model teach, whatever was asked; oldest first.

    Prompts differ more than answers to one of them: the deviation is at least that of a first guess.
    """
    seen = list(answers)
    known = _read(Experience.first_guess(), _GUESS_COUNTS, seen, same_room=False)
    known.output.variance = max(known.output.variance, known.output.mean**2)
    known.factor.variance = max(known.factor.variance, (_FACTOR_DEVIATION / 2) ** 2)
    known.basis = Basis(model=known.basis.batch, model_cut=_cut(seen))
    return known


def of_template(model: Experience, answers: Sequence[Answered]) -> Experience:
    """What answers to the same template teach, over what is known of its model; oldest first."""
    known = _read(model, _MODEL_COUNTS, answers, same_room=False)
    known.basis = replace(known.basis, batch=0, template=known.basis.batch, template_cut=_cut(answers))
    return known


def of_batch(above: Experience, answers: Sequence[Answered], *, is_warm: bool = False) -> Experience:
    """What a batch's own answers teach, over what is known of its template; oldest first.

    Args:
        above: what is known of the template, or of the model where there is none.
        answers: the batch's newest.
        is_warm: an answer of this kind came within the life of a cached prefix.
    """
    counts = _TEMPLATE_COUNTS if above.basis.template else _MODEL_COUNTS
    known = _read(above, counts, answers, same_room=True)
    known.is_warm = is_warm
    return known


def _cut(answers: Iterable[Answered]) -> int:
    """How many of those that teach something were cut off."""
    return sum(each.is_cut and each.usage.total_input_tokens > 0 for each in answers)


def _read(above: Experience, counts: float, answers: Sequence[Answered], *, same_room: bool) -> Experience:
    """Take in the answers of a level, twice.

    The second reading begins where the first ended, so a level above that was far off leaves the square of its
    trace: three observations' worth among thirty of its own is 9 % after one reading, and 0.8 % after two.
    """
    known = above.as_prior(counts)
    for _ in range(2):
        known = known.as_prior(counts)
        for answered in answers:
            known.learn(answered, same_room=same_room)
    return known


def template_of(shared: Mapping[str, Any], text: str | None) -> str | None:
    """A name for what all prompts of a batch have in common; None where that says nothing about the answers.

    Args:
        shared: the fields of the request that all have.
        text: the template that made the prompts.
    """
    if text is None and not set(shared) - _SAYS_NOTHING:
        return None
    fields = {name: value for name, value in shared.items() if name != "model"}
    return fingerprint_of({"shared": fields, "template": text})
