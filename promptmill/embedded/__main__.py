"""`python -m promptmill.embedded ENGINE PROGRAM FOLDER`: start a keeper and return when its server answers.

The idea: the keeper is a grandchild of whoever asked, so that it outlives it and belongs to no terminal.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from promptmill.embedded import keeper

_READY = b"ready"


def main(engine_name: str, program: str, folder: str) -> int:
    """Fork the keeper and wait for its word. Exit code 1 when the server does not start."""
    ears, mouth = os.pipe()
    if os.fork() == 0:
        os.close(ears)
        _become_keeper(engine_name, Path(program), Path(folder), mouth)
        return 0
    os.close(mouth)
    with os.fdopen(ears, "rb") as words:
        return 0 if words.read() == _READY else 1


def _become_keeper(engine_name: str, program: Path, folder: Path, mouth: int) -> None:
    os.setsid()
    os.umask(0o077)
    _leave_the_terminal(folder / keeper.LOG_FILE)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the server is stopped on the way out

    def announce() -> None:
        os.write(mouth, _READY)
        os.close(mouth)

    try:
        keeper.keep(folder, keeper.ENGINES[engine_name](program), announce)
    except (keeper.ServerFailedToStart, subprocess.CalledProcessError, OSError) as error:
        sys.exit(str(error))  # no traceback: it would hide what the server said in the same log


def _leave_the_terminal(log: Path) -> None:
    """Let go of whatever the caller may be waiting on: its pipes and its working folder."""
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDONLY)
    words = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((nothing, 0), (words, 1), (words, 2)):
        os.dup2(source, target)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
