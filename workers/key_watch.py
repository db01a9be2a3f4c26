"""The keys of one worker process, kept up with what their files, commands and functions say now.

The idea: files are read anew every second and not only when they look changed, so that no way of replacing one (in place,
by a rename, by a symlink's swap) is missed; tokens are fetched before they end. All of it happens on threads of its own,
because a file may lie on a network and a command may hang. What cannot be read leaves what is known as it is.
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
READ_AGAIN_S: Final = 0.2
"""Between two readings on behalf of jobs that have no key."""
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
    _read_at: float = float("-inf")
    _owes_going_on: bool = False
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    async def start(self) -> None:
        """Read the files, and wait for the first tokens, though not for long: without one the others carry on."""
        self.ring.on_refused = self._refused
        self.ring.on_held_in_vain = self._held_in_vain
        self.ring.expecting = lambda: any(keeper.is_awaited for keeper in self._keepers.values())
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

    def read_now(self) -> list[Key]:
        """The keys as the files say at this moment, for a job that has none; blocks for the length of a small file."""
        if not self._is_reading and time.monotonic() - self._read_at > READ_AGAIN_S:
            self._take(read(self.declared))
        return self._keys()

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
        self._is_reading = True
        try:
            self._take(await apart(partial(read, self.declared)))
        except Exception as error:  # noqa: BLE001  # the next second may go better, and nobody else does it
            log.warning("keys_not_read", error=type(error).__name__)
        finally:
            self._is_reading = False

    def _take(self, reading: Reading) -> None:
        self._read_at = time.monotonic()
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
        label = keeper.source.label
        try:
            token: Token = await apart(partial(fetch_token, keeper.source, self.clock))
        except (Unavailable, RuntimeError) as error:  # or no thread could be started
            level = logging.INFO if str(error) == keeper.why else logging.WARNING
            log.log(level, "token_not_fetched", key=label, why=str(error), in_use=keeper.key is not None)
            keeper.failed(str(error))
        else:
            keeper.took(token)
            log.info("token_fetched", key=label, until=_text(token.expires_at))
        self._show()

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

    def _refused(self, key: Key) -> None:
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
            told = partial(deliver, future.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(told)

    threading.Thread(target=run, name="promptmill-keys", daemon=True).start()
    return future
