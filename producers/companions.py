"""The processes beside the workers, beat, Flower and the dashboard: started again when they die, and done without in the end.

The idea: no worker depends on them, so none of them may end the stack.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from producers.children import Child
from producers.wording import several

RESTS_S = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Seconds before each start after a death; after as many the process is left ended."""
HEALTHY_S = 600.0
"""One that has lived so long has no deaths counted."""


@dataclass(slots=True)
class Companion:
    """One such process.

    Attributes:
        start: starts it.
        child: as it was started last.
        deaths: how often it has died without living long.
        start_at: when it is started again, by the monotonic clock; None while it runs, and when it is given up.
        given_up: it is left ended.
    """

    start: Callable[[], Child]
    child: Child
    deaths: int = 0
    start_at: float | None = None
    given_up: bool = False

    def look_after(self, say: Callable[[str], None]) -> None:
        """Start it again when it has died, after a rest; says each death once."""
        if self.given_up or self.child.runs:
            return
        now = time.monotonic()
        if self.start_at is None:
            self._note_death(now, say)
        elif now >= self.start_at:
            self.child, self.start_at = self.start(), None

    def _note_death(self, now: float, say: Callable[[str], None]) -> None:
        self.deaths = 1 if self.child.age_s > HEALTHY_S else self.deaths + 1
        ended = f"{self.child.name} has ended ({self.child.how_it_ended})"
        if self.deaths > len(RESTS_S):
            self.given_up = True
            words = "\n  ".join(self.child.last_words())
            say(
                f"{ended} {several(self.deaths, 'time')} and is not started again; the workers go on without it; "
                f"its last words, in {self.child.log}:\n  {words}"
            )
            return
        rest_s = RESTS_S[self.deaths - 1]
        self.start_at = now + rest_s
        say(f"{ended} and is started again in {rest_s:.0f} s; its log: {self.child.log}")
