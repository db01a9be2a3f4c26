"""What only the shared limiter can show: its keys, Redis away and lost, replies lost, and real processes."""

import asyncio
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from redis._parsers import BaseParser
from redis.asyncio import Redis

from promptmill.dimensions import Amounts, Headroom
from promptmill.embedded.redis import find_server
from promptmill.errors import LimitReached
from promptmill.limits import Ceilings, Pacing, Pool, RedisLimiter
from promptmill.limits.desk import Ask, DeskUnavailable
from promptmill.limits.records import LAYOUT
from promptmill.limits.redis_desk import RedisDesk
from promptmill.limits.scripts import POOLS, PREFIX, Call, Calls
from promptmill.limits.wire import Wire, is_refusal
from tests.ports import free_port

POOL = Pool("an {odd} account", "group")
CALL = Amounts(1, 100, 20)
CEILINGS = Ceilings(6000, 0, 0)
AT_ONCE = Pacing(ramp_start=1.0)
RECORD = f"{PREFIX}{{{POOL.tag}}}:record"
PLENTY = Headroom(6000, 6000, None, None, None, None)


@pytest.fixture
async def client(clean_redis: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(clean_redis, decode_responses=True) as client:
        yield client


class OwnRedis:
    """A server that the test stops and starts, empty, at one address."""

    def __init__(self) -> None:
        self.port = free_port()
        self.server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        arguments = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        self.server = subprocess.Popen([str(find_server()), *arguments], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.01)
            else:
                return
        pytest.fail("Redis did not start")

    def stop(self) -> None:
        if self.server:
            self.server.kill()
            self.server.wait()
            self.server = None


@pytest.fixture
def own_redis() -> Iterator[OwnRedis]:
    server = OwnRedis()
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def limiter(own_redis: OwnRedis) -> AsyncIterator[RedisLimiter]:
    limiter = RedisLimiter(own_redis.url, ceilings=lambda _: CEILINGS, pacing=AT_ONCE)
    yield limiter
    await limiter.aclose()


async def test_all_keys_of_a_pool_expire_and_lie_in_one_slot(clean_redis: str, client: Redis) -> None:
    limiter = RedisLimiter(client, ceilings=lambda _: CEILINGS, pacing=AT_ONCE, process="ann")
    permits = [await limiter.acquire(POOL, CALL, patience=1) for _ in range(3)]
    await limiter.beat()
    await limiter.settle(permits[0], CALL, PLENTY)
    await client.zadd(f"{PREFIX}{{{POOL.tag}}}:processes", {"ann": 1.0})
    other = RedisLimiter(clean_redis, ceilings=lambda _: CEILINGS)
    await other.peek(POOL)
    await other.beat()
    names = [name async for name in client.scan_iter() if name != POOLS]
    kinds = {name.removeprefix(f"{PREFIX}{{{POOL.tag}}}:").split(":")[0] for name in names}
    assert kinds == {"record", "processes", "expired"}
    assert "{odd}" not in POOL.tag
    for name in names:
        assert name.startswith(f"{PREFIX}{{{POOL.tag}}}:")
        assert await client.ttl(name) > 0
    await limiter.aclose()
    await other.aclose()


async def test_a_client_that_was_given_stays_open(client: Redis) -> None:
    limiter = RedisLimiter(client, ceilings=lambda _: CEILINGS)
    await limiter.acquire(POOL, CALL, patience=1)
    await limiter.aclose()
    assert await client.ping()


async def test_a_repeated_question_is_not_charged_again(clean_redis: str) -> None:
    wire = Wire(clean_redis, AT_ONCE)
    calls = Calls(POOL, "ann")
    question = calls.acquire([Ask("one", CALL, 15), Ask("two", CALL, 15)], CEILINGS, None)
    first, again = await wire.run([question, question])
    (record,) = await wire.run([calls.peek(None)])
    assert len(first[0]) == len(again[0]) == 2
    assert b"2" in record
    await wire.aclose()


async def test_scripts_that_redis_has_forgotten_are_loaded_again(clean_redis: str, client: Redis) -> None:
    limiter = RedisLimiter(clean_redis, ceilings=lambda _: CEILINGS, pacing=AT_ONCE)
    await limiter.acquire(POOL, CALL, patience=1)
    await client.script_flush()
    await limiter.acquire(POOL, CALL, patience=1)
    assert (await limiter.peek(POOL)).in_flight == 2
    await limiter.aclose()


async def test_a_record_of_another_layout_is_taken_as_absent(clean_redis: str, client: Redis) -> None:
    await client.set(f"{PREFIX}{{{POOL.tag}}}:record", "something that another version wrote")
    limiter = RedisLimiter(clean_redis, ceilings=lambda _: CEILINGS)
    await limiter.acquire(POOL, CALL, patience=1)
    assert (await limiter.peek(POOL)).in_flight == 1
    await limiter.aclose()


def of_layout(layout: float) -> bytes:
    return struct.pack("<d", layout) + b"what only that version can read"


async def test_a_record_of_an_older_layout_is_replaced(clean_redis: str, client: Redis) -> None:
    await client.set(RECORD, of_layout(LAYOUT - 1))
    await client.hset(f"{PREFIX}{{{POOL.tag}}}:permits:dead", "one", of_layout(1.79e9))
    await client.zadd(f"{PREFIX}{{{POOL.tag}}}:processes", {"dead": 1.0})
    limiter = RedisLimiter(clean_redis, ceilings=lambda _: CEILINGS)
    await limiter.acquire(POOL, CALL, patience=1)
    await limiter.beat()
    assert (await limiter.peek(POOL)).in_flight == 1
    await limiter.aclose()


async def test_a_record_of_a_newer_layout_is_left_alone_and_nothing_is_granted(
    clean_redis: str, client: Redis
) -> None:
    limiter = RedisLimiter(clean_redis, ceilings=lambda _: CEILINGS, pacing=AT_ONCE)
    permits = [await limiter.acquire(POOL, CALL, patience=1) for _ in range(3)]
    await client.set(RECORD, of_layout(LAYOUT + 1))
    await client.zadd(f"{PREFIX}{{{POOL.tag}}}:processes", {"dead": 1.0})
    with pytest.raises(DeskUnavailable, match="newer"):
        await limiter.peek(POOL)
    with pytest.raises(LimitReached, match="a newer Promptmill"):
        await limiter.acquire(POOL, CALL, patience=0.2)
    await asyncio.wait_for(limiter.settle(permits[0], CALL, PLENTY), timeout=30)
    await asyncio.wait_for(limiter.release(permits[1]), timeout=30)
    await asyncio.wait_for(limiter.penalise(permits[2], status=429, retry_after=1), timeout=30)
    await limiter.beat()
    with pytest.raises(DeskUnavailable):
        await limiter.teach(POOL, Ceilings(1000))
    await limiter.aclose()
    async with Redis.from_url(clean_redis) as raw:
        assert await raw.get(RECORD) == of_layout(LAYOUT + 1)


class DeafWire(Wire):
    """Does what it is asked, and loses the next reply on the way back."""

    deaf = False

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        replies = await super().run(calls)
        if self.deaf:
            self.deaf = False
            raise DeskUnavailable("the reply was lost")
        return replies


async def test_permits_whose_reply_was_lost_are_given_back(clean_redis: str) -> None:
    wire = DeafWire(clean_redis, AT_ONCE)
    desk = RedisDesk(wire, POOL, process="ann", ceilings=lambda: CEILINGS, pacing=AT_ONCE)
    wire.deaf = True
    with pytest.raises(DeskUnavailable):
        await desk.acquire([Ask("one", CALL, 15.0), Ask("two", CALL, 15.0)])
    await desk.confirm()
    record, _ = await desk.peek()
    assert record.in_flight == 0
    await desk.aclose()
    await wire.aclose()


async def test_nothing_is_granted_while_redis_is_away(own_redis: OwnRedis, limiter: RedisLimiter) -> None:
    await limiter.acquire(POOL, CALL, patience=1)
    own_redis.stop()
    begun = time.monotonic()
    with pytest.raises(LimitReached, match="Redis"):
        await limiter.acquire(POOL, CALL, patience=1)
    assert 0.9 <= time.monotonic() - begun <= 4


async def test_who_waits_is_served_when_redis_is_back(own_redis: OwnRedis, limiter: RedisLimiter) -> None:
    await limiter.acquire(POOL, CALL, patience=1)
    own_redis.stop()
    waiting = asyncio.create_task(limiter.acquire(POOL, CALL, patience=20))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    await asyncio.to_thread(own_redis.start)
    await waiting


async def test_reports_are_kept_while_redis_is_away(own_redis: OwnRedis, limiter: RedisLimiter) -> None:
    permits = [await limiter.acquire(POOL, CALL, patience=1) for _ in range(5)]
    server = own_redis.server
    assert server is not None
    own_redis.stop()
    for permit in permits[:3]:
        await asyncio.wait_for(limiter.settle(permit, CALL), timeout=30)
    await asyncio.wait_for(limiter.penalise(permits[3], status=429, retry_after=30), timeout=30)
    await asyncio.to_thread(own_redis.start)
    # The record is new, but the refusal is not forgotten: it was kept, and holds for the pool.
    assert await pause_is_seen(limiter)


async def test_reports_are_kept_while_redis_refuses_to_write(
    own_redis: OwnRedis, limiter: RedisLimiter
) -> None:
    permits = [await limiter.acquire(POOL, CALL, patience=1) for _ in range(3)]
    async with Redis.from_url(own_redis.url) as client:
        await client.config_set("min-replicas-to-write", 1)
        for permit in permits:
            await asyncio.wait_for(limiter.settle(permit, CALL), timeout=30)
        with pytest.raises(LimitReached):
            await limiter.acquire(POOL, CALL, patience=0.1)
        await client.config_set("min-replicas-to-write", 0)
    await in_flight_becomes(limiter, 0)


async def in_flight_becomes(limiter: RedisLimiter, wanted: int) -> None:
    for _ in range(250):
        if (await settled_peek(limiter)).in_flight == wanted:
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"{wanted} calls were never in flight")


@pytest.mark.parametrize(
    ("reply", "later"),
    [
        (b"NOREPLICAS Not enough good replicas to write.", True),
        (b"MISCONF Redis is configured to save RDB snapshots", True),
        (b"BUSY Redis is busy running a script.", True),
        (b"LOADING Redis is loading the dataset in memory", True),
        (b"MOVED 3999 127.0.0.1:6381", True),
        (b"ASK 3999 127.0.0.1:6381", True),
        (b"NOPERM this user has no permissions to run the 'evalsha' command", True),
        (b"FRESHCODE of a version to come", True),
        (b"ERR Error running script (call to f_0): @user_script:3: -NOREPLICAS Not enough", True),
        (b"ERR user_script:12: attempt to index a nil value script: f_0, on @user_script:12.", False),
        (b"WRONGTYPE Operation against a key holding the wrong kind of value", False),
        (b"CROSSSLOT Keys in request don't hash to the same slot", False),
    ],
)
def test_every_refusal_but_a_fault_of_the_script_may_be_gone_later(reply: bytes, later: bool) -> None:
    refusal = BaseParser.parse_error(reply.decode())  # type: ignore[no-untyped-call]  # redis-py's own
    assert is_refusal(refusal) is later


async def pause_is_seen(limiter: RedisLimiter) -> bool:
    for _ in range(250):
        if (await settled_peek(limiter)).paused_for > 0:
            return True
        await asyncio.sleep(0.02)
    return False


async def settled_peek(limiter: RedisLimiter) -> Any:
    while True:
        try:
            return await limiter.peek(POOL)
        except DeskUnavailable:
            await asyncio.sleep(0.02)


async def test_a_redis_that_comes_back_empty_starts_gently(own_redis: OwnRedis) -> None:
    limiter = RedisLimiter(own_redis.url, ceilings=lambda _: Ceilings(600, 60_000, 0))
    permit = await limiter.acquire(POOL, CALL, patience=2)
    await limiter.settle(permit, CALL, Headroom(600, 600, 60_000, 60_000, None, None))
    old = await limiter.acquire(POOL, CALL, patience=2)
    own_redis.stop()
    emptied_at = time.monotonic()
    await asyncio.to_thread(own_redis.start)
    await settled_peek(limiter)
    await limiter.settle(old, Amounts(1, 0, 0), Headroom(600, 600, 60_000, 60_000, None, None))
    state = await limiter.peek(POOL)
    assert state.in_flight == 0
    assert state.dimensions[1].capacity == pytest.approx(500)
    assert state.dimensions[1].level <= 500
    begun = time.monotonic()
    for _ in range(3):
        await limiter.acquire(POOL, CALL, patience=5)
    assert time.monotonic() - begun > 0.8  # two intervals at a fifth of the limit
    share = (await limiter.peek(POOL)).share
    assert share <= 0.2 * 2 ** ((time.monotonic() - emptied_at) / Pacing().ramp_doubling)
    await limiter.aclose()


PROCESS = """
import asyncio, sys, time
from promptmill.dimensions import Amounts
from promptmill.limits import Ceilings, Pool, RedisLimiter

async def main(url, until):
    limiter = RedisLimiter(url, ceilings=lambda _: Ceilings(1200, 240_000, 48_000))
    pool, call = Pool("account", "group"), Amounts(1, 100, 20)

    async def slot():
        while time.time() < until:
            try:
                permit = await limiter.acquire(pool, call, patience=15)
            except Exception:
                return
            print(repr(time.time()), flush=True)
            await asyncio.sleep(0.2)
            await limiter.settle(permit, call)

    await asyncio.gather(*(slot() for _ in range(20)))
    await limiter.aclose()

print("ready", flush=True)
asyncio.run(main(sys.argv[1], float(sys.stdin.readline())))
"""


def test_four_processes_together_stay_under_the_ceiling_and_use_it(
    clean_redis: str, wait_until: Callable[..., None]
) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROCESS, clean_redis],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    until = time.time() + 12
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{until}\n")
        process.stdin.flush()
    counts = [[float(line) for line in process.communicate(timeout=60)[0].split()] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    moments = sorted(moment for each in counts for moment in each)
    rate = 1200 / 60
    for first, begun in enumerate(moments):
        for last in range(first, len(moments)):
            span = moments[last] - begun
            late = 1.5  # s by which a busy machine may wake a waiting call too late
            assert last - first + 1 <= rate * (span + late) + 1
    reached = [moment for moment in moments if moment > moments[0] + 5]
    ramp_at_five = 0.2 * 2**0.5 * rate
    assert len(reached) / (moments[-1] - moments[0] - 5) >= 0.9 * ramp_at_five
    assert min(len(each) for each in counts) >= 0.1 * len(moments)


@pytest.mark.parametrize(
    "path", sorted(Path(str(files("promptmill.limits") / "lua")).glob("*.lua")), ids=lambda path: path.stem
)
def test_every_script_says_first_what_it_takes_touches_and_replies(path: Path) -> None:
    head = path.read_text().split("\n\n")[0].splitlines()
    text = "\n".join(head)
    assert all(line.startswith("--") for line in head)
    if path.stem == "prelude":
        return
    assert "KEYS" in text
    assert "ARGV" in text
    assert "Reply" in text
    assert "Touches only" in text or "Changes nothing" in text
