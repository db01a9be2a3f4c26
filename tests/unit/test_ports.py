"""Ports that the tests give to servers: each to one process, and none that the system may lend to a client."""

import subprocess
import sys
from pathlib import Path

from tests.ports import free_port, lent_by_the_system

ROOT = Path(__file__).parents[2]
TAKES = "from tests.ports import free_port; import sys; print(free_port(), flush=True); sys.stdin.read()"


def test_no_two_processes_have_the_same_port_while_both_live() -> None:
    command = [sys.executable, "-c", TAKES]
    with (
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one,
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other,
    ):
        assert one.stdout is not None
        assert other.stdout is not None
        ports = {int(one.stdout.readline()), int(other.stdout.readline()), free_port(), free_port()}
    assert len(ports) == 4
    assert ports.isdisjoint(lent_by_the_system())
