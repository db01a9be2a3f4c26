"""`python -m producers.leash PARENT COMMAND…`: become COMMAND, and die with PARENT.

The kernel is asked for SIGTERM at the parent's death before COMMAND takes this process over, so a parent that was
killed with -9 leaves nothing behind. It is a program of its own, and no code between fork and exec, because a
process with threads must not run any there. Where the kernel cannot do it, COMMAND simply runs.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1  # prctl(2)


def leashed(command: Sequence[str]) -> list[str]:
    """The command that runs `command` on a leash held by this process."""
    return [sys.executable, "-P", "-m", __name__, str(os.getpid()), *command]


def main(parent: str, *command: str) -> None:
    """Tie this process to `parent`, then become `command`."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):  # it died before it could be asked to tell us
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606  # no shell is wanted; the command is built by `stack`


if __name__ == "__main__":
    main(*sys.argv[1:])
