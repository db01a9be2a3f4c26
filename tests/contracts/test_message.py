"""A message we write by hand is to Celery's consumer what one of Celery's own would be."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, Task
from celery.app.task import Context
from celery.worker.request import Request
from kombu import Connection
from redis import Redis

from promptmill.broker import _publish_one, celery_app, publish
from promptmill.message import Ticket, written
from promptmill.routes import ANSWER_QUEUE, ANSWER_TASK

TICKET = Ticket('job_"ä\\', 3, "nightly ü\n", "claude-sonnet-5", 2)

# What differs by intent: names every producer's process, tells of a result that nobody keeps, is made at random.
OURS_LACKS = {"origin", "ignore_result"}
AT_RANDOM = {"delivery_tag"}


class Answer(Task):
    """Stands for the real one, whose module makes this process a worker, and which may be registered here all the same."""

    name = ANSWER_TASK

    def run(self, job_id: str, dispatch: int) -> None:
        """Nothing."""


@pytest.fixture
def app(clean_redis: str) -> Iterator[Celery]:
    app = celery_app(clean_redis)
    yield app
    app.close()


def test_celerys_consumer_makes_the_same_request_of_it(app: Celery, clean_redis: str) -> None:
    publish(app, [TICKET])
    ours = _requested(app)
    _published_by_celery(app)
    celerys = _requested(app)
    for request in (ours, celerys):
        assert request.id == TICKET.job_id
        assert request.name == ANSWER_TASK
        assert (list(request.args), request.kwargs) == ([TICKET.job_id, TICKET.dispatch], {})
    for told in ("root_id", "parent_id", "argsrepr", "kwargsrepr", "eta", "expires", "time_limits", "body"):
        assert _plain(getattr(ours, told)) == _plain(getattr(celerys, told)), told
    assert (ours.content_type, ours.content_encoding) == (celerys.content_type, celerys.content_encoding)
    assert ours.delivery_info == celerys.delivery_info


def test_the_body_sees_the_same_of_its_message(app: Celery, clean_redis: str) -> None:
    publish(app, [TICKET])
    ours = Context(_requested(app).request_dict)
    _published_by_celery(app)
    celerys = Context(_requested(app).request_dict)
    empty: tuple[object, ...] = (None, "", 0, {}, [], [None, None])
    for name in set(vars(celerys)) - OURS_LACKS - {"properties"}:
        mine, theirs = getattr(ours, name, None), getattr(celerys, name)
        assert mine == theirs or (mine in empty and theirs in empty), name


def test_the_envelope_is_that_of_kombu(app: Celery, clean_redis: str) -> None:
    _published_by_celery(app)
    with Redis.from_url(clean_redis) as redis:
        celerys = json.loads(redis.rpop(ANSWER_QUEUE))
    ours = json.loads(written(TICKET))
    assert ours.keys() == celerys.keys()
    assert ours["properties"].keys() == celerys["properties"].keys()
    for name in set(celerys["properties"]) - AT_RANDOM:
        assert ours["properties"][name] == celerys["properties"][name], name
    assert set(ours["headers"]) <= set(celerys["headers"])
    for name in ("body", "content-type", "content-encoding"):
        assert ours[name] == celerys[name]


def test_each_sending_of_a_job_has_a_tag_of_its_own() -> None:
    first, second = (json.loads(written(Ticket("job_1", n, "b", "m", 1))) for n in (1, 2))
    assert first["properties"]["delivery_tag"] != second["properties"]["delivery_tag"]


def _published_by_celery(app: Celery) -> None:
    """By the way that other brokers take."""
    with app.producer_pool.acquire(block=True) as producer:
        _publish_one(app, producer, TICKET)


def _requested(app: Celery) -> Any:
    """What a worker's strategy makes of the message that kombu's own consumer takes."""
    taken: list[Any] = []
    with app.connection_for_read() as connection:
        assert isinstance(connection, Connection)
        with app.amqp.TaskConsumer(connection, on_message=taken.append):
            connection.drain_events(timeout=30)
        (message,) = taken
        message.ack()
        Answer.bind(app)
        return Request(message, app=app, task=Answer())


def _plain(value: Any) -> Any:
    """A JSON text as what it says; a pair that was a list in JSON as a list; all else as it is."""
    if isinstance(value, str | bytes) and value[:1] in ("[", b"["):
        return json.loads(value)
    return None if value in ((None, None), [None, None]) else value
