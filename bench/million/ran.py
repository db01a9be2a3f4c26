"""A program run as a person runs it, and what that took: seconds, CPU, peak memory."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Ran:
    """What one run of a program took; `peak_mb` is of its own process."""

    seconds: float
    cpu_s: float
    peak_mb: float


def promptmill(*words: str, folder: str, **settings: str) -> Ran:
    """Run a command with nothing of the surroundings but the path; ends the bench when it fails.

    Args:
        *words: the command line.
        folder: where it runs, and its home.
        **settings: environment variables, without the prefix.
    """
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "HOME": folder,
        "PROMPTMILL_HOME": f"{folder}/home",
    }
    return _run([sys.executable, "-m", "producers.cli", *words], folder, environment | _prefixed(settings))


def _prefixed(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"PROMPTMILL_{name.upper()}": value for name, value in settings.items()}


def _run(command: list[str], folder: str, environment: dict[str, str]) -> Ran:
    began = time.perf_counter()
    running = subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    said = running.stderr.read() if running.stderr else ""
    _, status, used = os.wait4(running.pid, 0)
    seconds = time.perf_counter() - began
    running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {running.returncode}: {said}")
    return Ran(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
