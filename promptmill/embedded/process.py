"""A server as a child process: it gets a free port, dies with its parent, and is stopped politely first."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
STOP_PATIENCE = 10.0  # seconds a server gets to end by itself before it is killed
_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True)
class Owner:
    """The system user a server runs as, where that is not our own."""

    uid: int
    gid: int


def free_port() -> int:
    """A TCP port of the loopback address that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Whether a server could listen at this TCP port of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do: an old connection is no user
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def start(
    command: Sequence[str | Path],
    *,
    folder: Path,
    stop_signal: signal.Signals,
    lock: int,
    stdin: bytes = b"",
    owner: Owner | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` in `folder`, fed with `stdin`; its output goes where ours goes.

    The child keeps the file descriptor `lock` open, as the sign that it lives. On Linux it gets `stop_signal` when
    this process dies. Only for a process with one thread.
    """
    with tempfile.TemporaryFile() as script:
        script.write(stdin)
        script.seek(0)
        return subprocess.Popen(  # noqa: S603  # programs found by us; no word of a user's is in the command
            command,
            cwd=folder,
            stdin=script,
            pass_fds=[lock],
            preexec_fn=_dying_with_parent(stop_signal),  # noqa: PLW1509  # one thread, see above
            user=owner.uid if owner else None,
            group=owner.gid if owner else None,
            extra_groups=[] if owner else None,
        )


def stop(child: subprocess.Popen[bytes], stop_signal: signal.Signals) -> None:
    """Ask `child` to end, and kill it when it has not after `STOP_PATIENCE` seconds."""
    child.send_signal(stop_signal)
    try:
        child.wait(STOP_PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _dying_with_parent(stop_signal: signal.Signals) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None  # a leftover server is ended by the next keeper of its folder
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork: the child may only make calls
    parent = os.getpid()

    def ask_the_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, int(stop_signal))
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask_the_kernel
