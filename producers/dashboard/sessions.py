"""People who are signed in. In memory: a restart of the page signs everybody out.

The one idea: a browser holds a random name of its session in a cookie, and a second random word, the guard, where only
our own pages can read it. A strange site may have the browser send the first, and another server of the same host is sent
it too, because cookies know no ports; neither ever learns the second.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

LASTS_S = 12 * 3600.0
MOST = 200
"""Sessions at once; the oldest ends for a new one."""


@dataclass(frozen=True, slots=True)
class Session:
    """One person in one browser."""

    guard_hash: str = field(repr=False)
    ends_at: float

    def is_guard(self, offered: str | None) -> bool:
        """Whether it is what every action must bring along."""
        return offered is not None and hmac.compare_digest(_hash(offered), self.guard_hash)


@dataclass(slots=True)
class Sessions:
    """Kept by the hash of their names, so that nothing in memory lets anybody in."""

    _kept: dict[str, Session] = field(default_factory=dict, repr=False)

    def begin(self, now: float) -> tuple[str, str]:
        """The name of a new session, and its guard, which is told this once; `now` is a monotonic time in seconds."""
        self._kept = {name: each for name, each in self._kept.items() if each.ends_at > now}
        while len(self._kept) >= MOST:
            self._kept.pop(next(iter(self._kept)))
        name, guard = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self._kept[_hash(name)] = Session(_hash(guard), now + LASTS_S)
        return name, guard

    def find(self, name: str | None, now: float) -> Session | None:
        """The session of that name; None where there is none, or it is over."""
        found = self._kept.get(_hash(name)) if name else None
        return found if found and found.ends_at > now else None

    def end(self, name: str | None) -> None:
        """Sign out."""
        if name:
            self._kept.pop(_hash(name), None)


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
