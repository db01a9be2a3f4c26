"""The ring: which keys of this process may be used now, and why the others may not.

A Key belongs to an account (an Anthropic organization or workspace), and limits belong to the account: a second key of
one account raises no limit, it takes over when the first is refused; a second account adds its limits. The ring remembers
which key was refused for what, where a key whose secret was replaced counts as a new one, and which account rests at a
spend limit. It belongs to one thread, the worker's loop.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from promptmill.claude.keys.key import Key
from promptmill.claude.keys.standing import Calls, KeyStanding, KeyState, Missing
from promptmill.errors import NoUsableKey

PROBE_EVERY = timedelta(minutes=10)
"""How often an account that rests without a date is asked again, by one call."""
PROBE_PATIENCE = timedelta(minutes=2)
"""How long the others wait for what such a call says."""

_TYPE = re.compile(r"^(\d{3}) \w+: ")
_LONGEST_BRIEF = 80


@dataclass(frozen=True, slots=True)
class Rest:
    """An account that no call succeeds with: when the refused call was sent, until when where known, and why."""

    since: datetime
    until: datetime | None
    why: str

    def __str__(self) -> str:
        until = f" until {self.until:%Y-%m-%d %H:%M} UTC" if self.until else ""
        return f"its account rests{until}: {self.why}"


@dataclass(frozen=True, slots=True)
class _Refusal:
    """What the API said, and when the call was sent that it said it to."""

    why: str
    at: datetime | None


class KeyRing:
    """The keys of this process, in order of preference.

    Attributes:
        on_refused: hears of each key that the API refused for everything.
        on_held_in_vain: hears that something was paused for want of a key, and that there is one meanwhile.
        expecting: whether a key is about to come, so that nothing need be paused for want of one.
        why_not_followed: why there is no new token in the place of one that ended, where that is known.
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        self.on_refused: Callable[[Key], None] = lambda _key: None
        self.on_held_in_vain: Callable[[], None] = lambda: None
        self.expecting: Callable[[], bool] = lambda: False
        self.why_not_followed: Callable[[Key], str | None] = lambda _key: None
        self._keys = tuple(keys)
        self._missing: tuple[Missing, ...] = ()
        self._retired: dict[tuple[Key, str | None], _Refusal] = {}
        self._calls: dict[tuple[str, str], Calls] = {}
        self._resting: dict[str, Rest] = {}
        self._asked: dict[str, datetime] = {}
        self._went_on: datetime | None = None

    def pick(self, group: str) -> Key:
        """The first key that is not refused, for everything or for this model group.

        Raises:
            NoUsableKey: there is none; the message says why each was retired, by label.
        """
        return self.usable(group)[0]

    def usable(self, group: str, *, now: datetime | None = None) -> tuple[Key, ...]:
        """The first key of every account that is neither refused, at its end nor at rest, in order of preference; at least one.

        `now` ends the rests whose time is over, and the keys.

        Raises:
            NoUsableKey: there is none; the message says why each is out, by label.
        """
        if now is not None:
            self._wake(lambda _name, rest: rest.until is not None and rest.until <= now)
        first: dict[str, Key] = {}
        for key in self._keys:
            if self._why_not(key, group, now) is None:
                first.setdefault(key.account, key)
        if first:
            return tuple(first.values())
        raise self._none_left(group, now)

    def still_fits(self, key: Key, group: str, now: datetime | None) -> bool:
        """Whether a key of `usable` or `probe` is still one; in the usual case no more than a few looks."""
        if key not in self._keys or self._unfit(key, group, now) is not None:
            return False
        return key.account not in self._resting or key.account in self._asked

    def probe(self, group: str, now: datetime) -> Key | None:
        """A key of an account that rests without a date and was not asked for long; to be called with once.

        Where another account carries on nothing is paused, so no resume would ever tell that the limit was raised.
        """
        for key in self._keys:
            rest = self._resting.get(key.account)
            if rest is None or rest.until is not None or self._unfit(key, group, now):
                continue
            if now - max(rest.since, self._asked.get(key.account, rest.since)) >= PROBE_EVERY:
                self._asked[key.account] = now
                return key
        return None

    def answered(self, account: str, sent_at: datetime) -> None:
        """A call was answered; if it was sent to find out whether the account still rests, it does not."""
        asked = self._asked.get(account)
        if asked is not None and sent_at >= asked:
            self._wake(lambda name, _rest: name == account)

    def called(self, key: Key, at: datetime) -> None:
        """A call with it begins."""
        calls = self._calls.get((key.account, key.label))
        if calls is None:
            calls = self._calls[key.account, key.label] = Calls(at)
        calls.add(at)

    def retire(self, key: Key, group: str | None, why: str, at: datetime | None = None) -> bool:
        """Do not pick `key` again, for one model group or (None) at all; False when it is not among the keys any more.

        `why` is shown to people, `at` is when the call was sent that was refused.
        """
        if group is None:
            self.on_refused(key)
        if key not in self._keys:
            return False
        self._retired[key, group] = _Refusal(why, at)
        return True

    def forgive(self, at: datetime) -> None:
        """A person let a batch go on: what was refused before that may be in order now, and is tried again."""
        if self._retired:
            self._retired = {
                place: refusal
                for place, refusal in self._retired.items()
                if refusal.at is None or refusal.at > at
            }

    def rest(self, account: str, rest: Rest) -> None:
        """Do not pick a key of this account before its spend limit lifts.

        A call that was sent before somebody went on, and refused after it, proves nothing.
        """
        known = self._resting.get(account)
        if self._went_on is not None and rest.since <= self._went_on:
            return
        if known is None or known.since <= rest.since:
            self._resting[account] = rest
            if self._asked.get(account, rest.since) <= rest.since:
                self._asked.pop(account, None)

    @property
    def at_rest(self) -> frozenset[str]:
        """The accounts that rest."""
        return frozenset(self._resting)

    def resumed(self, at: datetime) -> None:
        """A person let a batch go on, or its time came: rests that began before that prove nothing any more."""
        self._went_on = max(at, self._went_on or at)
        self._wake(lambda _name, rest: rest.since <= at)

    def refresh(self, keys: Iterable[Key], missing: Iterable[Missing] | None = None) -> None:
        """Replace the keys, and unless None those that cannot be had; what was refused stays so while its secret is the same."""
        self._keys = tuple(keys)
        self._missing = self._missing if missing is None else tuple(missing)
        if self._retired:
            self._retired = {place: why for place, why in self._retired.items() if place[0] in self._keys}

    def states(self, now: datetime) -> list[KeyState]:
        """How every key stands, in order of preference; what is declared and cannot be had stands last."""
        known = [self._state(key, now) for key in self._keys]
        return known + [
            KeyState(
                label=each.label,
                account=each.account,
                kind=each.kind,
                standing=KeyStanding.MISSING,
                why=each.why,
            )
            for each in self._missing
        ]

    def _state(self, key: Key, now: datetime) -> KeyState:
        calls = self._calls.get((key.account, key.label))
        standing, why, until = self._standing(key, now)
        return KeyState(
            label=key.label,
            account=key.account,
            kind=key.kind,
            standing=standing,
            why=why,
            until=until,
            refused_for={
                group: refusal.why for (of, group), refusal in self._retired.items() if of == key and group
            },
            expires_at=key.expires_at,
            used_at=calls.last if calls else None,
            calls=calls.lately(now) if calls else 0,
        )

    def _standing(self, key: Key, now: datetime) -> tuple[KeyStanding, str | None, datetime | None]:
        if (refusal := self._retired.get((key, None))) is not None:
            return KeyStanding.REFUSED, refusal.why, None
        if (ended := _ended(key, now)) is not None:
            why = self.why_not_followed(key)
            return KeyStanding.EXPIRED, f"{ended}; {why}" if why else ended, None
        rest = self._resting.get(key.account)
        if rest is not None and (rest.until is None or rest.until > now):
            return KeyStanding.RESTING, rest.why, rest.until
        return KeyStanding.USABLE, None, None

    def _wake(self, over: Callable[[str, Rest], bool]) -> None:
        if self._resting:
            self._resting = {name: rest for name, rest in self._resting.items() if not over(name, rest)}
            self._asked = {name: at for name, at in self._asked.items() if name in self._resting}

    def _none_left(self, group: str, now: datetime | None) -> NoUsableKey:
        if not self._keys and not self._missing:
            return NoUsableKey("no key: set ANTHROPIC_API_KEY", brief="no key is set")
        reasons = "; ".join(
            [f"{key.label}: {self._why_not(key, group, now)}" for key in self._keys]
            + [f"{each.label}: {each.why}" for each in self._missing]
        )
        names = {key.account for key in self._keys if self._only_rests(key, group, now)}
        resting = [self._resting[name] for name in names]
        asked = (self._asked[name] for name in names if name in self._asked)
        return NoUsableKey(
            f"no usable key for {group} ({reasons})",
            brief=_brief_rest(resting) if resting else self._brief_refusal(group, now),
            resting=bool(resting),
            everywhere=all(
                (key, None) in self._retired or _ended(key, now) or key.account in self._resting
                for key in self._keys
            ),
            until=min((rest.until for rest in resting if rest.until is not None), default=None),
            since=min((rest.since for rest in resting), default=None),
            asking=now is not None and any(now < at + PROBE_PATIENCE for at in asked),
            expecting=self.expecting(),
        )

    def _brief_refusal(self, group: str, now: datetime | None) -> str:
        others = len(self._keys) + len(self._missing) - 1
        more = f", and {others} more" if others else ""
        if not self._keys:
            return f"key {self._missing[0].label} cannot be had ({_shortened(self._missing[0].why)}){more}"
        first = self._keys[0]
        refusal = self._refused(first, group)
        if refusal is None:
            return f"key {first.label} {_ended(first, now)}{more}"
        return f"key {first.label} was refused ({_shortened(refusal)}){more}"

    def _only_rests(self, key: Key, group: str, now: datetime | None) -> bool:
        return key.account in self._resting and not self._unfit(key, group, now)

    def _why_not(self, key: Key, group: str, now: datetime | None) -> str | None:
        unfit = self._unfit(key, group, now)
        if unfit is not None:
            return unfit
        rest = self._resting.get(key.account)
        return None if rest is None else str(rest)

    def _unfit(self, key: Key, group: str, now: datetime | None) -> str | None:
        """Why the key itself cannot make the call, whatever its account."""
        return (self._refused(key, group) if self._retired else None) or _ended(key, now)

    def _refused(self, key: Key, group: str) -> str | None:
        refusal = self._retired.get((key, None)) or self._retired.get((key, group))
        return None if refusal is None else refusal.why


def _ended(key: Key, now: datetime | None) -> str | None:
    if key.use_until is None or key.expires_at is None or now is None or now < key.use_until:
        return None
    ends = "ended" if now >= key.expires_at else "ends"
    return f"{ends} {key.expires_at:%Y-%m-%d %H:%M:%S} UTC"


def _brief_rest(resting: Sequence[Rest]) -> str:
    """Without a date it may be something else than a limit, such as credit or a hold: the API's own words say it."""
    until = min((rest.until for rest in resting if rest.until is not None), default=None)
    if until is None:
        return f"the account cannot call ({_shortened(resting[0].why)})"
    return f"spend limit reached; goes on {until:%Y-%m-%d %H:%M} UTC"


def _shortened(why: str) -> str:
    """Status and first words of a refusal, without the name of its type: `401 invalid x-api-key`."""
    said = _TYPE.sub(r"\1 ", why)
    return said if len(said) <= _LONGEST_BRIEF else f"{said[: _LONGEST_BRIEF - 1]}…"
