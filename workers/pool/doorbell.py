"""Wakes Celery's consumer thread from another thread.

It is a file the consumer's poller watches, and not `hub.call_soon`, because of what follows a completion:
the acknowledgements and events that Celery then puts off with `call_soon` run before the next poll only if
they were put off by a watched file. From a `call_soon` callback they wait for the poll to end, up to 1 s.
"""

import contextlib
import socket


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

    def answer(self) -> None:
        """Make it quiet again."""
        with contextlib.suppress(OSError):
            self._inside.recv(4096)
        self._rung = False

    def close(self) -> None:
        """Give the sockets back."""
        self._inside.close()
        self._outside.close()
