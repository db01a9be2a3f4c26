"""Short-lived tokens: fetched from a command or a function, anew before they end.

The idea: fetching blocks and may fail or hang, so it happens on a thread of its own, one at a time for each source, and
what is known stays in use while it lives. What a command prints goes nowhere but into the token; of what it says when it
fails nothing is kept, because that may be the token too.
"""

import asyncio
import contextlib
import importlib
import inspect
import json
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic import SecretStr

from promptmill.claude.keys.key import Key, as_secret
from promptmill.claude.keys.sources import KEYS_SETTING, KeySource
from promptmill.clock import Clock
from promptmill.errors import ConfigurationError, PromptmillError, Unavailable

MOST_BYTES: Final = 65_536
"""Of what a command may print; a token is a few kilobytes at most."""
END_S: Final = 1.0
"""How long a command may take to be gone once it is killed."""
AHEAD: Final = timedelta(minutes=2)
"""A token is fetched anew so long before it ends, or when two thirds of its life are over if that is later."""
SOONEST_S: Final = 1.0
"""Between two fetches that went well."""
AFTER_FAILURE_S: Final = 5.0
"""From a fetch that failed, or a token that was refused, to the next; doubled each time, up to LONGEST_S."""
LONGEST_S: Final = 300.0

_EXPIRY = ("expires_at", "expires_in")
_NAMES = ("token", "access_token")


@dataclass(frozen=True, slots=True)
class Token:
    """What was fetched; `expires_at` is None where nobody said."""

    secret: SecretStr
    expires_at: datetime | None


def fetch_token(source: KeySource, clock: Clock) -> Token:
    """Run the command, or call the function, of a source. Blocks up to its `timeout_s` (a function may take longer).

    Raises:
        Unavailable: it failed, was too slow, or said nothing of use; the message holds nothing it said.
    """
    asked_at = clock.now()
    try:
        said = _run(source) if source.command else _call(source)
        token = _read(said, asked_at)
    except Unavailable:
        raise
    except BaseException as error:  # noqa: BLE001  # what somebody else wrote may raise what it likes, and even ask to exit
        why = str(error) if isinstance(error, PromptmillError) else type(error).__name__
    else:
        if token.expires_at is not None and token.expires_at <= clock.now():
            raise Unavailable("the token it gave has ended already")
        return token
    # Outside the handler: what was caught may hold the token.
    raise Unavailable(f"the {source.kind} failed ({why})")


@dataclass(slots=True)
class TokenKeeper:
    """The token of one source, and when it is fetched next. It fetches nothing itself, and belongs to one thread.

    Attributes:
        key: what is used now; None before the first.
        why: why the last fetch failed; None when it went well.
    """

    source: KeySource
    clock: Clock
    key: Key | None = None
    why: str | None = None
    _due_at: datetime | None = None
    _asked_at: datetime | None = None
    _obtained_at: datetime | None = None
    _failures: int = 0
    _refusals: int = 0

    @property
    def is_due(self) -> bool:
        """Whether to fetch now: its time has come, and no fetch is on its way."""
        return self._asked_at is None and (self._due_at is None or self.clock.now() >= self._due_at)

    @property
    def is_awaited(self) -> bool:
        """Whether a token is on its way, or will be at once, and nothing has failed, so that it is worth waiting for."""
        return not self._failures and (self.is_due or self._asked_at is not None)

    @property
    def why_missing(self) -> str:
        """For people, while there is no key."""
        return self.why or f"the {self.source.kind} has not answered yet"

    def asked(self) -> None:
        """A fetch is on its way; `took` or `failed` follows."""
        self._asked_at = self.clock.now()

    def took(self, token: Token) -> None:
        """A fetch went well."""
        now = self.clock.now()
        if self.key is None or token.secret != self.key.secret:
            self._obtained_at = now
        if token.expires_at is None:
            self._due_at = now + timedelta(seconds=self.source.refresh_s)
        else:
            ahead = min(AHEAD, (token.expires_at - now) / 3)
            self._due_at = max(token.expires_at - ahead, now + timedelta(seconds=SOONEST_S))
        self.key = self.source.key_of(token.secret, token.expires_at, self._obtained_at)
        self.why = self._asked_at = None
        self._failures = 0

    def failed(self, why: str) -> None:
        """A fetch failed, or was given up; what is known stays in use while it lives."""
        self.why, self._asked_at = why, None
        self._due_at = self._after(self._failures)
        self._failures += 1

    def refused(self, key: Key) -> None:
        """The API refused it: if it is still the one in use, another is fetched; at once unless it was fresh."""
        if key != self.key or self._obtained_at is None:
            return
        lived = (self.clock.now() - self._obtained_at).total_seconds()
        if lived > AFTER_FAILURE_S:
            self._refusals = 0
            self._due_at = self.clock.now()
        else:
            self._due_at = self._after(self._refusals)
            self._refusals += 1
        self.key, self.why = None, "the last one was refused"

    def _after(self, in_vain: int) -> datetime:
        return self.clock.now() + timedelta(seconds=min(AFTER_FAILURE_S * 2 ** min(in_vain, 10), LONGEST_S))


def _run(source: KeySource) -> bytes:
    """What the command prints, of which nothing is left when it is over: it is ended with all it started."""
    deadline = time.monotonic() + source.timeout_s
    process = subprocess.Popen(  # noqa: S603  # the person who wrote the keys file chose it; no shell
        source.command,
        cwd=source.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        said = _read_until(process, deadline)
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise Unavailable(f"the command took longer than {source.timeout_s:g} s") from None
    finally:
        _end(process)
    if process.returncode:
        raise Unavailable(f"the command ended with status {process.returncode}")
    return said


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill it and its children, and wait, though not for long: one that took another user's rights cannot be killed."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.stdout is not None:
        process.stdout.close()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        # So that no zombie stays when it ends some day.
        threading.Thread(target=process.wait, name="promptmill-keys-left", daemon=True).start()


def _read_until(process: "subprocess.Popen[bytes]", deadline: float) -> bytes:
    """All that is printed by the deadline; bounded, because it may be endless."""
    assert process.stdout is not None  # noqa: S101  # for the type checker: it is a pipe
    said = bytearray()
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        while ready.select(max(0.0, deadline - time.monotonic())):
            piece = os.read(process.stdout.fileno(), MOST_BYTES)
            said += piece
            if len(said) > MOST_BYTES:
                raise Unavailable("the command printed far more than a token")
            if not piece:
                return bytes(said)
    raise subprocess.TimeoutExpired(process.args, 0)


def _call(source: KeySource) -> object:
    module, _, name = source.provider.partition(":")
    function = getattr(importlib.import_module(module), name)
    forcing = "force_refresh" in inspect.signature(function).parameters
    answer = function(force_refresh=True) if forcing else function()
    return asyncio.run(_awaited(answer)) if inspect.isawaitable(answer) else answer


async def _awaited(answer: Any) -> object:
    return await answer


def _read(said: object, asked_at: datetime) -> Token:
    """A bare token, or a token with its end, as JSON or as an object with the fields of Anthropic's SDK."""
    if isinstance(said, bytes):
        said = _parsed(said.decode("utf-8", "replace").strip())
    if isinstance(said, str):
        return Token(as_secret(said, KEYS_SETTING, "what it gave"), None)
    facts = said if isinstance(said, Mapping) else {n: getattr(said, n, None) for n in (*_NAMES, *_EXPIRY)}
    text = next((facts[name] for name in _NAMES if facts.get(name)), None)
    if not isinstance(text, str):
        raise ConfigurationError("it gave no token", setting=KEYS_SETTING)
    return Token(as_secret(text, KEYS_SETTING, "what it gave"), _expiry(facts, asked_at))


def _parsed(text: str) -> object:
    return json.loads(text) if text.startswith("{") else text


def _expiry(facts: Mapping[str, Any], asked_at: datetime) -> datetime | None:
    """Absolute (a date of RFC 3339, or seconds of the epoch), or in seconds from when it was asked for.

    Raises:
        ConfigurationError: it is neither; a token whose end is not understood would be used beyond it.
    """
    at, within = (facts.get(name) for name in _EXPIRY)
    if within is not None:
        seconds = _number(within)
        if seconds is None:
            raise _not_understood("expires_in", "a number of seconds")
        return asked_at + timedelta(seconds=seconds)
    if at is None:
        return None
    seconds = _number(at)
    return _date(at) if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _date(at: object) -> datetime:
    try:
        moment = at if isinstance(at, datetime) else datetime.fromisoformat(str(at))
    except ValueError:
        moment = None
    if moment is None:
        raise _not_understood("expires_at", "a date of RFC 3339, or seconds of the epoch")
    if moment.tzinfo is None:
        raise _not_understood("expires_at", "a date with a zone, like 2026-12-01T00:00:00Z")
    return moment.astimezone(UTC)


def _number(value: object) -> float | None:
    """A number, or one in digits: shells print those."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return float(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _not_understood(name: str, wanted: str) -> ConfigurationError:
    return ConfigurationError(f"{name} of what it gave is not {wanted}", setting=KEYS_SETTING)
