"""Which jobs may run beside each other, when one of them may be what ends processes.

Whatever was in flight when a process died is suspected as much as the one that did it, and resting does not tell them
apart where calls last longer than the rests. So suspects are tried in groups, each smaller than the one before: the
innocent are answered, and the guilty one soon dies alone.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

CAPACITIES: Final[Mapping[int, int]] = {2: 16, 3: 1}
"""Jobs at a time in one process, by how many processes were lost with them; the last also for all that were lost more
often. What was lost less often runs freely: a dead worker is seldom the fault of a job."""
REST_S: Final = (2.0, 10.0)
"""Between these a job rests for which there is no room."""


@dataclass(slots=True)
class Suspects:
    """The suspects in one process. To be used on the event loop alone."""

    _held: Counter[int] = field(default_factory=Counter)

    @contextmanager
    def among(self, losses: int) -> Iterator[bool]:
        """Whether there is room for a job with so many losses; it has its place for the length of the block."""
        group = min(losses, max(CAPACITIES))
        if self._held[group] >= CAPACITIES.get(group, float("inf")):
            yield False
            return
        self._held[group] += 1
        try:
            yield True
        finally:
            self._held[group] -= 1
