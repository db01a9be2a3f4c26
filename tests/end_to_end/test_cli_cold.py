"""A worker and every command as an interpreter begins them: elsewhere they begin warm, see `tests.warm`.

A warning in a command is an error, as in all tests; Celery gives one to root. It is one test, because the batch is made only once.
"""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(180)

COMMANDS = (
    "status done", "list", "results done", "pause waiting", "resume paused", "cancel unwanted",
    "retry canceled --only canceled", "set waiting --budget 5", "audit done", "limits", "keys",
    "estimate rows.jsonl --model claude-haiku-5-5", "doctor", "purge done --dry-run", "encrypt --new-key",
    "schedule add daily rows.jsonl --every 1d --model claude-haiku-5-5", "schedule list",
)  # fmt: skip
STRICT = {"PYTHONWARNINGS": "error"}
AT_ONCE = 3


@contextmanager
def cold_worker(cli: Any) -> Iterator[None]:
    with (cli.folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "workers.app", "worker"],
            cwd=cli.folder,
            env=cli._environment({}),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        worker.terminate()
        assert worker.wait(60) == 0, (cli.folder / "worker.log").read_text()


def test_a_worker_and_every_command_begin_cold_and_give_no_warning(
    cli: Any, clean_redis: str, wait_for_worker: Any
) -> None:
    warm = replace(cli, environment={**cli.environment, "PROMPTMILL_REDIS_URL": clean_redis})
    submit = ["submit", warm.file("rows.jsonl", {"prompt": "Say 1"}), "--model", "claude-haiku-5-5", "--name"]
    assert warm(*submit, "done").returncode == 0
    with cold_worker(warm):
        wait_for_worker(warm.folder)
        warm("status", "done", "--watch")
        assert warm.json("status", "done")["jobs"]["succeeded"] == 1
    for name in ("waiting", "paused", "unwanted", "canceled"):
        assert warm(*submit, name).returncode == 0
    assert warm("pause", "paused").returncode == warm("cancel", "canceled").returncode == 0

    cold = replace(warm, popen=subprocess.Popen)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ended = list(pool.map(lambda command: cold(*command.split(), **STRICT), COMMANDS))

    assert [done for done in ended if done.returncode or "Warning" in done.stderr] == []
