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
    except Exception as error:  # noqa: BLE001  # a function of somebody else's may raise what it likes
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
    _in_vain: int = 0

    @property
    def is_due(self) -> bool:
        """Whether to fetch now: its time has come, and no fetch is on its way."""
        return self._asked_at is None and (self._due_at is None or self.clock.now() >= self._due_at)

    @property
    def is_awaited(self) -> bool:
        """Whether a token is on its way, or will be at once, so that it is worth waiting for."""
        return self.is_due or (self._asked_at is not None and not self._is_overdue)

    @property
    def why_missing(self) -> str:
        """For people, while there is no key."""
        if self._is_overdue:
            return f"the {self.source.kind} has not answered within {self.source.timeout_s:g} s"
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

    def failed(self, why: str) -> None:
        """A fetch failed; what is known stays in use while it lives."""
        self.why, self._asked_at = why, None
        self._due_at = self._later()

    def refused(self, key: Key) -> None:
        """The API refused it: if it is still the one in use, another is fetched; at once unless it was fresh."""
        if key != self.key or self._obtained_at is None:
            return
        lived = (self.clock.now() - self._obtained_at).total_seconds()
        if lived > AFTER_FAILURE_S:
            self._in_vain = 0
            self._due_at = self.clock.now()
        else:
            self._due_at = self._later()
        self.key, self.why = None, "the last one was refused"

    @property
    def _is_overdue(self) -> bool:
        patience = timedelta(seconds=self.source.timeout_s + SOONEST_S)
        return self._asked_at is not None and self.clock.now() > self._asked_at + patience

    def _later(self) -> datetime:
        pause = min(AFTER_FAILURE_S * 2**self._in_vain, LONGEST_S)
        self._in_vain = min(self._in_vain + 1, 10)
        return self.clock.now() + timedelta(seconds=pause)


def _run(source: KeySource) -> bytes:
    """What the command prints, of which nothing is left when it is over: it is ended with all it started."""
    deadline = time.monotonic() + source.timeout_s
    with subprocess.Popen(  # noqa: S603  # the person who wrote the keys file chose it; no shell
        source.command,
        cwd=source.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            said = _read_until(process, deadline)
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise Unavailable(f"the command took longer than {source.timeout_s:g} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise Unavailable(f"the command ended with status {process.returncode}")
    return said


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
    """Absolute (a date of RFC 3339, or seconds of the epoch), or in seconds from when it was asked for."""
    at, within = (facts.get(name) for name in _EXPIRY)
    if isinstance(within, int | float) and not isinstance(within, bool):
        return asked_at + timedelta(seconds=within)
    if at is None:
        return None
    if isinstance(at, int | float) and not isinstance(at, bool):
        return datetime.fromtimestamp(at, UTC)
    moment = at if isinstance(at, datetime) else datetime.fromisoformat(str(at))
    if moment.tzinfo is None:
        raise ConfigurationError("expires_at has no zone", setting=KEYS_SETTING)
    return moment.astimezone(UTC)
