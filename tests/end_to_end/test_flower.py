"""Flower as people start it, beside a real worker: what it shows, and what it must not show."""

import base64
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from promptmill.broker import Ticket, celery_app, publish, queue_length

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
USER, PASSWORD = "somebody", "flower-password"
REDIS_PASSWORD = "redis-password"  # not one: the test's Redis lets anybody in

Wait = Callable[..., None]


@dataclass(frozen=True)
class Flower:
    """A running Flower."""

    port: int

    def get(self, path: str, *, as_somebody: bool = True) -> tuple[int, str]:
        """Status and text; (0, "") while nobody answers."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        if as_somebody:
            token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()
        except OSError:
            return 0, ""

    def tasks(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = json.loads(self.get("/api/tasks")[1])
        return found


@pytest.fixture(scope="module")
def redis_with_password(redis_url: str) -> str:
    """The session's Redis, emptied, by a URL that holds a password; a Redis without one accepts any."""
    with Redis.from_url(redis_url) as redis:
        redis.flushall()
    if "@" in redis_url:
        return redis_url
    return redis_url.replace("redis://", f"redis://default:{REDIS_PASSWORD}@", 1)


@pytest.fixture(scope="module")
def flower(
    redis_with_password: str, tmp_path_factory: pytest.TempPathFactory, wait_until: Wait
) -> Iterator[Flower]:
    """Flower and a worker that know each other, and one job of each end."""
    folder = tmp_path_factory.mktemp("flower")
    flower = Flower(_free_port())
    with (
        _celery(
            "answering_worker", "worker", "-c", "4", "-n", "one@test", url=redis_with_password, folder=folder
        ),
        _celery(
            "workers.app",
            "flower",
            "--address=127.0.0.1",
            f"--port={flower.port}",
            url=redis_with_password,
            folder=folder,
        ),
    ):
        wait_until(lambda: flower.get("/healthcheck")[0] == 200, timeout=30)
        wait_until(lambda: '"one@test": true' in flower.get("/api/workers?status=true")[1], timeout=30)
        _publish(redis_with_password)
        wait_until(lambda: len([t for t in flower.tasks().values() if t["state"] in ENDS]) == 4, timeout=30)
        yield flower


ENDS = {"SUCCESS", "RETRY", "FAILURE"}


def test_each_job_is_shown_under_its_id_with_batch_model_and_attempt(flower: Flower) -> None:
    shown = flower.tasks()["job_answered"]
    assert shown["name"] == "promptmill.answer"
    assert shown["args"] == "job_answered · batch nightly · claude-sonnet-5 · attempt 2"
    assert not shown["kwargs"]


def test_its_state_is_how_the_job_ended(flower: Flower) -> None:
    assert {name: task["state"] for name, task in flower.tasks().items()} == {
        "job_answered": "SUCCESS",
        "job_deferred": "RETRY",
        "job_failed": "FAILURE",
        "job_unexpected": "FAILURE",
    }


def test_the_reason_is_shown_in_one_line(flower: Flower) -> None:
    tasks = flower.tasks()
    assert tasks["job_deferred"]["exception"] == "Deferred('overloaded, again in 3.0 s')"
    assert tasks["job_failed"]["exception"] == "Failed('prompt_rejected: 400')"
    assert "unexpected ValueError" in tasks["job_unexpected"]["exception"]


def test_a_deferred_job_is_not_sent_again_by_celery(flower: Flower, redis_with_password: str) -> None:
    with Redis.from_url(redis_with_password) as redis:
        assert queue_length(redis) == 0
    assert len(flower.tasks()) == 4


@pytest.mark.parametrize(
    "path",
    [
        "/api/tasks",
        "/tasks",
        "/task/job_answered",
        "/task/job_deferred",
        "/task/job_failed",
        "/task/job_unexpected",
        "/api/workers?refresh=true",
        "/worker/one@test",
        "/workers",
        "/broker",
        "/metrics",
    ],
)
def test_no_page_shows_a_prompt_or_a_password(path: str, flower: Flower) -> None:
    status, text = flower.get(path)
    assert status == 200
    assert "secret prompt" not in text
    assert REDIS_PASSWORD not in text


def test_only_health_and_metrics_are_open_without_a_password(flower: Flower) -> None:
    """So Flower belongs on loopback or an inner network."""
    pages = ("/", "/tasks", "/api/tasks", "/healthcheck", "/metrics")
    statuses = {path: flower.get(path, as_somebody=False)[0] for path in pages}
    assert statuses == {"/": 401, "/tasks": 401, "/api/tasks": 401, "/healthcheck": 200, "/metrics": 200}


def _publish(redis_url: str) -> None:
    app = celery_app(redis_url)
    ends = ("answered", "deferred", "failed", "unexpected")
    publish(app, [Ticket(f"job_{end}", 7, "nightly", "claude-sonnet-5", 2) for end in ends])
    app.close()


@contextmanager
def _celery(app: str, *arguments: str, url: str, folder: Path) -> Iterator[None]:
    environment = {
        **os.environ,
        "PROMPTMILL_REDIS_URL": url,
        "PYTHONPATH": f"{HERE}{os.pathsep}{ROOT}",
        "FLOWER_BASIC_AUTH": f"{USER}:{PASSWORD}",
    }
    with (folder / f"{app}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", app, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            cwd=folder,
        )
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(20) == 0


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
