"""A mill at work: a simulated Claude, an embedded Redis, a SQLite file and one worker process, for all promises."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from producers.environment import environment_for
from producers.running import at_work
from promptmill import settings
from promptmill.simulator.process import SimulatorHandle
from promptmill.testing import simulated_claude

MODEL = "claude-haiku-5-5"

UseClaude = Callable[[SimulatorHandle], None]


def _environment(home: Path, claude: SimulatorHandle) -> dict[str, str]:
    # No limit of our own: how Promptmill learns limits is a promise with a file of its own.
    found = settings.load(
        environ={"PROMPTMILL_HOME": str(home), "ANTHROPIC_BASE_URL": claude.url},
        folder=home,
        limits__rpm=0,
        limits__itpm=0,
        limits__otpm=0,
    )
    return environment_for(found, {})


@pytest.fixture(scope="session")
def standing_mill(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[SimulatorHandle, dict[str, str]]]:
    home = tmp_path_factory.mktemp("mill")
    with simulated_claude() as claude:
        environment = _environment(home, claude)
        with at_work(settings.load(environ=environment, folder=home), workers=1, say=lambda _: None):
            yield claude, environment


@pytest.fixture
def claude(
    standing_mill: tuple[SimulatorHandle, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> SimulatorHandle:
    """The simulated Claude of a mill that is at work; its book is empty and it has no faults."""
    simulator, environment = standing_mill
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    simulator.set_scenario()
    simulator.reset()
    return simulator


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> UseClaude:
    """`use(claude)`: a data folder of the test's own, with that Claude as its endpoint and no worker yet."""

    def point_at(simulator: SimulatorHandle) -> None:
        for name, value in _environment(tmp_path, simulator).items():
            monkeypatch.setenv(name, value)
        assert os.environ["ANTHROPIC_BASE_URL"] == simulator.url

    return point_at
