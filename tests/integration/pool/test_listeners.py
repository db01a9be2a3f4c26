"""Whoever listens to events of tasks is counted, and while nobody does, none are made."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from promptmill.broker import celery_app
from workers.consumer import _batched

Wait = Callable[..., None]


@pytest.mark.parametrize("key", ["#", "task.#"])
def test_who_listens_to_tasks_alone_is_counted(clean_redis: str, wait_until: Wait, key: str) -> None:
    app = celery_app(clean_redis)
    with _batched(app.connection_for_write()) as connection, app.connection_for_read() as listening:
        events = app.events.Dispatcher(connection, hostname="one@test", buffer_group=["task"])
        events.send("worker-heartbeat", freq=2)
        events.send("task-started", uuid="too early")
        assert len(events._group_buffer["task"]) == 0
        receiver: Any = app.events.Receiver(listening, routing_key=key)
        with receiver.Consumer() as (listener, _, _):

            def is_counted() -> bool:
                with suppress(TimeoutError):
                    listener.drain_events(timeout=0.05)
                events.send("worker-heartbeat", freq=2)
                return bool(events.producer.channel.listeners.heard)

            wait_until(is_counted)
            events.send("task-started", uuid="job_1")
        assert len(events._group_buffer["task"]) == 1
    app.close()
