"""The SQLite file is locked by another program for long, or the disk takes nothing more.

One worker lives through all of it.
"""

import resource
import sys
from typing import Any

import pytest

DEAD = 2.5  # seconds without a heartbeat; 1.5 would be enough to be taken for dead


def test_another_program_locks_it_for_longer_than_a_process_may_be_silent(
    standing_mill: Any, at_work: Any
) -> None:
    def act() -> None:
        with standing_mill.locked():
            standing_mill.wait_until(lambda: standing_mill.silent_for(standing_mill.workers[0]) > DEAD)

    at_work(act)


@pytest.mark.chaos
def test_another_program_locks_it_for_longer_than_a_write_waits(standing_mill: Any, at_work: Any) -> None:
    def act() -> None:
        met = standing_mill.logs().count("database_unavailable")
        with standing_mill.locked():
            standing_mill.wait_until(
                lambda: standing_mill.logs().count("database_unavailable") > met, timeout=30
            )

    at_work(act)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets one set the limits of another process")
def test_the_disk_takes_nothing_more_for_a_while_neither_rows_nor_logs(
    standing_mill: Any, at_work: Any
) -> None:
    [worker] = standing_mill.workers
    usual = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)

    def act() -> None:
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (1024, usual[1]))
        try:
            standing_mill.wait_until(lambda: standing_mill.silent_for(worker) > DEAD)
        finally:
            resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, usual)

    at_work(act)
