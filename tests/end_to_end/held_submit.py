"""A submit that stands still between two of its commits, so that a test can come in the middle of it.

`python -m tests.end_to_end.held_submit submit FILE …` is `promptmill submit FILE …` until the first rows are stored.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from producers.admitting import Admitting
from producers.cli.app import main
from tests.warm.popen import ROOT, WarmPopen

ROWS = 1_000
"""More than are stored at once."""
LONG_S = 300.0


@contextmanager
def held_submit(
    words: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> "Iterator[subprocess.Popen[str]]":
    """`promptmill WORDS`, which stays where it is once some rows are stored; killed at the end of the block."""
    process = WarmPopen(
        [sys.executable, "-m", "tests.end_to_end.held_submit", *words],
        cwd=folder,
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _hold_when_some_rows_are_stored() -> None:
    tell = Admitting.__call__

    def tell_and_hold(view: Admitting, doing: str, done: int, of: int | None) -> None:
        tell(view, doing, done, of)
        if doing == "storing":
            time.sleep(LONG_S)

    Admitting.__call__ = tell_and_hold  # type: ignore[method-assign]  # the moment between two commits


if __name__ == "__main__":
    _hold_when_some_rows_are_stored()
    main()
