"""Flower beside real workers and a real database: what it shows of each job is how the job stands there."""

import base64
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from promptmill.states import JobState
from promptmill.store import results
from promptmill.testing import a_batch, a_prompt, simulated_claude
from tests.ports import free_port

Start = Callable[..., Any]
pytestmark = pytest.mark.timeout(150)

LOGIN = "somebody:flower-password"
SHOWN = {JobState.SUCCEEDED: "SUCCESS", JobState.ERRORED: "FAILURE"}


def test_after_overloads_refusals_and_a_killed_worker_it_shows_what_the_database_holds(
    start_mill: Start, sqlite_url: str
) -> None:
    prompts = [a_prompt(model="claude-sonnet-5", max_tokens=10_000_000), *(a_prompt() for _ in range(7))]
    faults = [{"kind": "hang", "nth": 1, "pause_s": 600}, {"kind": "overloaded", "nth": 7}]
    with simulated_claude(first_token_s=0.3, faults=faults) as claude:
        mill = start_mill(sqlite_url, claude, quick=True, PROMPTMILL_CONCURRENCY="4")
        with _flower(mill) as states:
            first = mill.start_worker()
            mill.wait_until(lambda: "w0@test" in states.workers(), timeout=60)
            batch = a_batch(mill.database, prompts)
            mill.wait_until(lambda: mill.status(batch.id).jobs[JobState.SUCCEEDED], timeout=60)
            first.kill()  # one call hangs, and events leave a moment after what they tell of was written
            first.wait()
            mill.let_the_lock_run_out()
            mill.start_worker()
            mill.wait_for_end(batch.id)
            with mill.database.read() as connection:
                held = {row.job_id: SHOWN[row.state] for row in results.iterate(connection, batch.id)}
            assert set(held.values()) == {"SUCCESS", "FAILURE"}
            mill.wait_until(lambda: states() == held, timeout=20)


class _States:
    """What a Flower shows."""

    def __init__(self, port: int) -> None:
        self.port = port

    def __call__(self) -> dict[str, str]:
        return {job_id: task["state"] for job_id, task in json.loads(self.get("/api/tasks") or "{}").items()}

    def workers(self) -> str:
        return self.get("/api/workers?status=true")

    def get(self, path: str) -> str:
        """An empty text while nobody answers."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        request.add_header("Authorization", f"Basic {base64.b64encode(LOGIN.encode()).decode()}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text: str = answer.read().decode()
                return text
        except OSError:
            return ""


@contextmanager
def _flower(mill: Any) -> Iterator[_States]:
    port = free_port()
    with (mill.folder / "flower.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "workers.app", "flower", f"--port={port}"],
            env={**mill.environment, "FLOWER_BASIC_AUTH": LOGIN},
            cwd=mill.folder,
            stdout=log,
            stderr=log,
        )
    try:
        yield _States(port)
    finally:
        process.terminate()
        process.wait(60)
