"""People who are signed in. In memory: a restart of the page signs everybody out.

The one idea: a browser holds a random name of its session in a cookie, and a second random word in the page. A strange
site may have the browser send the first, and can never read the second.
"""

import hashlib
import secrets
from dataclasses import dataclass, field

LASTS_S = 12 * 3600.0
MOST = 200
"""Sessions at once; the oldest ends for a new one."""


@dataclass(frozen=True, slots=True)
class Session:
    """One person in one browser; `guard` is what every action must bring along."""

    guard: str = field(repr=False)
    ends_at: float


@dataclass(slots=True)
class Sessions:
    """Kept by the hash of their names, so that nothing in memory lets anybody in."""

    _kept: dict[str, Session] = field(default_factory=dict, repr=False)

    def begin(self, now: float) -> str:
        """The name of a new session; `now` is a monotonic time in seconds."""
        self._kept = {name: each for name, each in self._kept.items() if each.ends_at > now}
        while len(self._kept) >= MOST:
            self._kept.pop(next(iter(self._kept)))
        name = secrets.token_urlsafe(32)
        self._kept[_hash(name)] = Session(secrets.token_urlsafe(32), now + LASTS_S)
        return name

    def find(self, name: str | None, now: float) -> Session | None:
        """The session of that name; None where there is none, or it is over."""
        found = self._kept.get(_hash(name)) if name else None
        return found if found and found.ends_at > now else None

    def end(self, name: str | None) -> None:
        """Sign out."""
        if name:
            self._kept.pop(_hash(name), None)


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
