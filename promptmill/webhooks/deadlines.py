"""One deadline for all of a delivery: for a resolver that is stuck, and for a receiver that sends a byte now and then.

The one idea: whoever sends may count on it, so what cannot be interrupted is left behind on a thread, and what can is cut.
"""

import socket
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from queue import Empty, SimpleQueue
from time import monotonic

from promptmill.webhooks.addresses import Resolve

_MOST_LOOKUPS = 32  # threads that may hang in the system's resolver at once
_LOOKUPS = threading.BoundedSemaphore(_MOST_LOOKUPS)


def left_until(deadline: float) -> float:
    """Seconds until a moment of `time.monotonic`.

    Raises:
        TimeoutError: it has passed.
    """
    if (left := deadline - monotonic()) <= 0:
        raise TimeoutError
    return left


def in_time(resolve: Resolve, deadline: float) -> Resolve:
    """The same, on a thread that may be left behind: nothing can interrupt the system's resolver."""

    def bounded(host: str, port: int) -> Collection[str]:
        found: SimpleQueue[Collection[str] | Exception] = SimpleQueue()

        def look_up() -> None:
            try:
                found.put(resolve(host, port))
            except Exception as error:  # noqa: BLE001  # raised again by who waits
                found.put(error)
            finally:
                _LOOKUPS.release()

        if not _LOOKUPS.acquire(timeout=left_until(deadline)):
            raise TimeoutError
        threading.Thread(target=look_up, name="promptmill-lookup", daemon=True).start()
        try:
            answer = found.get(timeout=left_until(deadline))
        except Empty:
            raise TimeoutError from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    return bounded


@contextmanager
def alarm_at(plain: socket.socket, deadline: float) -> Iterator[None]:
    """End everything at the deadline: a receiver that sends a byte now and then would outlast every timeout of a read.

    Raises:
        TimeoutError: in place of what the block raises because of that.
    """
    is_late = threading.Event()

    def cut() -> None:
        is_late.set()
        with suppress(OSError):
            plain.shutdown(socket.SHUT_RDWR)

    alarm = threading.Timer(left_until(deadline), cut)
    alarm.daemon = True
    alarm.start()
    try:
        yield
    except (OSError, HTTPException):
        if is_late.is_set():
            raise TimeoutError from None
        raise
    finally:
        alarm.cancel()
