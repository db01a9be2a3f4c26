"""File locks between processes (flock).

The idea: a lock belongs to an open file, so the kernel frees it when the last process that has the file open is
gone, however it went. Nothing is ever unlocked by name; files are closed.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":  # there is no embedded server on Windows, but this package can be imported there
    import fcntl


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Hold `path` together with others; waits while somebody holds it alone."""
    file = open_file(path)
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield
    finally:
        # Not LOCK_UN: that would take the lock from a forked child too, which may still be at work.
        os.close(file)


def try_exclusive(path: Path) -> int | None:
    """Hold `path` alone, or None when anybody else holds it. The answer is a file descriptor; close it to let go."""
    file = open_file(path)
    if take_alone(file):
        return file
    os.close(file)
    return None


def take_alone(file: int) -> bool:
    """Hold the open file alone, if nobody else holds it."""
    return _take(file, fcntl.LOCK_EX)


def is_held(path: Path) -> bool:
    """Whether anybody holds `path`, alone or with others."""
    return not _can_be_had(path, fcntl.LOCK_EX)


def is_shared(path: Path) -> bool:
    """Whether somebody holds `path` in a way that others may join."""
    return is_held(path) and _can_be_had(path, fcntl.LOCK_SH)


def open_file(path: Path) -> int:
    """A file descriptor of `path` to lock; the file is made when it is not there."""
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def _can_be_had(path: Path, kind: int) -> bool:
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        return _take(file, kind)
    finally:
        os.close(file)


def _take(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
