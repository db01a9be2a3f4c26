"""The users of ops/redis/users.acl.example can do their work, and nothing of somebody else's."""

import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, RedisError

from promptmill.routes import (
    ANSWER_QUEUE,
    DISPATCHER_LOCK,
    IN_HAND,
    KEY_STATES,
    KEYS_USED,
    MESSAGES_REFUSED,
    PUT_RIGHT,
)
from promptmill.simulator.process import SimulatorHandle
from promptmill.testing import simulated_claude
from tests.end_to_end.conftest import NO_LIMITS, Cli
from tests.end_to_end.guarded import ROLES, GuardedRedis, Programs, guarded_redis
from tests.ports import free_port

FOR_ADMINISTRATORS = (
    *(
        "FLUSHALL",
        "FLUSHDB",
        "KEYS *",
        "SCAN 0",
        "CONFIG SET maxmemory 1",
        "CONFIG GET requirepass",
        "CONFIG REWRITE",
        "SHUTDOWN",
        "SAVE",
    ),
    *("ACL LIST", "ACL SETUSER x on", "MONITOR", "REPLICAOF 127.0.0.1 1", "SCRIPT FLUSH", "FUNCTION LIST"),
    *("CLIENT LIST", "MODULE LIST", "SWAPDB 0 1", "GET other", "SET other 1", "PUBLISH other x"),
)
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def redis(
    tmp_path_factory: pytest.TempPathFactory, wait_until: Callable[..., None]
) -> Iterator[GuardedRedis]:
    folder = tmp_path_factory.mktemp("redis") / "data"
    with guarded_redis(folder, wait_until, {role: f"{role}-pass" for role in ROLES}) as server:
        yield server


@pytest.fixture(scope="module")
def claude() -> Iterator[SimulatorHandle]:
    with simulated_claude() as simulator:
        yield simulator


def test_a_whole_stack_works_and_nothing_it_does_is_denied(
    redis: GuardedRedis,
    claude: SimulatorHandle,
    sqlite_url: str,
    tmp_path: Path,
    wait_until: Callable[..., None],
) -> None:
    environment = {
        "PROMPTMILL_HOME": str(tmp_path / "home"),
        "PROMPTMILL_DATABASE_URL": sqlite_url,
        "PROMPTMILL_LOG_LEVEL": "INFO",
        "ANTHROPIC_BASE_URL": claude.url,
        **NO_LIMITS,
        "PROMPTMILL_RPM": "6000",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    programs = Programs(tmp_path, environment)
    flower, page = free_port(), free_port()
    cli = Cli(tmp_path, {**environment, "PROMPTMILL_REDIS_URL": redis.url("producer")})
    try:
        programs.start(
            "worker", "-A", "workers.app", "worker", "-n", "w@test", PROMPTMILL_REDIS_URL=redis.url("worker")
        )
        programs.start(
            "beat", "-A", "workers.app", "beat", "--pidfile=", PROMPTMILL_REDIS_URL=redis.url("beat")
        )
        programs.start(
            "flower", "-A", "workers.app", "flower", "--address=127.0.0.1", f"--port={flower}",
            PROMPTMILL_REDIS_URL=redis.url("flower"), FLOWER_BASIC_AUTH="a:b",
        )  # fmt: skip
        programs.start(
            "page", "dashboard", "--port", str(page), module="producers.cli",
            PROMPTMILL_REDIS_URL=redis.url("dashboard"),
        )  # fmt: skip
        rows = cli.file("rows.jsonl", *({"prompt": f"number {n}"} for n in range(30)))
        added = cli("schedule", "add", "often", rows, "--every", "2s", "--model", "claude-haiku-4-5")
        assert added.returncode == 0, added.stderr
        done = cli("submit", rows, "--model", "claude-haiku-4-5", "--max-tokens", "50", "--watch", timeout=40)
        assert done.returncode == 0, done.stderr
        for words in (["limits"], ["limits", "--prometheus"], ["list"], ["doctor"], ["keys"]):
            cli(*words)
        wait_until(lambda: _is_up(flower, "/healthcheck") and _is_up(page, "/healthz"), timeout=30)
        assert _is_up(page, "/metrics")
        wait_until(lambda: len(cli.json("list")) > 1, timeout=40)
        assert cli("schedule", "remove", "often").returncode == 0
        assert cli("limits", "forget", "--yes").returncode in (0, 2)
    finally:
        programs.stop()
    assert redis.denied() == []


@pytest.mark.parametrize("role", ROLES)
def test_nobody_can_do_what_only_an_administrator_needs(redis: GuardedRedis, role: str) -> None:
    with Redis.from_url(redis.url(role)) as client:
        for command in FOR_ADMINISTRATORS:
            with pytest.raises(NoPermissionError):
                client.execute_command(*command.split())


@pytest.mark.parametrize("role", ["producer", "dashboard", "flower"])
def test_who_only_looks_or_submits_cannot_put_a_message_into_the_queue(
    redis: GuardedRedis, role: str
) -> None:
    with Redis.from_url(redis.url(role)) as client, pytest.raises(NoPermissionError):
        client.lpush(ANSWER_QUEUE, "x")


@pytest.mark.parametrize("role", ["producer", "dashboard", "flower", "beat"])
@pytest.mark.parametrize(
    "key", [KEY_STATES, KEYS_USED, IN_HAND + "worker_x", PUT_RIGHT, MESSAGES_REFUSED, DISPATCHER_LOCK + "api"]
)
def test_what_workers_tell_and_agree_on_is_written_by_workers_alone(
    redis: GuardedRedis, role: str, key: str
) -> None:
    with Redis.from_url(redis.url(role)) as client:
        for command in (("SET", key, "x"), ("DEL", key), ("HSET", key, "x", "y"), ("HDEL", key, "x")):
            with pytest.raises(NoPermissionError):
                client.execute_command(*command)


@pytest.mark.parametrize("role", ["producer", "beat", "flower", "dashboard"])
def test_what_is_in_the_queue_cannot_be_taken_away(redis: GuardedRedis, role: str) -> None:
    with Redis.from_url(redis.url(role)) as client, pytest.raises(NoPermissionError):
        client.delete(ANSWER_QUEUE)


@pytest.mark.parametrize("role", ["producer", "beat", "dashboard"])
def test_no_control_command_comes_from_who_needs_none(redis: GuardedRedis, role: str) -> None:
    with Redis.from_url(redis.url(role)) as client, pytest.raises(NoPermissionError):
        client.publish("/0.celery.pidbox", "x")


def test_without_a_name_and_a_password_nobody_comes_in(redis: GuardedRedis) -> None:
    with Redis(port=redis.port) as client, pytest.raises(RedisError):
        client.ping()


def _is_up(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
