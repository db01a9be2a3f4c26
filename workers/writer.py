"""The one thread that writes: many small writes of many jobs become few commits.

A job hands in a value and awaits its result, which comes after the commit. The thread takes what has
gathered (at most `rows`, about `characters`, at most `delay` seconds old), runs each kind as one grouped statement, and
commits once. A group that fails is split and written singly, so one bad row harms only its own job; a
database that is away is waited for. What was handed in is written even when its job stopped waiting.
"""

import asyncio
import contextlib
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from promptmill.errors import Unavailable
from promptmill.logs import get_logger
from promptmill.store import Connection

log = get_logger(__name__)

_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0


class Write(IntEnum):
    """The kinds of statement, in the order in which one commit runs them."""

    COMPLETE = 1
    FAIL = 2
    DEFER = 3
    BEGIN = 4
    LOAD = 5
    LOOK = 6


Statement = Callable[[Connection, Sequence[Any]], Sequence[Any]]
"""Runs one kind for many values; returns one result for each value, in the same order."""


@dataclass(slots=True)
class _Entry:
    kind: Write
    value: Any
    waiter: "asyncio.Future[Any]"


class Writer:
    """Owns the writing connection of a process.

    Args:
        begin: opens a transaction; committed when the block ends.
        statements: what each kind runs.
        prepare: called with all values of a commit before the first statement.
        rows: the most writes in one commit.
        size: characters of a value, for what is long enough to count.
        characters: so many in one commit; what goes over it is its last write.
        delay: seconds to gather more before committing.
    """

    def __init__(
        self,
        begin: Callable[[], AbstractContextManager[Connection]],
        statements: Mapping[Write, Statement],
        *,
        prepare: Callable[[Connection, Sequence[Any]], None] = lambda _connection, _values: None,
        rows: int = 100,
        size: Callable[[Any], int] = lambda _value: 0,
        characters: int = 8_000_000,
        delay: float = 0.02,
    ) -> None:
        self._begin = begin
        self._statements = statements
        self._prepare = prepare
        self._rows = rows
        self._size = size
        self._characters = characters
        self._delay = delay
        self._entries: deque[_Entry] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="promptmill-writer", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self, *, within: float = 30.0) -> None:
        """Write what has been handed in, then end; waits at most `within` seconds."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(within)

    def put(self, kind: Write, value: Any) -> "asyncio.Future[Any]":
        """Hand in one write now; what comes back is its result once it is committed.

        To be awaited, it raises whatever the statement raised for this value alone.
        """
        entry = _Entry(kind, value, asyncio.get_running_loop().create_future())
        with self._changed:
            self._entries.append(entry)
            if len(self._entries) in (1, self._rows):
                self._changed.notify_all()
        return entry.waiter

    def _run(self) -> None:
        while self._write_next():
            pass

    def _write_next(self) -> bool:
        """In a frame of its own, so that what was written is let go before the next is waited for."""
        entries = self._gather()
        if entries:
            self._write_until_done(entries)
        return bool(entries)

    def _gather(self) -> list[_Entry]:
        with self._changed:
            self._changed.wait_for(lambda: self._entries or self._stopping)
            if not self._stopping:
                self._changed.wait_for(
                    lambda: len(self._entries) >= self._rows or self._stopping, timeout=self._delay
                )
        return self._taken()

    def _taken(self) -> list[_Entry]:
        """Of what has gathered, as much as one commit may hold; whoever hands in more need not wait for this."""
        taken: list[_Entry] = []
        characters = 0
        while self._entries and len(taken) < self._rows and characters < self._characters:
            taken.append(self._entries.popleft())
            characters += self._size(taken[-1].value)
        return taken

    def _write_until_done(self, entries: list[_Entry]) -> None:
        wait = _FIRST_WAIT_S
        while True:
            try:
                results = self._write(entries)
            except Unavailable as error:
                log.warning("database_unavailable", writes=len(entries), wait_s=wait, error=str(error))
                if self._stopping and wait >= _LONGEST_WAIT_S:
                    _refuse(entries, error)
                    return
                time.sleep(wait)
                wait = min(_LONGEST_WAIT_S, wait * 2)
            except Exception as error:  # noqa: BLE001  # every error must reach the job that caused it
                self._split(entries, error)
                return
            else:
                _settle(entries, results)
                return

    def _write(self, entries: list[_Entry]) -> list[Any]:
        """Run all entries in one transaction; results in the order of the entries."""
        places: dict[Write, list[int]] = defaultdict(list)
        for place, entry in enumerate(entries):
            places[entry.kind].append(place)
        results: list[Any] = [None] * len(entries)
        with self._begin() as connection:
            self._prepare(connection, [entry.value for entry in entries])
            for kind in sorted(places):
                values = [entries[place].value for place in places[kind]]
                for place, result in zip(
                    places[kind], self._statements[kind](connection, values), strict=True
                ):
                    results[place] = result
        return results

    def _split(self, entries: list[_Entry], error: Exception) -> None:
        if len(entries) == 1:
            log.error("write_failed", kind=entries[0].kind.name, error=type(error).__name__)
            _refuse(entries, error)
            return
        log.warning("group_split", writes=len(entries), error=type(error).__name__)
        for entry in entries:
            self._write_until_done([entry])


def _refuse(entries: list[_Entry], error: Exception) -> None:
    _settle(entries, [error] * len(entries))


def _settle(entries: list[_Entry], results: Sequence[Any]) -> None:
    """Wake the jobs that wait: one call into each loop, however many they are."""
    answers: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = defaultdict(list)
    for entry, result in zip(entries, results, strict=True):
        answers[entry.waiter.get_loop()].append((entry.waiter, result))
    for loop, pairs in answers.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_wake, pairs)


def _wake(pairs: list[tuple["asyncio.Future[Any]", Any]]) -> None:
    for waiter, result in pairs:
        if waiter.done():
            continue
        if isinstance(result, Exception):
            waiter.set_exception(result)
        else:
            waiter.set_result(result)
