"""Child processes do not outlive us, and say why they failed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from producers import children

WAIT_FOREVER = "import signal, sys; print('up', flush=True); signal.pause()"
IGNORE_SIGTERM = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\n"
    "while True: signal.pause()"
)


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def python(code: str, log: Path) -> children.Child:
    return children.start("test", [sys.executable, "-c", code], environment=os.environ, log=log)


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_a_child_ends_on_sigterm(tmp_path: Path) -> None:
    child = python(WAIT_FOREVER, tmp_path / "log")
    until(lambda: child.last_words() == ["up"])

    children.ask_to_stop([child])

    assert children.await_end([child], within_s=10)
    assert child.process.returncode == -signal.SIGTERM


def test_a_child_that_does_not_listen_can_be_killed(tmp_path: Path) -> None:
    child = python(IGNORE_SIGTERM, tmp_path / "log")
    until(lambda: child.last_words() == ["up"])

    children.ask_to_stop([child])

    assert not children.await_end([child], within_s=0.1)
    children.kill([child])
    assert child.process.returncode == -signal.SIGKILL


def test_a_child_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    parent_code = f"""
import os, pathlib, signal, sys
from producers import children
child = children.start("x", [sys.executable, "-c", {WAIT_FOREVER!r}], environment=os.environ,
                       log=pathlib.Path({str(tmp_path / "log")!r}))
print(child.process.pid, flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", parent_code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        until(lambda: (tmp_path / "log").exists() and "up" in (tmp_path / "log").read_text())
        parent.kill()

    until(lambda: is_gone(pid))


def test_a_sentence_for_people_stands_alone_without_the_log_above_it(tmp_path: Path) -> None:
    child = python(
        'print(\'{"event": "root"}\\npromptmill worker: nothing answers\\n  try again\')', tmp_path / "log"
    )

    child.process.wait()

    assert child.last_words() == ["promptmill worker: nothing answers", "  try again"]


def test_the_last_words_are_this_childs_own_and_hold_no_secret(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("an older worker said this\n")

    child = python("print('key sk-ant-api03-abcdefgh is wrong'); raise SystemExit(3)", tmp_path / "log")
    child.process.wait()

    assert child.last_words() == ["key [secret] is wrong"]


def test_what_a_child_says_before_we_look_belongs_to_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended(subprocess.Popen[bytes]):
        """Has written all it writes when we hear that it was started."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.wait()

    monkeypatch.setattr("producers.children.subprocess.Popen", Ended)
    (tmp_path / "log").write_text("an older worker said this\n")

    assert python("print('short and quick')", tmp_path / "log").last_words() == ["short and quick"]


def test_a_child_does_not_get_the_terminals_ctrl_c(tmp_path: Path) -> None:
    child = python(WAIT_FOREVER, tmp_path / "log")
    until(lambda: child.last_words() == ["up"])

    assert os.getsid(child.process.pid) != os.getsid(0)

    children.ask_to_stop([child])
    assert children.await_end([child], within_s=10)
