"""`WarmPopen`: subprocess.Popen for `python -m MODULE …`, started from a process that has done the imports.

The idea: it is a process like any other, with its own pid, folder, environment and streams, and it costs a tenth of the
time. What is decided where an interpreter starts is not its own: its imports are done, of our modules too, so that one
who forgets an import is not seen; nothing of before is looked at by its garbage collector (`gc.freeze`); and it ignores
PYTHONWARNINGS, PYTHONDEVMODE, PYTHONIOENCODING, PYTHONUNBUFFERED and options such as `-W`. So every command begins cold
once, with `-W error`, in `tests/end_to_end/test_cli_cold.py`, a worker does there too, and what a cold start promises
(`--help` at once, nothing heavy imported, the installed script) is tested without it.
"""

import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.warm.server import NUMBER, Request

ROOT = Path(__file__).parents[2]
KILLED = 9  # the status of a child whose server has gone


class _ForkedPopen(subprocess.Popen[Any]):
    """Takes `args` of the form `[sys.executable, "-m", module, …]`, with or without `-P` first, and no preexec_fn."""

    def _execute_child(self, args: Sequence[str], *rest: Any) -> None:
        cwd, env = rest[4], rest[5]
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = rest[9:15]
        streams = [0 if p2cread == -1 else p2cread]
        streams += [1 if c2pwrite == -1 else c2pwrite, 2 if errwrite == -1 else errwrite]
        message = _request(args, cwd, os.environ if env is None else env, new_session=rest[20])
        with contextlib.ExitStack() as in_vain:
            self._told, theirs = socket.socketpair()
            in_vain.callback(self._told.close)
            with theirs:
                socket.send_fds(_control(), [message], [*streams, theirs.fileno()])
            if not (pid := self._told.recv(NUMBER.size)):
                raise ChildProcessError("the server of warm programs has ended")
            in_vain.pop_all()
        self.pid = int(NUMBER.unpack(pid)[0])
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        self._told.setblocking(not wait_flags & os.WNOHANG)
        with contextlib.suppress(BlockingIOError):
            status = self._number()
            self._told.close()
            return self.pid, status
        return 0, 0

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode

    def _number(self) -> int:
        message = self._told.recv(NUMBER.size)
        return int(NUMBER.unpack(message)[0]) if message else KILLED


def _request(args: Sequence[str], cwd: Any, env: Mapping[str, str], *, new_session: bool) -> bytes:
    python, *words = args
    sees_folder = words[0] != "-P"
    dash_m, module, *arguments = words if sees_folder else words[1:]
    assert (python, dash_m) == (sys.executable, "-m"), args
    folder = os.fspath(cwd) if cwd else str(Path.cwd())
    return json.dumps(Request(module, arguments, folder, dict(env), sees_folder, new_session)).encode()


@cache
def _control() -> socket.socket:
    """The way to the server, which ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.warm.server", str(theirs.fileno())],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def end() -> None:
        ours.close()
        server.communicate()

    atexit.register(end)
    return ours


WarmPopen: type[subprocess.Popen[Any]] = _ForkedPopen if sys.platform == "linux" else subprocess.Popen
"""Where a server cannot watch the end of its children by file descriptors, programs begin cold."""
