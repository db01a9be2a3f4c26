"""`promptmill up`: the stack that stays, with Flower."""

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from promptmill.simulator.process import SimulatorHandle
from promptmill.testing import simulated_claude
from tests.ports import free_port

Await = Callable[[Path], None]
pytestmark = pytest.mark.timeout(180)

SECRET_PROMPT = "the prompt that no monitor may show"
KEY = "sk-ant-the-key-that-no-monitor-may-show"


@contextmanager
def standing(cli: Any, *words: str, **extra: str) -> Iterator[subprocess.Popen[str]]:
    running = cli.start("up", "--dashboard-port", "0", *words, **extra)
    try:
        yield running
    finally:
        if running.poll() is None:
            running.send_signal(signal.SIGINT)
        try:
            running.communicate(timeout=60)
        finally:
            running.kill()


def get(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_a_batch_that_is_submitted_is_answered(cli: Any, claude: SimulatorHandle) -> None:
    with standing(cli, "--flower-port", "0"):
        done = cli(
            "submit",
            cli.file("rows.jsonl", {"prompt": "a"}, {"prompt": "b"}),
            "-m",
            "claude-haiku-5-5",
            "--watch",
        )

    assert done.returncode == 0, done.stderr
    assert claude.ledger()["answered"] == {"1": 2}


def test_run_uses_the_workers_that_are_there(cli: Any, wait_for_worker: Await) -> None:
    with standing(cli, "--flower-port", "0"):
        wait_for_worker(cli.folder)
        assert "1 running" in cli("doctor").stdout

        done = cli("run", cli.file("rows.jsonl", {"prompt": "a"}))

    assert done.returncode == 0, done.stderr
    assert "using 1 worker process" in done.stderr


@pytest.mark.chaos
def test_run_goes_on_with_workers_of_its_own_when_those_it_used_have_gone(
    cli: Any, wait_until: Callable[..., None], wait_for_worker: Await
) -> None:
    with simulated_claude(first_token_s=1.0, jitter=0) as slow:
        environment = {"ANTHROPIC_BASE_URL": slow.url, "PROMPTMILL_CONCURRENCY": "2"}
        with standing(cli, "--flower-port", "0", **environment):
            wait_for_worker(cli.folder)
            running = cli.start(
                "run", cli.file("rows.jsonl", *[{"prompt": f"{n}"} for n in range(12)]), **environment
            )
            wait_until(lambda: slow.ledger()["in_flight"] > 0, timeout=60)

        _, said = running.communicate(timeout=120)

        assert running.returncode == 0, said
        assert "starting our own" in said
        assert slow.ledger()["answered"] == {"1": 12}


def test_without_a_key_submit_and_up_agree_on_the_simulated_claude(
    bare_cli: Any, wait_for_worker: Await
) -> None:
    with standing(bare_cli, "--flower-port", "0"):
        wait_for_worker(bare_cli.folder)

        done = bare_cli(
            "submit", bare_cli.file("rows.jsonl", {"prompt": "a"}), "-m", "claude-haiku-5-5", "--watch"
        )

    assert done.returncode == 0, done.stderr
    assert bare_cli.json("status")["simulated"] is True


def test_flower_shows_each_job_under_its_id_and_never_a_prompt_or_a_key(
    cli: Any, wait_until: Callable[..., None], wait_for_worker: Await
) -> None:
    port = free_port()
    environment = {"ANTHROPIC_API_KEY": KEY, "FLOWER_UNAUTHENTICATED_API": "true"}
    with standing(cli, "--flower-port", str(port), **environment):
        flower = f"http://127.0.0.1:{port}"
        wait_for_worker(cli.folder)
        # A worker that Flower has heard of knows that somebody listens; before that it tells of no task.
        wait_until(lambda: "promptmill-" in get(f"{flower}/workers"), timeout=60)
        cli(
            "submit",
            cli.file("rows.jsonl", {"prompt": SECRET_PROMPT}),
            "-m",
            "claude-haiku-5-5",
            "--name",
            "shown",
        )
        cli("status", "shown", "--watch")
        job = json.loads(cli("results", "shown").stdout)["job_id"]
        wait_until(lambda: job in get(f"{flower}/api/tasks"), timeout=30)

        task = json.loads(get(f"{flower}/api/tasks"))[job]
        pages = "".join(
            get(f"{flower}/{page}") for page in ("workers", "tasks", f"task/{job}", "broker", "metrics")
        )

    assert "shown" in task["args"]
    assert "claude-haiku-5-5" in task["args"]
    assert SECRET_PROMPT not in pages + json.dumps(task)
    assert KEY not in pages
    logs = "".join(log.read_text() for log in (cli.folder / ".promptmill" / "logs").iterdir())
    assert SECRET_PROMPT not in logs
    assert KEY not in logs


def test_a_worker_that_dies_at_once_shows_its_last_words(cli: Any) -> None:
    with standing(cli, "--flower-port", "0", PROMPTMILL_KEYS_FILE="missing.toml") as running:
        _, said = running.communicate(timeout=60)

    assert running.returncode == 1
    assert "worker-1 has ended" in said
    assert "PROMPTMILL_KEYS_FILE" in said


@pytest.mark.chaos
def test_a_killed_worker_is_started_again(
    cli: Any, claude: SimulatorHandle, wait_until: Callable[..., None], wait_for_worker: Await
) -> None:
    with standing(cli, "--flower-port", "0") as running:
        wait_for_worker(cli.folder)
        # Only one that has lived for a while is: one that dies at once would only die again.
        wait_until(lambda: _age(running.pid) > 20, timeout=60)
        for pid in _workers_of(running.pid):
            os.kill(pid, signal.SIGKILL)

        done = cli(
            "submit", cli.file("rows.jsonl", {"prompt": "a"}), "-m", "claude-haiku-5-5", "--watch", timeout=90
        )

    assert done.returncode == 0, done.stderr
    assert claude.ledger()["answered"] == {"1": 1}


def _workers_of(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children() if "worker" in child.cmdline()]


def _age(pid: int) -> float:
    return time.time() - psutil.Process(pid).create_time()
