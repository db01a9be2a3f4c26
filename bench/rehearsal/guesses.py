"""What the workers of a rehearsal expect of a job: the product's Experience, as all processes share it.

In the product every answer is a row, read back by all every few seconds; so here. It begins with the raw
estimates of the scene, worth as much as a first guess is.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from bench.rehearsal.scene import Job
from promptmill.dimensions import Amounts
from promptmill.experience import FIRST_GUESS, SAMPLE, Answered, Experience, Running, of_batch
from promptmill.usage import Usage

REFRESH_S, LATER_REFRESH_S = 3.0, 15.0
"""As often as workers read; less often once many answers are known, which changes little and costs much here."""
MANY = 2 * SAMPLE


@dataclass(slots=True)
class _Known:
    """What is known of a batch, when it was read, and the answers since."""

    first: Experience
    experience: Experience
    read_at: float
    answers: deque[Answered] = field(default_factory=lambda: deque(maxlen=SAMPLE))
    count: int = 0


class Guesses:
    """Estimates that become better with every answer.

    Args:
        prefix: tokens of a prompt beyond `Job.input_tokens`, cached or not.
    """

    def __init__(self, prefix: int = 0) -> None:
        self._prefix = prefix
        self._batches: dict[str, _Known] = {}

    def of(self, job: Job) -> Amounts:
        """What a job will probably take of the limits."""
        known = self._known(job)
        every = REFRESH_S if known.count < MANY else LATER_REFRESH_S
        now = asyncio.get_running_loop().time()
        if now - known.read_at >= every:
            known.read_at = now
            known.experience = of_batch(known.first, list(known.answers), is_warm=self._prefix > 0)
        expected = known.experience
        return Amounts(
            1,
            expected.limited_input_tokens(job.guess.input_tokens),
            expected.output_tokens(None),
        )

    def learn(self, job: Job, counted: int) -> None:
        """Take in what a job really took."""
        known = self._known(job)
        known.count += 1
        cached = job.input_tokens + self._prefix - counted
        usage = Usage(input_tokens=counted, cache_read_tokens=cached, output_tokens=job.output_tokens)
        known.answers.append(Answered(round(job.guess.input_tokens), round(FIRST_GUESS), usage))

    def _known(self, job: Job) -> _Known:
        known = self._batches.get(job.batch)
        if known is None:
            first = Experience.first_guess()
            guess = job.guess.output_tokens
            first.output = Running(guess, guess**2, first.output.weight)
            now = asyncio.get_running_loop().time()
            known = self._batches[job.batch] = _Known(first, first, now)
        return known
