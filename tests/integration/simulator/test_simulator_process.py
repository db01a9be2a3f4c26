"""The child process: when it starts, what it says when it cannot, and that it never outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from promptmill.simulator.process import SimulatorFailed
from promptmill.testing import SimulatorHandle, simulated_claude

PARENT = """
import sys, time
from promptmill.testing import simulated_claude
with simulated_claude() as simulator:
    print(simulator.pid, flush=True)
    time.sleep(60)
"""


def test_it_stops_at_once_on_sigterm_with_calls_in_flight(wait_until: Callable[..., None]) -> None:
    with simulated_claude(first_token_s=30.0, jitter=0.0) as simulator:
        command = [sys.executable, "-c", _CALLER, simulator.url]
        caller = subprocess.Popen(command, stderr=subprocess.PIPE)
        wait_until(lambda: simulator.ledger()["in_flight"] == 1)
        begun = time.monotonic()
        os.kill(simulator.pid or 0, signal.SIGTERM)
        wait_until(lambda: not simulator.is_running)
        assert time.monotonic() - begun < 10  # the call would have taken 30
        _, errors = caller.communicate(timeout=30)
        assert b"RemoteDisconnected" in errors or b"ConnectionResetError" in errors


_CALLER = """
import http.client, json, sys
connection = http.client.HTTPConnection(sys.argv[1].removeprefix("http://"))
body = {"model": "claude-sonnet-5", "max_tokens": 10, "messages": [{"role": "user", "content": "Hi"}]}
connection.request("POST", "/v1/messages", json.dumps(body), {"x-api-key": "k", "anthropic-version": "2026-10-21"})
connection.getresponse()
"""


def test_it_dies_with_a_parent_that_is_killed(wait_until: Callable[..., None]) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_a_bad_scenario_is_reported_with_file_and_field(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[[fault]]\nkind = 'cut'\nhow = 'gently'\n", encoding="utf-8")
    with (
        pytest.raises(Exception, match=r"bad\.toml, field fault 1: how: must be one of clean, reset"),
        simulated_claude(faults=[{"kind": "cut"}], scenario=str(path)),
    ):
        pass


def test_a_taken_port_is_reported(process: SimulatorHandle) -> None:
    port = int(process.url.rpartition(":")[2])
    with (
        pytest.raises(
            SimulatorFailed,
            match=rf"--port: 127.0.0.1:{port} cannot be had \(Address already in use\); name another",
        ),
        simulated_claude(port=port),
    ):
        pass


def test_a_host_that_is_none_is_reported() -> None:
    with (
        pytest.raises(SimulatorFailed, match=r"--host: there is no 256\.1\.1\.1"),
        simulated_claude(host="256.1.1.1"),
    ):
        pass


def test_the_module_runs_in_the_foreground() -> None:
    command = [sys.executable, "-m", "promptmill.simulator", "--port", "0", "--rpm", "60", "--latency", "0"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    line = running.stderr.readline()
    simulator = SimulatorHandle("http://" + line.strip().rpartition("http://")[2])
    assert simulator.health()["status"] == "ok"
    running.send_signal(signal.SIGINT)
    assert running.wait(30) == 0
    assert running.stderr.read() == ""
    running.stderr.close()
