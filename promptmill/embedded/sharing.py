"""What a user of an embedded server does: say that it is used, have it started, learn where it is."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import promptmill
from promptmill.embedded import locks, process
from promptmill.embedded.keeper import (
    ENGINES,
    KEEPER_LOCK,
    LOG_FILE,
    START_PATIENCE,
    USERS_LOCK,
    Address,
)
from promptmill.errors import ConfigurationError

_POLL = 0.01  # seconds between two looks at what cannot be waited for
_LAST_WORDS = 5  # lines of a server's log that an error shows
_KEEPER_ENVIRONMENT = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "PATH",
    "TMPDIR",
)  # no key, nothing of Postgres's


@contextmanager
def in_use(folder: Path, engine_name: str, program: Path) -> Iterator[str]:
    """Have the server of `folder` run for the length of the block; gives its URL.

    The last user to leave waits until the server has ended.

    Raises:
        ConfigurationError: the server does not start, or the folder cannot be written.
    """
    folder = folder.absolute()
    _prepare(folder)
    try:
        with locks.shared(folder / USERS_LOCK):
            yield _url_of_running(folder, engine_name, program)
    finally:
        _wait_for_end(folder)


def url_if_running(folder: Path, engine_name: str) -> str | None:
    """The URL of the server of `folder` when it answers now; starts nothing and makes no folder."""
    address = Address.read(folder)
    engine = ENGINES[engine_name](Path())  # only asked, never started
    if address is None or not engine.answers(port=address.port, password=address.password):
        return None
    return engine.url(port=address.port, password=address.password)


def _prepare(folder: Path) -> None:
    try:
        # Parents that `parents=True` makes are open to everybody; the data folder holds prompts.
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / USERS_LOCK).open("a").close()
    except OSError as error:
        raise ConfigurationError(
            f"{folder} cannot be used as a data folder: {error.strerror}", setting="PROMPTMILL_HOME"
        ) from error


def _url_of_running(folder: Path, engine_name: str, program: Path) -> str:
    engine = ENGINES[engine_name](program)
    deadline = time.monotonic() + START_PATIENCE
    while time.monotonic() < deadline:
        if not locks.is_held(folder / KEEPER_LOCK):
            _launch_keeper(folder, engine_name, program)
        address = Address.read(folder)
        if address and engine.answers(port=address.port, password=address.password):
            return engine.url(port=address.port, password=address.password)
        time.sleep(_POLL)
    raise _failure(folder)


def _launch_keeper(folder: Path, engine_name: str, program: Path) -> None:
    """Start a keeper of `folder`; returns when its server answers, or when another keeper was faster."""
    environment = {name: os.environ[name] for name in _KEEPER_ENVIRONMENT if name in os.environ}
    environment["PYTHONPATH"] = str(Path(promptmill.__file__).parents[1])
    command = [sys.executable, "-P", "-m", "promptmill.embedded", engine_name, str(program), str(folder)]
    launched = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False)  # noqa: S603  # our own module
    if launched.returncode:
        raise _failure(folder)


def _failure(folder: Path) -> ConfigurationError:
    log = folder / LOG_FILE
    words = log.read_text(errors="replace").splitlines()[-_LAST_WORDS:] if log.exists() else []
    return ConfigurationError(
        "\n  ".join([f"the embedded server in {folder} does not start; the end of its log:", *words]),
        setting="PROMPTMILL_HOME",
    )


def _wait_for_end(folder: Path) -> None:
    """Wait for the keeper to end when nobody else uses the server: then nothing runs when we are gone."""
    deadline = time.monotonic() + process.STOP_PATIENCE
    while locks.is_held(folder / KEEPER_LOCK) and not locks.is_shared(folder / USERS_LOCK):
        if time.monotonic() > deadline:
            return
        time.sleep(_POLL)
