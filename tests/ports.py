"""A port for a server that must be told one before it starts, so that nobody else can have it meanwhile.

Asking the system for a port and giving it back lends it to whoever asks next: another test process, or the client end
of anybody's connection. These ports lie outside the range from which the system lends, and a lock of the test process
keeps each to itself until that process ends.
"""

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

LENT = Path("/proc/sys/net/ipv4/ip_local_port_range")
LENT_ELSEWHERE = "32768 65535"  # Linux from 32768, macOS from 49152
LOWEST, HIGHEST = 10_240, 65_535
"""Below are the ports of well-known servers."""
LOCKS = Path(tempfile.gettempdir()) / f"promptmill-test-ports-{os.getuid()}"


def lent_by_the_system() -> range:
    """The ports that the system hands out by itself."""
    text = LENT.read_text(encoding="ascii") if LENT.exists() else LENT_ELSEWHERE
    first, last = map(int, text.split())
    return range(first, last + 1)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is this process's own until it ends.

    Raises:
        StopIteration: all are taken.
    """
    return next(_own)


def _take_one_after_another() -> Iterator[int]:
    LOCKS.mkdir(exist_ok=True)
    lent = lent_by_the_system()
    for port in range(LOWEST, HIGHEST + 1):
        if port not in lent and _lock(LOCKS / str(port)) and _nobody_listens_at(port):
            yield port


def _lock(path: Path) -> bool:
    """Never let go by us: the end of the process does."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    return True


def _nobody_listens_at(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


_own = _take_one_after_another()
