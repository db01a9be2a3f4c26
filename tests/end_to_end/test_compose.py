"""The services of docker-compose.yml at work: each by its own command, with its own health check and secrets."""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.retry import Retry

from promptmill import settings
from promptmill.embedded.process import free_port
from tests.end_to_end.compose_place import PATIENCE, ROOT, SERVICES, Place, program_of

WaitUntil = Callable[..., None]
Running = dict[str, subprocess.Popen[bytes]]
Start = Callable[..., Running]

SUBMIT = ["promptmill", "submit", "/files/prompts.jsonl", "--model", "claude-haiku-4-5", "--name", "greeting"]
STACK = ["simulator", "worker", "beat", "flower", "dashboard"]
"""What runs in a rehearsal beside the two servers, in an order in which compose could start it."""


@pytest.fixture
def place(postgres_url: str, tmp_path: Path) -> Place:
    return Place.at(tmp_path, postgres_url, settings=ROOT / "ops/demo.env")


@pytest.fixture
def start(place: Place, wait_until: WaitUntil) -> Start:
    """`start(stack, *services)`: services that were unhealthy before they ran and are healthy now."""

    def start(stack: ExitStack, *services: str, entry: Sequence[str] = ()) -> Running:
        assert not any(place.is_healthy(service) for service in services)
        running = {service: stack.enter_context(place.running(service, *entry)) for service in services}
        for service, process in running.items():
            wait_until(has_ended_or(place, service, process), timeout=PATIENCE)
            assert process.poll() is None, place.log(service)
        return running

    return start


def has_ended_or(place: Place, service: str, process: "subprocess.Popen[bytes]") -> Callable[[], bool]:
    return lambda: process.poll() is not None or place.is_healthy(service)


def start_redis(stack: ExitStack, place: Place, wait_until: WaitUntil) -> "subprocess.Popen[bytes]":
    """Redis has no client of its own everywhere, so here its log says that it is ready."""
    process = stack.enter_context(place.running("redis"))
    wait_until(lambda: process.poll() is not None or "Ready to accept" in place.log("redis"))
    assert process.poll() is None, place.log("redis")
    return process


def test_the_services_answer_a_prompt_together_and_end_cleanly_when_they_are_stopped(
    place: Place, start: Start, wait_until: WaitUntil
) -> None:
    (place.folder / "prompts.jsonl").write_text('{"prompt": "Say hello."}\n')
    with ExitStack() as stack:
        redis = start_redis(stack, place, wait_until)
        running = start(stack, *STACK)

        submitted = place.execute("worker", *place.command(SUBMIT))
        assert submitted.returncode == 0, submitted.stderr
        results = ["promptmill", "results", "greeting"]
        wait_until(lambda: '"succeeded"' in place.execute("worker", *results).stdout, timeout=PATIENCE)

        assert denied_by_redis(place) == 0
        assert passwords_in_environments(place, running) == {("flower", "flower_basic_auth")}
        for service, process in reversed(running.items()):
            program_of(process).terminate()
            assert process.wait(PATIENCE) == 0, place.log(service)
        redis.terminate()
        assert redis.wait(PATIENCE) == 0


def denied_by_redis(place: Place) -> int:
    """How often somebody with the right password was refused a command, a key or a channel."""
    url = settings.load(environ=place.environment("beat"), folder=place.folder).redis_url
    assert url is not None
    with Redis.from_url(url) as client:
        told = client.info("stats")
    return sum(told[f"acl_access_denied_{what}"] for what in ("cmd", "key", "channel"))


def passwords_in_environments(place: Place, running: Running) -> set[tuple[str, str]]:
    """Which secret stands in which process's environment or command line, where the system lets us look."""
    secrets = [file for file in (place.folder / "secrets").iterdir() if file.is_file()]
    found = {("flower", "flower_basic_auth")}  # its own way to be told
    for service, process in running.items():
        looked_at = [Path(f"/proc/{program_of(process).pid}/{name}") for name in ("environ", "cmdline")]
        for file in filter(Path.exists, looked_at):
            found |= {
                (service, each.name) for each in secrets if each.read_bytes().strip() in file.read_bytes()
            }
    return found


def test_redis_forgets_nothing_evicts_nothing_and_lets_nobody_in_without_the_password(
    place: Place, wait_until: WaitUntil
) -> None:
    port = int(place.replacements["redis:6379"].partition(":")[2])
    password = (place.folder / "secrets/redis_password").read_text().strip()
    with ExitStack() as stack:
        start_redis(stack, place, wait_until)
        stranger = stack.enter_context(Redis(port=port, protocol=2, retry=Retry(NoBackoff(), 0)))
        health = stack.enter_context(Redis(port=port, username="health", password="none"))
        ours = stack.enter_context(
            Redis(port=port, username="promptmill", password=password, decode_responses=True)
        )

        with pytest.raises(AuthenticationError):
            stranger.ping()
        assert health.ping()
        with pytest.raises(NoPermissionError):
            health.get("promptmill:anything")
        with pytest.raises(NoPermissionError):
            ours.execute_command("FLUSHALL")
        assert ours.config_get("appendonly", "save", "maxmemory-policy") == {
            "appendonly": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
        }


def test_postgres_is_healthy_when_it_takes_connections_at_its_address(place: Place, tmp_path: Path) -> None:
    assert place.is_healthy("postgres")
    nobody = f"postgresql://promptmill@127.0.0.1:{free_port()}/promptmill"
    (tmp_path / "elsewhere").mkdir()
    assert not Place.at(tmp_path / "elsewhere", nobody, place.settings).is_healthy("postgres")


@pytest.mark.skipif(
    not (shutil.which("valkey-cli") or shutil.which("redis-cli")), reason="no valkey-cli or redis-cli here"
)
def test_redis_says_that_it_is_healthy_to_its_own_client(place: Place, start: Start) -> None:
    with ExitStack() as stack:
        redis = start(stack, "redis")["redis"]
        redis.terminate()
        assert redis.wait(PATIENCE) == 0


@pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("wget") and (ROOT / "ops/prometheus").exists()),
    reason="no prometheus, no wget, or no file for it, here",
)
def test_prometheus_reads_its_file_and_asks_the_page_with_the_token(place: Place, start: Start) -> None:
    with ExitStack() as stack:
        prometheus = start(stack, "prometheus", entry=["prometheus"])["prometheus"]
        prometheus.terminate()
        assert prometheus.wait(PATIENCE) == 0


def test_a_worker_without_redis_is_not_healthy_for_long(place: Place) -> None:
    pulse = Path(place.environment("worker")["PROMPTMILL_WORKER__PULSE_FILE"])
    pulse.touch()
    assert place.is_healthy("worker")
    two_minutes_ago = pulse.stat().st_mtime - 120
    os.utime(pulse, (two_minutes_ago, two_minutes_ago))
    assert not place.is_healthy("worker")


def test_migrating_makes_the_tables_in_an_empty_database(place: Place, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
        done = place.execute("migrate", *place.command(SERVICES["migrate"]["command"]))
        assert done.returncode == 0, done.stderr
        assert connection.execute("SELECT count(*) FROM job").fetchone() == (0,)
