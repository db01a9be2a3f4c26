"""Where keys come from: a variable, a file, the TOML file of several keys, a command, a function.

The idea: what is declared (`KeySource`) is apart from what is read or fetched (`Key`), so that the accounts of a
deployment can be named without running anything.

    [[key]]
    label = "main"
    file = "anthropic-main.key"          # or key = "sk-ant-…", or command = […], or provider = "module:function"
    account = "research"
    expires = 2026-12-01T00:00:00Z
"""

import difflib
import os
import stat
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from promptmill.claude.keys.key import DEFAULT, Header, Key, SourceKind, as_secret, header_for, last_use
from promptmill.errors import ConfigurationError

KEYS_SETTING: Final = "PROMPTMILL_KEYS_FILE"
KEY_SETTING: Final = "ANTHROPIC_API_KEY"
TIMEOUT_S: Final = 10.0
REFRESH_S: Final = 300.0

_PLACES = {
    "key": SourceKind.KEYS_FILE,
    "file": SourceKind.FILE,
    "command": SourceKind.COMMAND,
    "provider": SourceKind.PROVIDER,
}
_SHOWN = {"label", "account"}
_FETCHING = {"timeout_s", "refresh_s"}
_FIELDS = {"label", "account", "header", "expires", *_PLACES, *_FETCHING}
_ALIKE = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySource:
    """One key as it was declared.

    Attributes:
        setting: what a person must look at when it is wrong.
        secret: of a key that stands in the variable or the keys file itself.
        path: of the file that holds nothing but the key.
        command: what prints a token, and its arguments; run without a shell in `folder`.
        provider: `module:function`, which returns a token.
        header: how it travels; None goes by what it looks like.
        expires_at: when a person says it ends.
        timeout_s: how long a command or function may take.
        refresh_s: after how long a token is fetched anew that does not say when it ends.
    """

    label: str
    account: str
    kind: SourceKind
    setting: str = KEYS_SETTING
    secret: SecretStr | None = None
    path: Path | None = None
    folder: Path | None = None
    command: tuple[str, ...] = ()
    provider: str = ""
    header: Header | None = None
    expires_at: datetime | None = None
    timeout_s: float = TIMEOUT_S
    refresh_s: float = REFRESH_S

    @property
    def what(self) -> str:
        """It, in a sentence for people."""
        return "the key" if self.setting.startswith(KEY_SETTING) else f"key {self.label}"

    def read(self) -> Key:
        """The key of a source that is not fetched, as its variable or file holds it now.

        Raises:
            ConfigurationError: it cannot be read, or is no key.
        """
        text = self.secret.get_secret_value() if self.secret else _read_text(self)
        return self.key_of(as_secret(text, self.setting, self.what), self.expires_at)

    def key_of(
        self, secret: SecretStr, expires_at: datetime | None, obtained_at: datetime | None = None
    ) -> Key:
        """A key of this source."""
        return Key(
            self.label,
            secret,
            self.account,
            self.header or header_for(secret, self.kind),
            expires_at,
            last_use(expires_at, obtained_at),
            self.kind,
        )


def declared_keys(
    api_key: SecretStr | None = None, keys_file: Path | None = None, *, api_key_file: Path | None = None
) -> tuple[KeySource, ...]:
    """The keys that the settings name, in order of preference: the simple form first, then those of the file.

    Nothing is fetched, and of the files that hold one key each none is read.

    Raises:
        ConfigurationError: the file of keys is wrong; names the setting and the label, never a value.
    """
    sources = [*_simple(api_key, api_key_file)]
    if keys_file is not None:
        sources.extend(_from_file(keys_file))
    labels = [source.label for source in sources]
    for label in labels:
        if labels.count(label) > 1:
            raise _wrong(f"two keys are labelled {label} ({keys_file})")
    return tuple(sources)


def load_keys(
    api_key: SecretStr | None = None, keys_file: Path | None = None, *, api_key_file: Path | None = None
) -> tuple[Key, ...]:
    """The keys that need not be fetched, read now.

    Raises:
        ConfigurationError: a key or the file is wrong; names the setting and the label, never a value.
    """
    declared = declared_keys(api_key, keys_file, api_key_file=api_key_file)
    return tuple(source.read() for source in declared if not source.kind.is_fetched)


def _simple(api_key: SecretStr | None, path: Path | None) -> Iterable[KeySource]:
    if api_key is not None and api_key.get_secret_value().strip():
        yield KeySource(
            label=DEFAULT, account=DEFAULT, kind=SourceKind.VARIABLE, setting=KEY_SETTING, secret=api_key
        )
    elif api_key is None and path is not None:
        setting = KEY_SETTING + "_FILE"
        yield KeySource(label=DEFAULT, account=DEFAULT, kind=SourceKind.FILE, setting=setting, path=path)


def _from_file(path: Path) -> Iterable[KeySource]:
    told, others = _toml(path)
    entries = told.get("key")
    if not isinstance(entries, list) or not entries:
        raise _wrong(f"{path} has no [[key]] table")
    sources = [_source(entry, place, path) for place, entry in enumerate(entries, 1)]
    if others is not None and any(source.kind.is_fetched for source in sources):
        raise _wrong(f"{others}, so its commands and functions are not run")
    return sources


def _toml(path: Path) -> tuple[dict[str, Any], str | None]:
    """What the file says, and why somebody else may have written it; None where nobody could."""
    try:
        with path.open("rb") as file:
            others = _who_else_writes(path, file.fileno())
            return tomllib.loads(file.read().decode()), others
    except (OSError, ValueError) as error:
        why = str(error) if isinstance(error, tomllib.TOMLDecodeError) else type(error).__name__
    # Outside the handler: the caught exception holds the text of the file.
    raise _wrong(f"{path} cannot be read ({why})")


def _who_else_writes(path: Path, opened: int) -> str | None:
    """Of the file as it was opened, and its folder, where it could be put in another's place.

    Raises:
        OSError: the folder cannot be looked at.
    """
    if os.fstatvfs(opened).f_flag & os.ST_RDONLY:
        return None  # a secret of a container: its owner is somebody outside
    found = os.fstat(opened)
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write {path} (chmod go-w {path})"
    if found.st_uid not in (os.geteuid(), 0):
        return f"{path} belongs to another user"
    for folder in {path.parent, path.resolve().parent}:
        mode = folder.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return f"anybody may replace {path} (chmod o-w {folder})"
    return None


def _source(entry: object, place: int, file: Path) -> KeySource:
    what = f"key {place} in {file}"
    if not isinstance(entry, Mapping):
        raise _wrong(f"{what} is not a table")
    label = _text(entry, "label", what, DEFAULT)
    if "label" in entry:
        what = f"key {label} in {file}"
    if strange := sorted(set(entry) - _FIELDS):
        raise _wrong(f"{what} has no field {strange[0]}{_meant(strange[0])}")
    given = [name for name in _PLACES if name in entry]
    if len(given) != 1:
        raise _wrong(f"{what} has label, account, and one of key, file, command and provider")
    kind = _PLACES[given[0]]
    if not kind.is_fetched and (idle := sorted(_FETCHING.intersection(entry))):
        raise _wrong(f"{what} has no field {idle[0]}: it is not fetched")
    return KeySource(
        label=label,
        account=_text(entry, "account", what, DEFAULT),
        kind=kind,
        folder=file.parent,
        header=_header(entry, what),
        expires_at=_moment(entry, what),
        timeout_s=_seconds(entry, "timeout_s", what, TIMEOUT_S),
        refresh_s=_seconds(entry, "refresh_s", what, REFRESH_S),
        **_AT[kind](entry, what, file.parent),
    )


def _meant(field: str) -> str:
    near = difflib.get_close_matches(field, sorted(_FIELDS), n=1, cutoff=_ALIKE)
    return f"; did you mean {near[0]}?" if near else ""


def _inline(entry: Mapping[str, Any], what: str, _folder: Path) -> dict[str, Any]:
    return {"secret": as_secret(_text(entry, "key", what), KEYS_SETTING, what)}


def _in_file(entry: Mapping[str, Any], what: str, folder: Path) -> dict[str, Any]:
    return {"path": folder / _text(entry, "file", what)}


def _by_command(entry: Mapping[str, Any], what: str, _folder: Path) -> dict[str, Any]:
    command = entry["command"]
    if not isinstance(command, list) or not command or any(not isinstance(each, str) for each in command):
        raise _wrong(f'the command of {what} is a list of texts, like ["vault", "read", "..."]; no shell')
    return {"command": tuple(command)}


def _by_provider(entry: Mapping[str, Any], what: str, _folder: Path) -> dict[str, Any]:
    provider = _text(entry, "provider", what)
    module, _, function = provider.partition(":")
    if not function.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise _wrong(f'the provider of {what} is written "module:function"')
    return {"provider": provider}


_AT: Mapping[SourceKind, Callable[[Mapping[str, Any], str, Path], dict[str, Any]]] = {
    SourceKind.KEYS_FILE: _inline,
    SourceKind.FILE: _in_file,
    SourceKind.COMMAND: _by_command,
    SourceKind.PROVIDER: _by_provider,
}


def _text(entry: Mapping[str, Any], name: str, what: str, default: str | None = None) -> str:
    value = entry.get(name, default)
    if not isinstance(value, str) or not value:
        raise _wrong(f"{name} of {what} is a text")
    if name in _SHOWN and not value.isprintable():
        raise _wrong(f"{name} of {what} is a text of one line")
    return value


def _header(entry: Mapping[str, Any], what: str) -> Header | None:
    if "header" not in entry:
        return None
    try:
        return Header(entry["header"])
    except ValueError:
        pass
    raise _wrong(f"header of {what} is one of: {', '.join(Header)}")


def _moment(entry: Mapping[str, Any], what: str) -> datetime | None:
    moment = entry.get("expires")
    if moment is None:
        return None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise _wrong(f"expires of {what} is written without quotes and with a zone: 2026-12-01T00:00:00Z")
    return moment.astimezone(UTC)


def _seconds(entry: Mapping[str, Any], name: str, what: str, default: float) -> float:
    value = entry.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise _wrong(f"{name} of {what} is a number of seconds above 0")
    return float(value)


def _read_text(source: KeySource) -> str:
    path = source.path or Path()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = type(error).__name__
    if source.setting != KEYS_SETTING:
        raise ConfigurationError(f"{source.setting}: {path} cannot be read ({why})", setting=source.setting)
    raise _wrong(f"the file of {source.what} cannot be read ({why}: {path})")


def _wrong(why: str) -> ConfigurationError:
    return ConfigurationError(f"{KEYS_SETTING}: {why}", setting=KEYS_SETTING)
