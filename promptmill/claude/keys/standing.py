"""How a key stands, for people and for other processes; never its value."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

LATELY = timedelta(minutes=5)
"""Over which calls are counted for people."""


class KeyStanding(StrEnum):
    """Whether a key may be used."""

    USABLE = "usable"
    REFUSED = "refused"
    RESTING = "resting"
    EXPIRED = "expired"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyState:
    """A key as one process sees it.

    Attributes:
        kind: where it comes from.
        why: why it may not be used; None where it may.
        until: until when it may not, where that is known.
        refused_for: model groups it may not be used for, and why.
        used_at: when this process called with it last.
        calls: how many calls began with it within `LATELY`, to a minute.
    """

    label: str
    account: str
    kind: str
    standing: KeyStanding
    why: str | None = None
    until: datetime | None = None
    refused_for: Mapping[str, str] = field(default_factory=dict)
    expires_at: datetime | None = None
    used_at: datetime | None = None
    calls: int = 0


@dataclass(frozen=True, slots=True)
class Missing:
    """A key that is declared and cannot be had just now; `why` says it to people, without label or value."""

    label: str
    account: str
    kind: str
    why: str


@dataclass(slots=True)
class Calls:
    """The calls with one key, by the minute."""

    last: datetime
    _minutes: deque[list[int]] = field(default_factory=deque)

    def add(self, at: datetime) -> None:
        """A call begins."""
        self.last, minute = at, _minute(at)
        if self._minutes and self._minutes[-1][0] == minute:
            self._minutes[-1][1] += 1
        else:
            self._minutes.append([minute, 1])

    def lately(self, now: datetime) -> int:
        """How many began within `LATELY`."""
        oldest = _minute(now - LATELY)
        while self._minutes and self._minutes[0][0] <= oldest:
            self._minutes.popleft()
        return sum(count for _, count in self._minutes)


def _minute(at: datetime) -> int:
    return int(at.timestamp() // 60)
