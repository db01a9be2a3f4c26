"""Flower as people start it, beside a real worker: what it shows, and what it must not show.

PROMPTMILL_SCREENSHOTS=1: the pictures of docs/flower.md are taken anew.
"""

import base64
import json
import os
import signal
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
from playwright.sync_api import Browser, Page
from redis import Redis

from promptmill.broker import Ticket, celery_app, publish, queue_length
from tests.ports import free_port

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TAKES_PICTURES = bool(
    os.environ.get("PROMPTMILL_SCREENSHOTS")
)  # now: a test sees no setting of the developer's
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
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()
        except OSError:
            return 0, ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def tasks(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = json.loads(self.get("/api/tasks")[1])
        return found

    def states(self) -> dict[str, str]:
        return {name: task["state"] for name, task in sorted(self.tasks().items())}


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
    flower = Flower(free_port())
    with (
        _celery(
            "answering_worker", "worker", "-c", "4", "-n", "one@test", url=redis_with_password, folder=folder
        ),
        _celery(
            "workers.app",
            "flower",
            f"--port={flower.port}",
            url=redis_with_password,
            folder=folder,
        ),
    ):
        wait_until(lambda: flower.get("/healthcheck")[0] == 200, timeout=30)
        wait_until(lambda: '"one@test": true' in flower.get("/api/workers?status=true")[1], timeout=30)
        _publish(redis_with_password)
        wait_until(lambda: flower.states() == ENDS, timeout=30)
        yield flower


ENDS = {
    "job_answered": "SUCCESS",
    "job_canceled": "REVOKED",
    "job_deferred": "RETRY",
    "job_elsewhere": "STARTED",  # whoever has it by now will say how it ends
    "job_failed": "FAILURE",
    "job_unexpected": "FAILURE",
}


def test_each_job_is_shown_under_its_id_with_batch_model_lane_and_attempt(flower: Flower) -> None:
    shown = flower.tasks()["job_answered"]
    assert shown["name"] == "promptmill.answer"
    assert shown["args"] == "attempt 2 · nightly · claude-sonnet-5 · realtime"
    assert not shown["kwargs"]


def test_its_state_is_how_the_job_ended(flower: Flower) -> None:
    assert flower.states() == ENDS


def test_the_list_shows_them_to_a_person(flower: Flower, browser: Browser) -> None:
    with browser.new_context(
        http_credentials={"username": USER, "password": PASSWORD}, viewport={"width": 1360, "height": 640}
    ) as context:
        page = context.new_page()
        page.goto(f"{flower.url}/tasks")
        page.get_by_text("job_answered").wait_for()
        row = page.locator("tr", has_text="job_answered")
        assert "attempt 2 · nightly · claude-sonnet-5 · realtime" in row.inner_text()
        assert "REVOKED" in page.locator("tr", has_text="job_canceled").inner_text()
        _picture(page, "flower-tasks.png")
        page.get_by_text("job_failed").click()
        page.get_by_text("prompt_rejected: 400").first.wait_for()
        _picture(page, "flower-task.png")


def _picture(page: Page, name: str) -> None:
    if TAKES_PICTURES:
        page.screenshot(path=ROOT / "docs" / "images" / name)


def test_the_reason_is_shown_in_one_line(flower: Flower) -> None:
    tasks = flower.tasks()
    assert tasks["job_deferred"]["exception"] == "Deferred('overloaded, again in 3.0 s')"
    assert tasks["job_failed"]["exception"] == "Failed('prompt_rejected: 400')"
    assert "unexpected ValueError" in tasks["job_unexpected"]["exception"]


def test_a_deferred_job_is_not_sent_again_by_celery(flower: Flower, redis_with_password: str) -> None:
    with Redis.from_url(redis_with_password) as redis:
        assert queue_length(redis) == 0
    assert len(flower.tasks()) == len(ENDS)


@pytest.mark.parametrize(
    "path",
    [
        "/api/tasks",
        "/tasks",
        "/task/job_answered",
        "/task/job_deferred",
        "/task/job_failed",
        "/task/job_unexpected",
        "/task/job_canceled",
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


def test_only_its_health_is_told_without_a_password(flower: Flower) -> None:
    pages = ("/", "/tasks", "/api/tasks", "/metrics", "/healthcheck")
    statuses = {path: flower.get(path, as_somebody=False)[0] for path in pages}
    assert statuses == {"/": 401, "/tasks": 401, "/api/tasks": 401, "/metrics": 401, "/healthcheck": 200}
    assert flower.get("/healthcheck", as_somebody=False)[1] == "OK"


def test_a_password_that_flower_cannot_compare_gets_no_traceback(flower: Flower) -> None:
    request = urllib.request.Request(f"{flower.url}/tasks")
    request.add_header("Authorization", f"Basic {base64.b64encode('ü:ü'.encode()).decode()}")
    with pytest.raises(urllib.error.HTTPError) as refusal, urllib.request.urlopen(request, timeout=30):
        pass
    with refusal.value as answer:
        assert "Traceback" not in answer.read().decode()


def test_what_it_knew_it_knows_after_a_restart_and_after_being_killed(
    flower: Flower, redis_with_password: str, tmp_path: Path, wait_until: Wait
) -> None:
    app = celery_app(redis_with_password)
    first, second, third = (Flower(free_port()) for _ in range(3))

    def shows(one: Flower, *names: str) -> bool:
        return one.get("/healthcheck")[0] == 200 and set(names) <= set(one.tasks())

    def told(one: Flower, name: str) -> None:
        """Events of tasks are sent again and again until it hears them: at first it may not listen yet."""
        with app.events.default_dispatcher() as events:

            def tell() -> bool:
                events.send("task-received", uuid=name, name="promptmill.answer", args="attempt 1")
                return shows(one, name)

            wait_until(tell, timeout=30)

    with _own(first, redis_with_password, tmp_path):
        told(first, "job_before")
    saving = {"FLOWER_STATE_SAVE_INTERVAL": "1000"}
    with _own(second, redis_with_password, tmp_path, ends_by=signal.SIGKILL, **saving):
        wait_until(lambda: shows(second, "job_before"), timeout=30)
        told(second, "job_after")
        saved = max(_saved_at(tmp_path))
        wait_until(lambda: min(_saved_at(tmp_path)) > saved, timeout=30)
    with _own(third, redis_with_password, tmp_path):
        wait_until(lambda: shows(third, "job_before", "job_after"), timeout=30)
    assert {path.stat().st_mode & 0o077 for path in tmp_path.glob("flower.*")} == {0}
    app.close()


def _saved_at(folder: Path) -> list[int]:
    """When each file of the state was written; which they are depends on Python's dbm. They come all at once."""
    whole = (path for path in folder.glob("flower*") if not {".log", ".tmp"} & set(path.suffixes))
    return [path.stat().st_mtime_ns for path in whole]


@contextmanager
def _own(
    one: Flower, url: str, home: Path, ends_by: signal.Signals = signal.SIGTERM, **environment: str
) -> Iterator[None]:
    words = ("workers.app", "flower", f"--port={one.port}")
    settings = {"PROMPTMILL_HOME": str(home), **environment}
    with _celery(*words, url=url, folder=home, ends_by=ends_by, **settings):
        yield


@pytest.mark.parametrize(
    ("words", "environment", "sentence"),
    [
        (["--address="], {}, "FLOWER_BASIC_AUTH: Flower is to listen on every address"),
        (["--address=0.0.0.0"], {}, "FLOWER_BASIC_AUTH: Flower is to listen on 0.0.0.0"),
        ([], {"FLOWER_BASIC_AUTH": "nobody"}, "it must be name:password"),
        ([], {"FLOWER_BASIC_AUTH_FILE": "/nowhere"}, "FLOWER_BASIC_AUTH_FILE: /nowhere cannot be read"),
        ([], {"PROMPTMILL_CONCURRENCY": "many"}, "PROMPTMILL_CONCURRENCY: input should be a valid integer"),
        ([], {"PROMPTMILL_REDIS_URL": ""}, "PROMPTMILL_REDIS_URL: flower started by hand"),
    ],
)
def test_what_it_refuses_is_one_sentence(
    words: list[str], environment: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLOWER_", "REDIS_"))}
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "workers.app", "flower", "--port=0", *words],
        env={**kept, "PROMPTMILL_REDIS_URL": "redis://127.0.0.1:9", "PYTHONPATH": str(ROOT), **environment},
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def _publish(redis_url: str) -> None:
    app = celery_app(redis_url)
    publish(app, [Ticket(job_id, 7, "nightly", "claude-sonnet-5", 2) for job_id in ENDS])
    app.close()


@contextmanager
def _celery(
    app: str,
    *arguments: str,
    url: str,
    folder: Path,
    ends_by: signal.Signals = signal.SIGTERM,
    **environment: str,
) -> Iterator[None]:
    environment = {
        **os.environ,
        "PROMPTMILL_REDIS_URL": url,
        "PROMPTMILL_HOME": str(folder / "data"),
        "PYTHONPATH": f"{HERE}{os.pathsep}{ROOT}",
        "FLOWER_BASIC_AUTH": f"{USER}:{PASSWORD}",
        **environment,
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
        process.send_signal(ends_by)
        assert process.wait(60) == (-ends_by if ends_by is signal.SIGKILL else 0)
