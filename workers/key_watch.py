"""The keys of one worker process, kept up with what their files, commands and functions say now.

The idea: files are read anew every second and not only when they look changed, so that no way of replacing one (in place,
by a rename, by a symlink's swap) is missed; tokens are fetched before they end. All of it happens on threads of its own
and never on the loop, because a file may lie on a network and a command may hang. What cannot be read leaves what is known as it is.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

from promptmill.claude.keys import Key, KeyRing, KeySource, Missing, Token, TokenKeeper, fetch_token
from promptmill.clock import Clock
from promptmill.errors import ConfigurationError, Unavailable
from promptmill.logs import get_logger

log = get_logger(__name__)
T = TypeVar("T")

LOOK_S: Final = 1.0
READING_S: Final = 3.0
"""So long jobs wait for the reading that follows a refusal; a file may lie on a network that is away."""
GRACE_S: Final = 1.0
"""Above its own time limit, when a fetch is given up."""
MOST_LEFT: Final = 3
"""Fetches of one source that hang: its function is not called again until one of them has ended."""
FIRST_TOKENS_S: Final = 15.0
"""How long a worker's start waits for its first tokens."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the files say: the sources, None where the file of keys cannot be read; keys and faults by label."""

    sources: tuple[KeySource, ...] | None
    keys: Mapping[str, Key]
    faults: Mapping[str, str]


def read(declared: Callable[[], tuple[KeySource, ...]]) -> Reading:
    """Read everything that need not be fetched; blocks."""
    try:
        sources = declared()
    except ConfigurationError as error:
        return Reading(None, {}, {"": str(error)})
    keys: dict[str, Key] = {}
    faults: dict[str, str] = {}
    for source in sources:
        try:
            if not source.kind.is_fetched:
                keys[source.label] = source.read()
        except ConfigurationError as error:
            faults[source.label] = str(error)
    return Reading(sources, keys, faults)


@dataclass(slots=True)
class KeyWatch:
    """Keeps a ring up to date; belongs to the worker's loop.

    Args:
        ring: whose keys they are.
        declared: where they come from, asked anew each time.
        go_on: lets what was paused for want of a key go on; called when there is a new one.
        clock: says when a token ends.
    """

    ring: KeyRing
    declared: Callable[[], tuple[KeySource, ...]]
    go_on: Callable[[], Awaitable[None]]
    clock: Clock
    _sources: tuple[KeySource, ...] = ()
    _read: dict[str, Key] = field(default_factory=dict)
    _keepers: dict[KeySource, TokenKeeper] = field(default_factory=dict)
    _faults: Mapping[str, str] = field(default_factory=dict)
    _shown: Mapping[str, Key] = field(default_factory=dict)
    _is_reading: bool = False
    _owes_reading_since: float | None = None
    _under_way: dict[str, set[object]] = field(default_factory=dict)
    _owes_going_on: bool = False
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    async def start(self) -> None:
        """Read the files, and wait for the first tokens, though not for long: without one the others carry on."""
        self.ring.on_refused = self._refused
        self.ring.on_held_in_vain = self._held_in_vain
        self.ring.expecting = self._is_expecting
        self.ring.why_not_followed = self._why_not_followed
        await self._read_files()
        self._fetch_due()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=FIRST_TOKENS_S)
        # What was paused before this process began was not paused for want of these.
        self._owes_going_on = False
        self._begin(self._run())

    async def stop(self) -> None:
        """End what it does; a thread that reads or fetches is left behind."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def read_soon(self) -> None:
        """Have the files read now, for a job that has no key: by a thread, because a file may lie on a network."""
        self._wake.set()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()
            self._wake.clear()
            if not self._is_reading:
                self._begin(self._read_files())
            self._fetch_due()
            if self._owes_going_on:
                self._owes_going_on = False
                self._begin(self._go_on())

    async def _read_files(self) -> None:
        self._is_reading, owed = True, self._owes_reading_since
        try:
            self._take(await apart(partial(read, self.declared)))
            if owed == self._owes_reading_since:
                self._owes_reading_since = None
        except Exception as error:  # noqa: BLE001  # the next second may go better, and nobody else does it
            log.warning("keys_not_read", error=type(error).__name__)
        finally:
            self._is_reading = False

    def _take(self, reading: Reading) -> None:
        self._say(reading.faults)
        if reading.sources is not None:
            self._sources = reading.sources
            labels = {source.label for source in reading.sources}
            kept = {label: key for label, key in self._read.items() if label in labels}
            self._read = {**kept, **reading.keys}
            self._keepers = {
                source: self._keepers.get(source) or TokenKeeper(source, self.clock)
                for source in reading.sources
                if source.kind.is_fetched
            }
        self._show()

    def _fetch_due(self) -> None:
        for keeper in self._keepers.values():
            if keeper.is_due:
                keeper.asked()
                self._begin(self._fetch(keeper))

    async def _fetch(self, keeper: TokenKeeper) -> None:
        """Every way out of here but the end of the worker leaves the keeper with a token or a failure."""
        source = keeper.source
        try:
            async with asyncio.timeout(source.timeout_s + GRACE_S):
                token = await self._fetch_apart(source)
            keeper.took(token)
        except TimeoutError:
            self._failed(keeper, f"the {source.kind} has not answered within {source.timeout_s:g} s")
        except Unavailable as error:
            self._failed(keeper, str(error))
        except Exception as error:  # noqa: BLE001  # no thread could be started, say
            self._failed(keeper, f"the {source.kind} could not be asked ({type(error).__name__})")
        else:
            log.info("token_fetched", key=source.label, until=_text(token.expires_at))
        self._show()

    def _fetch_apart(self, source: KeySource) -> "asyncio.Future[Token]":
        under_way = self._under_way.setdefault(source.label, set())
        if len(under_way) >= MOST_LEFT:
            raise Unavailable(f"{len(under_way)} calls of the {source.kind} hang, so it is not called again")
        one: object = object()

        def fetch() -> Token:
            try:
                return fetch_token(source, self.clock)
            finally:
                under_way.discard(one)

        under_way.add(one)
        try:
            return apart(fetch)
        except RuntimeError:
            under_way.discard(one)
            raise

    def _failed(self, keeper: TokenKeeper, why: str) -> None:
        level = logging.INFO if why == keeper.why else logging.WARNING
        log.log(level, "token_not_fetched", key=keeper.source.label, why=why, in_use=keeper.key is not None)
        keeper.failed(why)

    def _show(self) -> None:
        """Tell the ring; a key where there was none to use lets go on what was paused for want of one."""
        keys = self._keys()
        self.ring.refresh(keys, self._missing())
        for key in keys:
            before = self._shown.get(key.label)
            if before is not None and (before, before.use_until) == (key, key.use_until):
                continue
            if key.kind.is_fetched and before is not None and not self._has_ended(before):
                continue  # a token has followed another in time: nothing was paused for want of it
            if before is not None and not key.kind.is_fetched:
                log.warning("key_replaced", key=key.label, until=_text(key.expires_at))
            self._owes_going_on = True
            self._wake.set()
        self._shown = {key.label: key for key in keys}

    def _has_ended(self, key: Key) -> bool:
        return key.use_until is not None and self.clock.now() >= key.use_until

    def _keys(self) -> list[Key]:
        found = (
            self._keepers[source].key if source in self._keepers else self._read.get(source.label)
            for source in self._sources
        )
        return [key for key in found if key is not None]

    def _missing(self) -> list[Missing]:
        had = {key.label for key in self._keys()}
        return [
            Missing(source.label, source.account, source.kind, self._why_missing(source))
            for source in self._sources
            if source.label not in had
        ]

    def _why_missing(self, source: KeySource) -> str:
        keeper = self._keepers.get(source)
        return keeper.why_missing if keeper else self._faults.get(source.label, "it cannot be read")

    def _say(self, faults: Mapping[str, str]) -> None:
        """Each fault once, and that it is over."""
        for label, fault in faults.items():
            if self._faults.get(label) != fault:
                log.error("keys_unreadable", why=fault, in_use="what was known before")
        for label in self._faults.keys() - faults.keys():
            log.warning("keys_readable_again", key=label or None)
        self._faults = faults

    def _is_expecting(self) -> bool:
        """A refused key may have been replaced a moment ago; a token may be on its way."""
        owed = self._owes_reading_since
        if owed is not None and time.monotonic() - owed < READING_S:
            return True
        return any(keeper.is_awaited for keeper in self._keepers.values())

    def _why_not_followed(self, key: Key) -> str | None:
        return next((keeper.why for keeper in self._keepers.values() if keeper.key is key), None)

    def _refused(self, key: Key) -> None:
        self._owes_reading_since = time.monotonic()
        for keeper in self._keepers.values():
            keeper.refused(key)
        self._show()
        self._wake.set()

    def _held_in_vain(self) -> None:
        self._owes_going_on = True
        self._wake.set()

    async def _go_on(self) -> None:
        try:
            await self.go_on()
        except Exception as error:  # noqa: BLE001  # likewise
            self._owes_going_on = True
            log.warning("batches_not_resumed", error=type(error).__name__)

    def _begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def apart(act: Callable[[], T]) -> "asyncio.Future[T]":
    """Run what may hang on a thread of its own, which no end of the process waits for."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def deliver(put: Callable[[Any], None], value: object) -> None:
        if not future.done():
            put(value)

    def run() -> None:
        try:
            told = partial(deliver, future.set_result, act())
        except BaseException as error:  # noqa: BLE001  # whoever waits is told
            # An exit that is raised on the loop would end the process, a cancellation the task that waits.
            is_fault = isinstance(error, Exception) and not isinstance(error, StopIteration)
            fault = error if is_fault else RuntimeError(type(error).__name__)
            told = partial(deliver, future.set_exception, fault)
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(told)

    threading.Thread(target=run, name="promptmill-keys", daemon=True).start()
    return future
