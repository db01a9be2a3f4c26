"""The way to the workers: messages, nudges, and what happens while Redis is away."""

import base64
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
from celery import Celery, current_app
from kombu.exceptions import KombuError
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from promptmill.broker import (
    Nudges,
    Ticket,
    celery_app,
    nudge,
    publish,
    queue_length,
    queued_ids,
    reach,
)
from promptmill.embedded import throwaway_redis
from promptmill.errors import Unavailable
from promptmill.routes import ANSWER_QUEUE, ANSWER_TASK, NUDGE_CHANNEL

Wait = Callable[..., None]

NOWHERE = "redis://127.0.0.1:1/0"
TRIES = 5
"""A busy machine may take its time once; what waits too long by itself does so every time."""


def _ticket(number: int = 1, *, batch: str = "nightly") -> Ticket:
    return Ticket(job_id=f"job_{number}", dispatch=3, batch=batch, model="claude-sonnet-5", attempt=2)


@pytest.fixture
def app(clean_redis: str) -> Iterator[Celery]:
    app = celery_app(clean_redis)
    yield app
    app.close()


@pytest.fixture
def redis(clean_redis: str) -> Iterator[Redis]:
    with Redis.from_url(clean_redis) as client:
        yield client


def test_a_message_carries_the_job_id_and_the_dispatch_number_as_json(app: Celery, redis: Redis) -> None:
    publish(app, [_ticket()])
    message = json.loads(redis.lindex(ANSWER_QUEUE, 0))
    assert message["content-type"] == "application/json"
    assert json.loads(base64.b64decode(message["body"]))[:2] == [["job_1", 3], {}]
    assert message["headers"]["task"] == ANSWER_TASK
    assert message["headers"]["id"] == "job_1"


def test_people_read_batch_model_lane_and_attempt(app: Celery, redis: Redis) -> None:
    publish(app, [_ticket()])
    headers = json.loads(redis.lindex(ANSWER_QUEUE, 0))["headers"]
    assert headers["argsrepr"] == "attempt 2 · nightly · claude-sonnet-5 · realtime"
    assert headers["kwargsrepr"] == ""
    assert headers["retries"] == 1


def test_a_long_or_strange_batch_name_is_shown_in_one_short_line() -> None:
    shown = str(_ticket(batch="a\nb\x00" + "c" * 200))
    assert "· a b ccc" in shown
    assert shown.isprintable()
    assert len(shown) < 120


def test_what_lies_in_the_queue_is_known_by_its_ids(app: Celery, redis: Redis) -> None:
    publish(app, [_ticket(number) for number in range(1200)])
    redis.lpush(ANSWER_QUEUE, b"no json", b"[]", b'{"headers": {"id": 5}}')
    assert queued_ids(redis) == {f"job_{number}" for number in range(1200)}
    assert queue_length(redis) == 1203


def test_publishing_nothing_sends_nothing(app: Celery, redis: Redis) -> None:
    publish(app, [])
    assert queue_length(redis) == 0


def test_a_broker_that_is_away_is_said_at_once() -> None:
    app = celery_app(NOWHERE)

    def says_so() -> None:
        with pytest.raises(Unavailable):
            publish(app, [_ticket()])

    assert any(_seconds(says_so) < 2 for _ in range(TRIES))
    app.close()


@pytest.mark.parametrize("ask", [queued_ids, queue_length])
def test_a_queue_that_cannot_be_read_is_not_taken_for_empty(ask: Callable[[Redis], object]) -> None:
    with Redis.from_url(NOWHERE, retry=Retry(NoBackoff(), 0)) as redis, pytest.raises(Unavailable):
        ask(redis)


def test_publishing_goes_on_when_redis_has_come_back(wait_until: Wait) -> None:
    with throwaway_redis() as url, Redis.from_url(url) as redis:
        app = celery_app(url)
        publish(app, [_ticket(1)])
        _kill(redis)

        def published() -> bool:
            try:
                publish(app, [_ticket(2)])
            except Unavailable:
                return False
            return True

        wait_until(published, timeout=20)
        assert "job_2" in queued_ids(redis)
        app.close()


def test_making_an_app_leaves_the_current_one_alone(app: Celery) -> None:
    assert current_app.main != app.main


def test_settings_accept_json_only_and_keep_no_results(app: Celery) -> None:
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_serializer == app.conf.event_serializer == "json"
    assert app.conf.result_backend is None
    assert app.conf.task_ignore_result
    assert not app.conf.task_acks_late
    assert app.conf.broker_transport_options["ack_emulation"] is False
    assert not [name for name in app.conf if not name.startswith("_") and callable(app.conf[name])]


def test_a_nudge_is_heard(redis_url: str) -> None:
    with Nudges(redis_url) as nudges:
        assert not nudges.wait(0.05)
        nudge(redis_url)
        assert nudges.wait(30)


def test_nudges_that_came_together_count_once(redis_url: str) -> None:
    with Nudges(redis_url) as nudges, Redis.from_url(redis_url) as redis:
        assert not nudges.wait(0.05)
        with redis.pipeline(transaction=True) as together:  # what Redis writes at once
            for _ in range(5):
                together.publish(NUDGE_CHANNEL, b"")
            together.execute()
        assert nudges.wait(30)
        assert not nudges.wait(0.1)


def test_a_nudge_wakes_who_waits(redis_url: str) -> None:
    with Nudges(redis_url) as nudges:
        assert not nudges.wait(0.05)
        timer = threading.Timer(0.1, nudge, [redis_url])
        timer.start()
        begun = time.monotonic()
        assert nudges.wait(60)
        assert time.monotonic() - begun < 30
        timer.join()


@pytest.mark.parametrize("url", [NOWHERE, "not a url", ""])
def test_a_nudge_never_raises(url: str) -> None:
    nudge(url)


def test_a_nudge_gives_up_on_a_server_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        assert any(_seconds(lambda: nudge(url)) < 1.0 for _ in range(TRIES))


def test_waiting_for_nudges_outlives_redis(wait_until: Wait) -> None:
    with throwaway_redis() as url, Redis.from_url(url) as redis, Nudges(url) as nudges:
        assert not nudges.wait(0.05)
        _kill(redis)

        def heard() -> bool:
            nudge(url)
            return nudges.wait(0.1)

        wait_until(heard, timeout=20)


def test_without_redis_waiting_takes_its_time_and_hears_nothing() -> None:
    with Nudges(NOWHERE) as nudges:
        begun = time.monotonic()
        assert not nudges.wait(0.2)
        assert time.monotonic() - begun >= 0.2


def test_importing_the_broker_loads_neither_celery_nor_redis() -> None:
    code = "import sys, promptmill.broker; print(*sorted({'celery', 'kombu', 'redis'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


def _seconds(act: Callable[[], object]) -> float:
    begun = time.monotonic()
    act()
    return time.monotonic() - begun


def _kill(redis: Redis) -> None:
    """End the server behind `redis` with -9; its keeper starts another at the same port."""
    server = psutil.Process(redis.info("server")["process_id"])
    server.kill()
    server.wait(30)


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_takes_connections_and_says_nothing_is_not_waited_for_without_end(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises((KombuError, OSError)):
        reach(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/", patience_s=0.1)
