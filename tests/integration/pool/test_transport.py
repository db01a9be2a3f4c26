"""The batched transport: many ids in a round trip, shared by several workers, and none lost on the way."""

import json
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any
from uuid import uuid4

import psutil
import pytest
from kombu import Connection, Consumer, Queue
from redis import Redis
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeout

from promptmill.embedded import throwaway_redis
from promptmill.message import Ticket, written
from workers import transport as transport_module
from workers.consumer import share_of
from workers.transport import AT_ONCE

from .conftest import Worker

Wait = Callable[..., None]
Start = Callable[..., Worker]

UNTIL_NOW = "until-now"


@pytest.fixture(scope="module")
def transport() -> str:
    return "batched"


@pytest.fixture
def redis(clean_redis: str) -> Iterator[Redis]:
    with Redis.from_url(clean_redis) as client:
        yield client


class Taker:
    """A consumer with as many slots as is asked for, that notes what it is handed."""

    def __init__(self, url: str, room: int, share: int = AT_ONCE) -> None:
        self.taken: list[str] = []
        self.breaks_at = -1
        self.breaks_with: Exception = OSError("the worker ends")
        connection = Connection(
            url, transport="workers.transport:Transport", transport_options={"ack_emulation": False}
        )
        self.connection: Any = connection
        channel: Any = connection.channel()
        channel.room = lambda: room
        channel.share = lambda: share
        self.channel = channel
        consumer: Any = Consumer(channel, [Queue("ids", routing_key="ids")], on_message=self._take)
        consumer.consume()

    def _take(self, message: Any) -> None:
        if len(self.taken) == self.breaks_at:
            raise self.breaks_with
        self.taken.append(message.headers["id"])
        message.ack()

    def turn(self) -> None:
        self.connection.drain_events(timeout=30)


@pytest.fixture
def taker(clean_redis: str) -> Iterator[Callable[..., Taker]]:
    takers: list[Taker] = []

    def make(room: int, share: int = AT_ONCE) -> Taker:
        takers.append(Taker(clean_redis, room, share))
        return takers[-1]

    yield make
    for made in takers:
        made.connection.close()


def _fill(redis: Redis, count: int) -> list[str]:
    ids = [f"job_{n:03}" for n in range(count)]
    redis.lpush("ids", *(written(Ticket(each, 1, "nightly", "claude-sonnet-5", 1)) for each in ids))
    return ids


def _left(redis: Redis) -> list[str]:
    """The ids in the queue, the next one first."""
    entries: Any = redis.lrange("ids", 0, -1)
    return [json.loads(entry)["headers"]["id"] for entry in reversed(entries)]


def test_one_turn_takes_as_many_as_there_is_room_for_in_their_order(
    redis: Redis, taker: Callable[..., Taker]
) -> None:
    ids = _fill(redis, 10)
    worker = taker(4)
    worker.turn()
    assert worker.taken == ids[:5]  # the one that was asked for, and four
    assert _left(redis) == ids[5:]


def test_one_turn_leaves_something_for_other_workers(redis: Redis, taker: Callable[..., Taker]) -> None:
    _fill(redis, 100)
    worker = taker(1000)
    worker.turn()
    assert len(worker.taken) == AT_ONCE


def test_without_room_it_takes_what_it_asked_for_and_no_more(
    redis: Redis, taker: Callable[..., Taker]
) -> None:
    ids = _fill(redis, 3)
    worker = taker(0)
    worker.turn()
    assert worker.taken == ids[:1]


def test_what_cannot_be_handed_over_goes_back_in_its_order(redis: Redis, taker: Callable[..., Taker]) -> None:
    ids = _fill(redis, 10)
    worker = taker(9)
    worker.breaks_at = 4
    with pytest.raises(OSError, match="the worker ends"):
        worker.turn()
    assert worker.taken == ids[:4]
    assert _left(redis) == ids[5:]


def test_a_fault_of_who_takes_a_message_is_not_taken_for_one_of_the_message(
    redis: Redis, taker: Callable[..., Taker]
) -> None:
    ids = _fill(redis, 3)
    worker = taker(9)
    worker.breaks_at, worker.breaks_with = 1, KeyError("a bug")
    with pytest.raises(KeyError, match="a bug"):
        worker.turn()
    assert _left(redis) == ids[2:]


def test_two_who_take_turns_share_a_few_ids(redis: Redis, taker: Callable[..., Taker]) -> None:
    both = [taker(10, share_of(10)) for _ in range(2)]
    _fill(redis, 12)
    while _left(redis):
        for each in both:
            each.turn()
    assert [len(each.taken) for each in both] == [6, 6]


@pytest.mark.parametrize(("slots", "share"), [(1, 1), (3, 1), (10, 2), (100, 25), (1000, AT_ONCE)])
def test_a_read_takes_a_quarter_of_the_slots_and_one_at_least(slots: int, share: int) -> None:
    assert share_of(slots) == share


def test_a_redis_that_stops_between_two_reads_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport_module, "PATIENCE_S", 1.0)  # to connect it must do, too
    with throwaway_redis() as url, Redis.from_url(url) as redis:
        _fill(redis, 3)
        worker = Taker(url, 10)
        server = psutil.Process(redis.info("server")["process_id"])

        def room() -> int:
            server.suspend()
            return 10

        worker.channel.room = room
        begun = monotonic()
        with pytest.raises(RedisTimeout):
            worker.turn()
        assert monotonic() - begun < 5
        server.resume()
        worker.connection.close()


def test_a_redis_that_refuses_a_read_after_a_rest_is_met_by_the_next_one(
    redis: Redis, taker: Callable[..., Taker]
) -> None:
    worker = taker(9)
    redis.hset("ids", "no", "list")
    worker.channel._look("ids", b"ids")
    with pytest.raises(ResponseError):
        worker.turn()


def test_what_is_no_message_does_not_take_others_with_it(redis: Redis, taker: Callable[..., Taker]) -> None:
    ids = _fill(redis, 2)
    redis.lpush("ids", b"no json", b"{}", b'{"headers": {}, "properties": {}}')
    ids += _fill(redis, 4)[2:]
    worker = taker(20)
    worker.turn()
    assert worker.taken[:2] == ids[:2]
    assert worker.taken[-1] == ids[-1]
    assert redis.llen("ids") == 0


def test_one_client_serves_all_that_a_channel_does(taker: Callable[..., Taker]) -> None:
    (channel,) = taker(1).connection._connection.channels
    with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
        assert first is second


def test_two_workers_share_what_comes_in_a_trickle(
    start_worker: Start, subject: str, wait_until: Wait
) -> None:
    one = start_worker(100)
    other = start_worker(100, queue=one.queue)
    for sent in range(10, 101, 10):
        one.send("tell_process", subject, times=10)
        wait_until(lambda: len(one.notes(subject)) == sent)  # noqa: B023  # it waits here
    shares = [one.notes(subject).count(str(worker.pid)) for worker in (one, other)]
    assert sum(shares) == 100
    assert min(shares) >= 15


def test_two_workers_share_a_heap(start_worker: Start, subject: str, wait_until: Wait) -> None:
    one = start_worker(100)
    other = start_worker(100, queue=one.queue)
    one.send("tell_process", subject, times=400)
    wait_until(lambda: len(one.notes(subject)) == 400)
    assert min(one.notes(subject).count(str(worker.pid)) for worker in (one, other)) >= 60


def test_a_heap_costs_few_round_trips(start_worker: Start, subject: str, wait_until: Wait) -> None:
    queue = f"queue-{uuid4().hex}"
    idle = start_worker(1)  # for its app alone
    heap = Worker(app=idle.app, redis=idle.redis, queue=queue, process=idle._process, log=idle._log)
    heap.send("tell_process", subject, times=320)
    with idle.redis.monitor() as told:
        worker = start_worker(500, queue=queue)
        wait_until(lambda: len(worker.notes(subject)) == 320)
        idle.redis.echo(UNTIL_NOW)
        assert 320 / AT_ONCE <= _reads_of(queue, told) < 60


def _reads_of(queue: str, told: Any) -> int:
    """How often that queue was read; other workers read others."""
    count = 0
    for each in told.listen():
        command, *words = each["command"].split()
        if (command, *words) == ("ECHO", UNTIL_NOW):
            return count
        count += command in {"BRPOP", "RPOP"} and queue in words
    raise AssertionError("it ends only with the connection")
