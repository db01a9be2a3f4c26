"""Keys and schedules, which are asked for now and then only: they change seldom, and cost a look of their own each."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from producers import schedules
from producers.schedules_shown import document, when
from promptmill.settings import Settings

KEEP_S = 5.0

Documents = list[dict[str, Any]]


@dataclass(slots=True)
class Beside:
    """What was seen of them last."""

    settings: Settings
    monotonic: Callable[[], float] = time.monotonic
    _kept: dict[str, tuple[float, Documents]] = field(default_factory=dict)

    def schedules(self) -> Documents:
        """What `promptmill schedule list --json` prints, with the timetable in words.

        Raises:
            Unavailable: the database does not answer.
        """
        return self._of("schedules", self._look_at_schedules)

    def _look_at_schedules(self) -> Documents:
        found = schedules.overview(settings=self.settings)
        return [{**document(each), "when": when(each.row)} for each in found]

    def _of(self, what: str, look: Callable[[], Documents]) -> Documents:
        now = self.monotonic()
        at, found = self._kept.get(what, (float("-inf"), []))
        if now - at >= KEEP_S:
            found = look()
            self._kept[what] = (now, found)
        return found
