"""A program that begins warm (`tests.warm`) is a process like one that begins cold."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.warm.popen import WarmPopen

Popen = type[subprocess.Popen[Any]]
BOTH = pytest.mark.parametrize("popen", [subprocess.Popen, WarmPopen])
TELL = """
import os, sys
print(sys.argv[1:], os.getcwd(), sorted(os.environ.items()), os.getsid(0) == os.getpid(), sys.stdout.isatty())
print(sys.stdin.read(), file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


def tell(popen: Popen, folder: Path, **options: Any) -> tuple[str, str, int]:
    (folder / "teller.py").write_text(TELL)
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    environment = {"PATH": "/bin", "NAME": "a value", "LC_ALL": "C.UTF-8"}
    words = [sys.executable, "-m", "teller", "7", "ä"]
    with popen(words, cwd=folder, env=environment, text=True, **pipes, **options) as process:
        said = process.communicate("a line", timeout=60)
    return (*said, process.returncode)


@pytest.mark.parametrize("new_session", [False, True])
def test_it_has_the_same_words_folder_environment_streams_and_end(tmp_path: Path, new_session: bool) -> None:
    cold = tell(subprocess.Popen, tmp_path, start_new_session=new_session)
    assert tell(WarmPopen, tmp_path, start_new_session=new_session) == cold
    assert "['7', 'ä']" in cold[0]


def test_it_has_its_session_and_hears_ctrl_c_as_soon_as_it_is_known(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text("import time\ntime.sleep(60)\n")
    words = [sys.executable, "-m", "sleeper"]
    for _ in range(5):
        with WarmPopen(words, cwd=tmp_path, start_new_session=True, stderr=subprocess.DEVNULL) as process:
            assert os.getsid(process.pid) == process.pid
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == -signal.SIGINT


@BOTH
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_is_ended_by_signals(popen: Popen, number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(60)\n")
    words = [sys.executable, "-m", "sleeper"]
    with popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.send_signal(number)
        assert process.wait(60) == -number
        assert process.poll() == -number
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)
