"""What is asked: prompts of a drawn length that differ from each other, and how many of them fill a run.

The one idea: a load is described by what the server will count, so that the least time of a run is known
beforehand, and the figures afterwards use what it did count.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from promptmill.dimensions import Amounts

MOST_OUTPUT = 4_096
MODEL = "claude-opus-4-7"  # does not think unless asked to, so an answer's length is what the load says

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
# The simulator counts 0.221 tokens a character and 0.39 a space more, so a word of six letters and its space:
_TOKENS_PER_WORD = 7 * 0.221 + 0.39
_PREFIX = " ".join(["Rule: answer briefly, with care, and in the language of the question."] * 150)


@dataclass(frozen=True, kw_only=True)
class Load:
    """One batch.

    Attributes:
        input_tokens: mean length of a prompt as the server counts it, without a cached prefix.
        output_tokens: mean length of an answer.
        weight: how many jobs it has for each of the other batch's.
        spread: sigma of the lognormal of the prompt's length.
        priority: as `submit` takes it: `high` 10, `normal` 1, `low` 0.1.
        begins: when it is submitted, as a share of the run.
        prefix: every prompt begins with the same long system prompt, marked for caching.
        tag: a word in every prompt, by which the server chooses the length of the answer.
    """

    input_tokens: float
    output_tokens: float
    weight: float = 1.0
    spread: float = 0.5
    priority: str = "normal"
    begins: float = 0.0
    prefix: bool = False
    tag: str = ""

    @property
    def cost(self) -> Amounts:
        """What a mean call takes of the limits."""
        return Amounts(1, self.input_tokens, self.output_tokens)

    @property
    def system(self) -> Sequence[dict[str, object]] | None:
        """The shared prefix; None where there is none."""
        if not self.prefix:
            return None
        return [{"type": "text", "text": _PREFIX, "cache_control": {"type": "ephemeral"}}]

    @property
    def share(self) -> float:
        """Its weight by priority."""
        return {"high": 10.0, "normal": 1.0, "low": 0.1}[self.priority]

    def prompts(self, count: int, token_factor: float, seed: int) -> Iterator[dict[str, str]]:
        """So many different prompts for a server that counts by that factor; the same seed gives the same."""
        dice = random.Random(f"{seed} {self}")
        vocabulary = ["".join(dice.choices(_LETTERS, k=6)) for _ in range(500)]
        for number in range(count):
            tokens = self.input_tokens * math.exp(self.spread * dice.gauss() - self.spread**2 / 2)
            words = dice.choices(vocabulary, k=max(1, round(tokens / token_factor / _TOKENS_PER_WORD) - 6))
            yield {"prompt": f"{number} {self.tag} {' '.join(words)}"}


def counts(loads: Sequence[Load], seconds_of_limit: float, per_minute: Amounts) -> list[int]:
    """How many jobs of each load together use up so many seconds of the limit that binds."""
    wanted = [
        sum(load.weight * used for load, used in zip(loads, each, strict=True))
        for each in zip(*(load.cost for load in loads), strict=True)
    ]
    slowest = max(use * 60 / limit for use, limit in zip(wanted, per_minute, strict=True) if limit)
    return [max(1, round(load.weight * seconds_of_limit / slowest)) for load in loads]


def answer_lengths(loads: Sequence[Load]) -> list[dict[str, object]]:
    """Scenario faults that give the answers of tagged loads their lengths, by the last digit of a prompt's number.

    Ten lengths, from 0.4 to 2 times the mean, whose mean it is.
    """
    faults: list[dict[str, object]] = []
    for load in loads:
        if load.tag:
            faults += [
                {
                    "kind": "answer",
                    "text": f"{digit} {load.tag} ",
                    "output_tokens": round(load.output_tokens * share),
                }
                for digit, share in enumerate((0.4, 0.5, 0.6, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0))
            ]
    return faults
