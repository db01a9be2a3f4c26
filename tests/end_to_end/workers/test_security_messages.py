"""What a stranger who can write to the broker can have a worker do: nothing, and it is counted."""

import base64
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from promptmill.broker import messages_refused
from promptmill.message import Ticket, written
from promptmill.routes import ANSWER_QUEUE, ANSWER_TASK
from promptmill.states import JobState
from promptmill.store import ledger
from promptmill.testing import a_batch, simulated_claude

CANARY = "a-prompt-of-some-other-program"
pytestmark = pytest.mark.timeout(120)


class _Trap:
    def __reduce__(self) -> Any:
        return print, ("pickle was read",)


def test_messages_of_strangers_are_refused_counted_and_not_quoted(
    start_mill: Callable[..., Any], sqlite_url: str, clean_redis: str
) -> None:
    strangers = [
        CANARY.encode(),
        _entry(headers={"task": "os.system", "id": "1"}, body=json.dumps([[CANARY], {}, {}]).encode()),
        _entry(content_type="application/x-python-serialize", body=pickle.dumps(_Trap())),
        _entry(body=json.dumps([[CANARY * 9, 1], {}, {}]).encode()),
        _entry(headers={"timelimit": [0.001, 0.001]}, body=b'[["job_1", 1], {}, {}]'),
        _entry(body=CANARY.encode() * 4_000),
    ]
    with simulated_claude() as claude, Redis.from_url(clean_redis) as redis:
        mill = start_mill(sqlite_url, claude, quick=True, PROMPTMILL_LOG_LEVEL="INFO")
        batch = a_batch(mill.database, 20)
        redis.lpush(ANSWER_QUEUE, *strangers)
        mill.start_worker()
        status = mill.wait_for_end(batch.id)
        mill.wait_until(lambda: sum(messages_refused(clean_redis).values()) == len(strangers))
    assert status.jobs[JobState.SUCCEEDED] == 20
    assert messages_refused(clean_redis) == {
        "unreadable": 1,
        "unknown_task": 1,
        "content_type": 1,
        "wrong_arguments": 1,
        "instructions": 1,
        "too_large": 1,
    }
    assert "messages_refused" in mill.logs()
    assert CANARY not in mill.logs()
    assert "pickle was read" not in mill.logs()


def test_a_forged_id_or_number_begins_nothing(
    start_mill: Callable[..., Any], sqlite_url: str, clean_redis: str
) -> None:
    with simulated_claude() as claude, Redis.from_url(clean_redis) as redis:
        mill = start_mill(sqlite_url, claude, quick=True)
        batch = a_batch(mill.database, 20)
        forged = [
            Ticket("job_of_nobody", 1, "x", "x", 1),
            Ticket("'; DROP TABLE job; --", 2**70, "x", "x", 1),
        ]
        redis.lpush(ANSWER_QUEUE, *map(written, forged))
        mill.start_worker()
        mill.wait_for_end(batch.id)
        jobs = [attempt.job_id for attempt in _attempts(mill, batch.id)]
        again = [Ticket(job_id, number, "x", "x", 1) for job_id in jobs for number in range(4)]
        redis.lpush(ANSWER_QUEUE, *map(written, again))
        mill.wait_until(lambda: redis.llen(ANSWER_QUEUE) == 0)
        mill.wait_for_end(a_batch(mill.database, 5).id)
    assert len(jobs) == len(_attempts(mill, batch.id)) == 20


def _attempts(mill: Any, batch_id: str) -> list[Any]:
    with mill.database.read() as connection:
        return list(ledger.attempts_of(connection, batch_id=batch_id))


def _entry(
    *, body: bytes, headers: dict[str, object] | None = None, content_type: str = "application/json"
) -> bytes:
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-type": content_type,
            "content-encoding": "utf-8",
            "headers": {"task": ANSWER_TASK, "id": "1"} | (headers or {}),
            "properties": {
                "delivery_info": {"exchange": "", "routing_key": ANSWER_QUEUE},
                "body_encoding": "base64",
                "delivery_tag": "1",
            },
        }
    ).encode()
