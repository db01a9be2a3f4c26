"""The queue of ids at a broker that is not the Redis of everything else; RabbitMQ itself: tests/end_to_end/workers."""

import runpy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from kombu.transport import memory
from kombu.transport.virtual import BrokerState

import celeryconfig
from promptmill.broker import Ticket, celery_app, publish
from promptmill.errors import Unavailable
from workers.broker_queue import ForeignQueue

NOWHERE = "redis://127.0.0.1:1/0"
TICKET = Ticket("job_1", 1, "nightly", "claude-sonnet-5", 1)


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    monkeypatch.setattr(memory.Channel, "queues", {})  # else what a test publishes is there for the next
    monkeypatch.setattr(memory.Transport, "global_state", BrokerState())
    app = celery_app(NOWHERE, "memory://")
    yield app
    app.close()


@pytest.fixture
def queue(app: Celery) -> Iterator[ForeignQueue]:
    queue = ForeignQueue(app)
    yield queue
    queue.close()


def test_a_queue_that_nobody_has_made_yet_is_empty(queue: ForeignQueue) -> None:
    assert (queue.length(), queue.ids()) == (0, set())


def test_of_a_queue_that_shows_no_messages_only_their_number_is_known(
    app: Celery, queue: ForeignQueue
) -> None:
    publish(app, [TICKET])
    assert queue.length() == 1
    with pytest.raises(Unavailable, match="1 messages"):
        queue.ids()


def test_who_asks_keeps_his_connection(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    connect: Callable[..., Any] = app.connection_for_read

    def count(*args: Any, **options: Any) -> Any:
        made.append(connect(*args, **options))
        return made[-1]

    monkeypatch.setattr(app, "connection_for_read", count)
    publish(app, [TICKET])
    queue = ForeignQueue(app)
    assert [queue.length() for _ in range(3)] == [1, 1, 1]
    assert len(made) == 1
    queue.close()


def test_a_broker_that_is_away_is_said() -> None:
    app = celery_app(NOWHERE, "amqp://127.0.0.1:1//")
    queue = ForeignQueue(app)
    for _ in range(2):
        with pytest.raises(Unavailable):
            queue.length()
    app.close()


@pytest.mark.parametrize(
    ("broker", "is_redis"),
    [("redis://other:6379/1", True), ("rediss://other:6379/1", True), ("amqp://guest@other//", False)],
)
def test_a_broker_that_is_a_redis_has_what_is_set_for_redis(
    monkeypatch: pytest.MonkeyPatch, broker: str, is_redis: bool
) -> None:
    monkeypatch.setenv("PROMPTMILL_BROKER_URL", broker)
    config = runpy.run_path(celeryconfig.__file__)
    assert config["broker_url"] == broker
    assert config["worker_disable_prefetch"] is is_redis
    assert config["broker_transport_options"].get("ack_emulation") is (False if is_redis else None)
