"""What a worker takes from the queue, what it leaves there, and what it refuses."""

import base64
import json
import zlib
from collections.abc import Callable
from uuid import uuid4

from .conftest import Worker

Wait = Callable[..., None]
Start = Callable[..., Worker]


def test_a_worker_takes_only_what_it_can_begin(start_worker: Start, subject: str, wait_until: Wait) -> None:
    worker = start_worker(4)
    worker.send("pass_gate", subject, times=12)
    wait_until(lambda: len(worker.notes(f"{subject}:begun")) == 4)
    worker.app.control.ping([f"{worker.queue}@test"], timeout=30, limit=1)
    assert len(worker.notes(f"{subject}:begun")) == 4
    assert worker.waiting() == 8
    worker.open_gate(subject)
    wait_until(lambda: len(worker.notes(f"{subject}:done")) == 12)


def test_many_jobs_are_in_flight_at_once(start_worker: Start, subject: str, wait_until: Wait) -> None:
    worker = start_worker(500)
    worker.send("pass_gate", subject, times=500)
    wait_until(lambda: len(worker.notes(f"{subject}:begun")) == 500)
    assert worker.notes(f"{subject}:done") == []
    worker.open_gate(subject)
    wait_until(lambda: len(set(worker.notes(f"{subject}:done"))) == 500)


def test_a_job_that_has_begun_has_left_the_broker(worker: Worker, subject: str, wait_until: Wait) -> None:
    worker.send("pass_gate", subject)
    wait_until(lambda: worker.notes(f"{subject}:begun"))
    assert worker.waiting() == 0
    assert worker.redis.exists("unacked", "unacked_index") == 0
    worker.open_gate(subject)
    wait_until(lambda: worker.notes(f"{subject}:done"))


def test_malformed_messages_are_refused_and_do_not_stop_the_worker(
    worker: Worker, subject: str, wait_until: Wait
) -> None:
    unreadable = [b"no json", b"\xff\xfe", b"[]", b"{}", b'{"headers": {}, "properties": {}}']
    strange = [
        _message(headers={"task": "pool_tasks.tell_request"}),  # no id
        _message(headers={"task": "pool_tasks.unheard_of", "id": "1"}),
        _message(headers={"task": "pool_tasks.tell_request", "id": "2"}, body=b"no json"),
        _message(headers={"task": "pool_tasks.tell_request", "id": "3"}, body=b"[1, 2]"),
        _message(headers={"task": "pool_tasks.tell_request", "id": "4"}, body=b'[["too", "many"], {}, {}]'),
        _message(headers={"task": ["pool_tasks"], "id": "5"}),
        _message(headers={"task": "pool_tasks.tell_request", "id": "6", "eta": "tomorrow"}),
        _message(
            headers={"task": "pool_tasks.tell_request", "id": "7"},
            content_type="application/x-python-serialize",
        ),
        _message(
            headers={"task": "pool_tasks.tell_request", "id": "8", "compression": "application/x-gzip"},
            body=zlib.compress(bytes(64 << 20), 9)[:40_000],
        ),
        _message(headers={"task": "pool_tasks.tell_request", "id": "9"}, body=b"[" * 30_000),
        _message(headers={"task": "pool_tasks.tell_request", "id": "10"}, body=b" " * 200_000),
        b'{"headers": ' + b"[" * 60_000,
    ]
    for message in unreadable + strange:
        worker.redis.lpush(worker.queue, message)
    worker.send("tell_request", subject)
    wait_until(lambda: worker.notes(subject), timeout=20)
    wait_until(lambda: not worker.waiting())
    assert worker.alive
    assert len(worker.notes(subject)) == 1
    assert "too" not in worker.log
    assert "no json" not in worker.log


def test_nothing_said_on_the_control_channel_stops_the_worker(
    worker: Worker, subject: str, wait_until: Wait
) -> None:
    unreadable = (b"no json", b"[]", b"{}", b"[" * 60_000)
    strange = [_message(headers={}, body=body) for body in (b"no json", b"[]", b'{"method": "no_such"}')]
    pickled = _message(headers={}, content_type="application/x-python-serialize")
    for noise in (*unreadable, *strange, pickled):  # it hears nothing while it begins to listen anew
        wait_until(lambda noise=noise: worker.redis.publish("/0.celery.pidbox", noise) > 0)
    worker.send("tell_request", subject)
    wait_until(lambda: worker.notes(subject), timeout=20)
    assert worker.alive


def test_a_lost_connection_repeats_nothing(worker: Worker, subject: str, wait_until: Wait) -> None:
    begun = worker.send("pass_gate", subject, times=3)
    wait_until(lambda: len(worker.notes(f"{subject}:begun")) == 3)
    for client in worker.redis.client_list():
        # The tasks' own way to tell the test stays, or it would be what fails.
        if client["cmd"] != "client|list" and client["name"] != "pool-tasks":
            worker.redis.client_kill_filter(_id=client["id"])
    begun += worker.send("pass_gate", subject, times=2)
    wait_until(lambda: len(worker.notes(f"{subject}:begun")) == 5, timeout=20)
    worker.open_gate(subject)
    wait_until(lambda: sorted(worker.notes(f"{subject}:done")) == sorted(begun))
    assert sorted(worker.notes(f"{subject}:begun")) == sorted(begun)


def _message(
    *, headers: dict[str, object], body: bytes = b"[[], {}, {}]", content_type: str = "application/json"
) -> bytes:
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-type": content_type,
            "content-encoding": "utf-8",
            "headers": headers,
            "properties": {
                "correlation_id": "x",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": "x"},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": uuid4().hex,
            },
        }
    ).encode()
