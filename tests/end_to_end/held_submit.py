"""A submit that stands still between two of its commits, so that a test can come in the middle of it."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

HELD_AFTER_THE_FIRST_ROWS = """
import time
from producers.admitting import Admitting
from producers.cli.app import main

tell = Admitting.__call__

def tell_and_hold(view, doing, done, of):
    tell(view, doing, done, of)
    if doing == "storing":
        time.sleep(300)

Admitting.__call__ = tell_and_hold
main()
"""

ROWS = 1_000
"""More than are stored at once."""


def start_held(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    """`promptmill WORDS`, which stays where it is once some rows are stored."""
    return subprocess.Popen(
        [sys.executable, "-c", HELD_AFTER_THE_FIRST_ROWS, *words],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
