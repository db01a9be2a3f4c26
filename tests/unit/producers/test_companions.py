"""What runs beside the workers is started again when it dies, and never ends the stack."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from producers import children, companions
from producers.children import Child
from producers.companions import Companion


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(companions, "RESTS_S", (0.0, 0.0))
    return []


def of(code: str, folder: Path) -> Companion:
    def start() -> Child:
        return children.start(
            "flower", [sys.executable, "-c", code], environment=os.environ, log=folder / "flower.log"
        )

    return Companion(start, start())


def look_until(companion: Companion, said: list[str], condition: Callable[[], bool]) -> None:
    for _ in range(10):
        companion.child.process.wait(60)
        companion.look_after(said.append)
        if condition():
            return
    pytest.fail("it did not come to pass")


def test_one_that_was_killed_is_started_again_and_its_log_is_named(said: list[str], tmp_path: Path) -> None:
    companion = of("import time; time.sleep(60)", tmp_path)
    first = companion.child
    first.process.kill()

    look_until(companion, said, lambda: companion.child is not first)

    assert companion.child.runs
    children.kill([companion.child])
    assert said == [f"flower has ended (signal 9) and is started again in 0 s; its log: {first.log}"]


def test_one_that_dies_again_and_again_is_given_up_which_is_said_once(
    said: list[str], tmp_path: Path
) -> None:
    companion = of("raise SystemExit('the port is taken')", tmp_path)

    look_until(companion, said, lambda: companion.given_up)
    companion.look_after(said.append)

    assert len(said) == 3
    assert "flower has ended (exit code 1) 3 times and is not started again" in said[-1]
    assert "the port is taken" in said[-1]
