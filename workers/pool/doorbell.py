"""Wakes Celery's consumer thread from another thread.

It is a file the consumer's poller watches, and not `hub.call_soon`, because of what follows a completion:
the acknowledgements and events that Celery then puts off with `call_soon` run before the next poll only if
they were put off by a watched file. From a `call_soon` callback they wait for the poll to end, up to 1 s.
"""

import contextlib
import socket
from asyncio import AbstractEventLoop, TimerHandle
from time import monotonic
from typing import Final

RING_EVERY_S: Final = 0.02
"""Seconds between two rings that can wait. Each wakes the consumer's thread, which costs as much as a job's end."""


class Doorbell:
    """A socket pair that is readable while somebody has rung.

    Without a lock, on purpose: a signal handler may run `answer` in the middle of `answer`. Who rings puts
    his news down first; who answers clears the bell first and looks for news after.
    """

    def __init__(self) -> None:
        self._inside, self._outside = socket.socketpair()
        self._inside.setblocking(False)
        self._outside.setblocking(False)
        self._rung = False
        self._rang_soon_at = float("-inf")
        self._timer: TimerHandle | None = None

    def fileno(self) -> int:
        """What to poll for reading."""
        return self._inside.fileno()

    def ring(self) -> None:
        """Wake the poller; cheap when it has been rung and not answered yet."""
        if self._rung:
            return
        self._rung = True
        with contextlib.suppress(OSError):  # a full buffer has woken it already, a closed one needs no waking
            self._outside.send(b"\0")

    def ring_soon(self, loop: AbstractEventLoop) -> None:
        """Ring at once after a silence, else after `RING_EVERY_S`, once for all who ask until then. On the loop's thread."""
        if self._timer is not None:
            return
        wait = self._rang_soon_at + RING_EVERY_S - monotonic()
        if wait > 0:
            self._timer = loop.call_later(wait, self._ring_now)
        else:
            self._ring_now()

    def _ring_now(self) -> None:
        self._timer = None
        self._rang_soon_at = monotonic()
        self.ring()

    def answer(self) -> None:
        """Make it quiet again."""
        with contextlib.suppress(OSError):
            self._inside.recv(4096)
        self._rung = False

    def close(self) -> None:
        """Give the sockets back."""
        self._inside.close()
        self._outside.close()
