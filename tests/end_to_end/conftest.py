"""The command line as a person types it: a process of its own, in a folder of its own, against real servers."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from promptmill.simulator.process import SimulatorHandle
from promptmill.testing import simulated_claude
from tests.end_to_end.chromium import chromium
from tests.warm.popen import WarmPopen

PROMPTMILL = [sys.executable, "-m", "producers.cli"]
SETTINGS = ("PROMPTMILL_", "ANTHROPIC_", "CLAUDE_KEY", "DATABASE_URL", "RATE_LIMIT", "REDIS_URL")
NO_LIMITS = {"PROMPTMILL_RPM": "0", "PROMPTMILL_ITPM": "0", "PROMPTMILL_OTPM": "0"}


@dataclass(frozen=True)
class Cli:
    """`promptmill` in `folder`, with `environment` over ours; `popen` starts it, with the imports done unless told."""

    folder: Path
    environment: Mapping[str, str]
    popen: type[subprocess.Popen[str]] = WarmPopen

    def __call__(
        self, *words: str, timeout: float = 60, stdin: str = "", **extra: str
    ) -> subprocess.CompletedProcess[str]:
        """Type a command and wait for its end."""
        with self._start(words, extra, stdin=subprocess.PIPE) as process:
            try:
                said = process.communicate(stdin, timeout)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(words, process.returncode, *said)

    def _environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """Ours, without what a developer has set: a fixture of a module is made before that is cleaned."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
        return {**kept, **self.environment, **extra}

    def json(self, *words: str) -> Any:
        """Type a command with --json; its document."""
        done = self(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self, *words: str, **extra: str) -> subprocess.Popen[str]:
        """Type a command that goes on."""
        return self._start(words, extra)

    def _start(self, words: Sequence[str], extra: Mapping[str, str], **streams: Any) -> subprocess.Popen[str]:
        return self.popen(
            [*PROMPTMILL, *words],
            cwd=self.folder,
            env=self._environment(extra),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **streams,
        )

    def file(self, name: str, *rows: object) -> str:
        """A file of JSON lines in the folder; its name."""
        text = "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
        (self.folder / name).write_text(text, encoding="utf-8")
        return name


@pytest.fixture(scope="session")
def wait_for_worker(wait_until: Callable[..., None]) -> Callable[[Path], None]:
    """`wait_for_worker(folder)`: until a worker of the command line in this folder has signed in.

    `promptmill doctor` says it too, and asked again and again takes from the worker the time it needs to start.
    """

    def has_signed_in(folder: Path) -> bool:
        path = folder / ".promptmill" / "promptmill.db"
        if not path.exists():
            return False
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            try:
                return bool(database.execute("SELECT 1 FROM worker WHERE stopped_at IS NULL").fetchone())
            except sqlite3.OperationalError:  # not migrated yet
                return False

    return lambda folder: wait_until(lambda: has_signed_in(folder), timeout=60)


@pytest.fixture
def claude() -> Iterator[SimulatorHandle]:
    """A simulated Claude without limits and latency."""
    with simulated_claude() as simulator:
        yield simulator


@pytest.fixture(scope="session")
def make_cli() -> Callable[[Path, SimulatorHandle], Cli]:
    """`make_cli(folder, claude)`: the command line in a folder, with that Claude as its endpoint."""
    return lambda folder, claude: Cli(folder, {"ANTHROPIC_BASE_URL": claude.url, **NO_LIMITS})


@pytest.fixture
def cli(tmp_path: Path, claude: SimulatorHandle, make_cli: Callable[[Path, SimulatorHandle], Cli]) -> Cli:
    """The command line in the test's own folder."""
    return make_cli(tmp_path, claude)


@pytest.fixture
def bare_cli(tmp_path: Path) -> Cli:
    """The command line of somebody who has set nothing."""
    return Cli(tmp_path, {})


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, headless, while a module's tests run; they must not be async."""
    with chromium() as browser:
        yield browser
