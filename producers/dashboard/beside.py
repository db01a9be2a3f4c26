"""Keys and schedules, which are asked for now and then only: they change seldom, and cost a look of their own each."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from producers import schedules
from producers.keys import list_keys
from producers.keys_shown import keys_document
from producers.schedules_shown import document, when
from promptmill.settings import Settings

KEEP_S = 5.0
_TIMES = 10
"""What took long to ask is kept for so many times as long: a Redis that hangs holds up no look after the first."""


@dataclass(slots=True)
class Beside:
    """What was seen of them last."""

    settings: Settings
    monotonic: Callable[[], float] = time.monotonic
    _kept: dict[str, tuple[float, Any]] = field(default_factory=dict)

    def keys(self) -> dict[str, Any]:
        """What `promptmill keys --json` prints."""
        found: dict[str, Any] = self._of("keys", lambda: keys_document(list_keys(settings=self.settings)))
        return found

    def schedules(self) -> list[dict[str, Any]]:
        """What `promptmill schedule list --json` prints, with the timetable in words.

        Raises:
            Unavailable: the database does not answer.
        """
        found: list[dict[str, Any]] = self._of("schedules", self._look_at_schedules)
        return found

    def _look_at_schedules(self) -> list[dict[str, Any]]:
        found = schedules.overview(settings=self.settings)
        return [{**document(each), "when": when(each.row)} for each in found]

    def _of(self, what: str, look: Callable[[], Any]) -> Any:
        began = self.monotonic()
        until, found = self._kept.get(what, (float("-inf"), None))
        if began >= until:
            found = look()
            ended = self.monotonic()
            self._kept[what] = (max(began + KEEP_S, ended + _TIMES * (ended - began)), found)
        return found
