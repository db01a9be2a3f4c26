"""A submit is killed in the middle of its writing: nothing begins, and the same command again writes the rest."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from promptmill.states import JobState
from promptmill.testing import simulated_claude
from tests.end_to_end.held_submit import ROWS, held_submit


@pytest.mark.parametrize(
    "database_url", ["sqlite", pytest.param("postgres", marks=pytest.mark.chaos)], indirect=True
)
def test_a_submit_killed_half_way_costs_nothing_and_is_repeated(
    start_mill: Callable[..., Any], database_url: str, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"Question {n}"}) + "\n" for n in range(ROWS)))
    with simulated_claude() as claude:
        mill = start_mill(database_url, claude)
        words = ["submit", rows.name, "--model", "claude-haiku-4-5"]
        with held_submit(words, tmp_path, mill.environment) as submit:
            mill.wait_until(lambda: mill.ask("SELECT count(*) FROM job") or submit.poll() is not None)
            half = mill.ask("SELECT count(*) FROM job")
            submit.kill()
        batch_id = mill.ask("SELECT id FROM batch")
        assert mill.status(batch_id).batch.state == "admitting"
        assert 0 < half < ROWS

        command = [sys.executable, "-m", "producers.cli", *words]
        again = subprocess.run(command, cwd=tmp_path, env=mill.environment, check=True, capture_output=True)
        assert again.stdout.decode().strip() == batch_id
        assert mill.ask("SELECT count(*) FROM batch") == 1
        assert mill.ask("SELECT count(*) FROM job") == mill.ask("SELECT count(*) FROM prompt") == ROWS
        assert mill.count(batch_id, JobState.PENDING) == mill.status(batch_id).batch.total == ROWS
        assert claude.ledger()["requests"] == 0
