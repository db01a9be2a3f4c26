"""Keys, known to everybody else by their label.

A Key belongs to an account (an Anthropic organization or workspace), and limits belong to the account: a second
key of one account raises no limit, it takes over when the first is refused; a second account adds its limits. The ring remembers which key was refused for
what, where a key whose secret was replaced counts as a new one, and which account rests at a spend limit.
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from promptmill.errors import ConfigurationError, NoUsableKey

DEFAULT = "default"

PROBE_EVERY = timedelta(minutes=10)
"""How often an account that rests without a date is asked again, by one call."""
PROBE_PATIENCE = timedelta(minutes=2)
"""How long the others wait for what such a call says."""

_SETTING = "PROMPTMILL_KEYS_FILE"
_REHEARSING = "simulated/"
_TYPE = re.compile(r"^(\d{3}) \w+: ")
_LONGEST_BRIEF = 80


@dataclass(frozen=True, slots=True)
class Key:
    """One credential: `label` for people, `account` for the limiter, the secret for the request alone."""

    label: str
    secret: SecretStr
    account: str


@dataclass(frozen=True, slots=True)
class Rest:
    """An account that no call succeeds with: when the refused call was sent, until when where known, and why."""

    since: datetime
    until: datetime | None
    why: str

    def __str__(self) -> str:
        until = f" until {self.until:%Y-%m-%d %H:%M} UTC" if self.until else ""
        return f"its account rests{until}: {self.why}"


class KeyRing:
    """The keys of this process, in order of preference."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = tuple(keys)
        self._retired: dict[tuple[Key, str | None], str] = {}
        self._resting: dict[str, Rest] = {}
        self._asked: dict[str, datetime] = {}
        self._went_on: datetime | None = None

    def pick(self, group: str) -> Key:
        """The first key that is not retired, for everything or for this model group.

        Raises:
            NoUsableKey: there is none; the message says why each was retired, by label.
        """
        return self.usable(group)[0]

    def usable(self, group: str, *, now: datetime | None = None) -> tuple[Key, ...]:
        """The first key of every account that is neither retired nor at rest, in order of preference; at least one.

        `now` ends the rests whose time is over.

        Raises:
            NoUsableKey: there is none; the message says why each is out, by label.
        """
        if now is not None:
            self._wake(lambda _name, rest: rest.until is not None and rest.until <= now)
        first: dict[str, Key] = {}
        for key in self._keys:
            if self._why_not(key, group) is None:
                first.setdefault(key.account, key)
        if first:
            return tuple(first.values())
        raise self._none_left(group, now)

    def probe(self, group: str, now: datetime) -> Key | None:
        """A key of an account that rests without a date and was not asked for long; to be called with once.

        Where another account carries on nothing is paused, so no resume would ever tell that the limit was raised.
        """
        for key in self._keys:
            rest = self._resting.get(key.account)
            if rest is None or rest.until is not None or self._refused(key, group):
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

    def retire(self, key: Key, group: str | None, why: str) -> None:
        """Do not pick `key` again, for one model group or (None) at all. `why` is shown to people."""
        self._retired[key, group] = why

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

    def resumed(self, at: datetime) -> None:
        """A person let a batch go on, or its time came: rests that began before that prove nothing any more."""
        self._went_on = max(at, self._went_on or at)
        self._wake(lambda _name, rest: rest.since <= at)

    def refresh(self, keys: Iterable[Key]) -> None:
        """Replace the keys; what was refused stays refused only while its secret is the same."""
        self._keys = tuple(keys)
        self._retired = {place: why for place, why in self._retired.items() if place[0] in self._keys}

    def _wake(self, over: Callable[[str, Rest], bool]) -> None:
        if self._resting:
            self._resting = {name: rest for name, rest in self._resting.items() if not over(name, rest)}
            self._asked = {name: at for name, at in self._asked.items() if name in self._resting}

    def _none_left(self, group: str, now: datetime | None) -> NoUsableKey:
        if not self._keys:
            return NoUsableKey("no key: set ANTHROPIC_API_KEY", brief="no key is set")
        reasons = "; ".join(f"{key.label}: {self._why_not(key, group)}" for key in self._keys)
        names = {key.account for key in self._keys if self._only_rests(key, group)}
        resting = [self._resting[name] for name in names]
        asked = (self._asked[name] for name in names if name in self._asked)
        return NoUsableKey(
            f"no usable key for {group} ({reasons})",
            brief=_brief_rest(resting) if resting else self._brief_refusal(group),
            resting=bool(resting),
            everywhere=all(
                (key, None) in self._retired or key.account in self._resting for key in self._keys
            ),
            until=min((rest.until for rest in resting if rest.until is not None), default=None),
            since=min((rest.since for rest in resting), default=None),
            asking=now is not None and any(now < at + PROBE_PATIENCE for at in asked),
        )

    def _brief_refusal(self, group: str) -> str:
        first, *others = self._keys
        more = f", and {len(others)} more" if others else ""
        return f"key {first.label} was refused ({_shortened(self._refused(first, group) or '')}){more}"

    def _only_rests(self, key: Key, group: str) -> bool:
        return key.account in self._resting and not self._refused(key, group)

    def _why_not(self, key: Key, group: str) -> str | None:
        rest = self._resting.get(key.account)
        return self._refused(key, group) or (str(rest) if rest is not None else None)

    def _refused(self, key: Key, group: str) -> str | None:
        return self._retired.get((key, None)) or self._retired.get((key, group))


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


def rehearsing(account: str) -> str:
    """The name under which an account's limits are kept while a simulated Claude answers.

    What a simulator allows says nothing about the real account, and its buckets are others.
    """
    return _REHEARSING + account


def configured_account(name: str) -> str:
    """The account as a person wrote it, of a name that limits are kept under."""
    return name.removeprefix(_REHEARSING)


def load_keys(api_key: SecretStr | None = None, keys_file: Path | None = None) -> tuple[Key, ...]:
    """The keys that the settings name: the one of the simple form first, then those of the file.

    The file is TOML, one table a key; `file` is read from the file's own folder, `account` may be left out:

        [[key]]
        label = "main"
        file = "anthropic-main.key"     # or: key = "sk-ant-…"
        account = "research"

    Raises:
        ConfigurationError: a key or the file is wrong; names the setting and the label, never a value.
    """
    keys: list[Key] = []
    if api_key is not None and api_key.get_secret_value().strip():
        keys.append(
            Key(DEFAULT, _secret(api_key.get_secret_value(), "ANTHROPIC_API_KEY", "the key"), DEFAULT)
        )
    if keys_file is not None:
        keys.extend(
            _key(entry, place, keys_file.parent) for place, entry in enumerate(_entries(keys_file), 1)
        )
    labels = [key.label for key in keys]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigurationError(f"{_SETTING}: two keys are labelled {label}", setting=_SETTING)
    return tuple(keys)


def _entries(path: Path) -> list[Any]:
    entries = _toml(path).get("key")
    if not isinstance(entries, list) or not entries:
        raise ConfigurationError(f"{_SETTING}: {path} has no [[key]] table", setting=_SETTING)
    return entries


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = str(error) if isinstance(error, tomllib.TOMLDecodeError) else type(error).__name__
    # Outside the handler: the caught exception holds the text of the file.
    raise ConfigurationError(f"{_SETTING}: {path} cannot be read ({why})", setting=_SETTING)


def _key(entry: object, place: int, folder: Path) -> Key:
    if not isinstance(entry, Mapping):
        raise ConfigurationError(f"{_SETTING}: key {place} is not a table", setting=_SETTING)
    fields = {"label": DEFAULT, "account": DEFAULT} | dict(entry)
    if any(not isinstance(value, str) or not value for value in fields.values()):
        raise ConfigurationError(f"{_SETTING}: every field of key {place} is a text", setting=_SETTING)
    what = f"key {fields['label']}"
    if fields.keys() - {"label", "account", "key", "file"} or ("key" in fields) == ("file" in fields):
        raise ConfigurationError(
            f"{_SETTING}: {what} has label, account, and either key or file", setting=_SETTING
        )
    secret = fields["key"] if "key" in fields else _read_secret(folder / fields["file"], what)
    return Key(fields["label"], _secret(secret, _SETTING, what), fields["account"])


def _read_secret(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = type(error).__name__
    raise ConfigurationError(
        f"{_SETTING}: the file of {what} cannot be read ({why}: {path})", setting=_SETTING
    )


def _secret(text: str, setting: str, what: str) -> SecretStr:
    """A secret that can travel in a header: printable ASCII, no spaces."""
    text = text.strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigurationError(
            f"{setting}: {what} is empty or holds characters no key has", setting=setting
        )
    return SecretStr(text)
