"""The services of docker-compose.yml at work: each by its own command, with its own health check and secrets."""

import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.retry import Retry

from promptmill import settings
from promptmill.embedded import throwaway_postgres
from tests.end_to_end.compose_place import OURS, PATIENCE, ROOT, SERVICES, Place, program_of
from tests.ports import free_port

WaitUntil = Callable[..., None]
Running = dict[str, subprocess.Popen[bytes]]
Start = Callable[..., Running]

SUBMIT = ["promptmill", "submit", "/files/prompts.jsonl", "--model", "claude-haiku-4-5", "--name", "greeting"]
CAN_WATCH = bool(shutil.which("prometheus") and shutil.which("wget"))
STACK = ["simulator", "worker", "beat", "flower", "dashboard", *(["prometheus"] if CAN_WATCH else [])]
"""What runs in a rehearsal beside the two servers, in an order in which compose could start it."""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Without a Postgres."""
    return Place.at(tmp_path / "place", free_port(), settings=ROOT / "ops/demo.env")


@pytest.fixture
def place_with_postgres(tmp_path: Path) -> Iterator[Place]:
    """With one of its own, because roles are shared by all databases of a server."""
    with throwaway_postgres() as url:
        place = Place.at(tmp_path / "with_postgres", urlsplit(url).port or 0, settings=ROOT / "ops/demo.env")
        place.set_up_postgres(url)
        yield place


@pytest.fixture
def start(wait_until: WaitUntil) -> Start:
    """`start(stack, place, *services)`: services that were unhealthy before they ran and are healthy now."""

    def start(stack: ExitStack, place: Place, *services: str) -> Running:
        assert not any(place.is_healthy(service) for service in services)
        running = {service: stack.enter_context(place.running(service)) for service in services}
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


@pytest.mark.slow
@pytest.mark.timeout(300)  # seven programs start at once
def test_the_services_answer_a_prompt_together_and_end_cleanly_when_they_are_stopped(
    place_with_postgres: Place, start: Start, wait_until: WaitUntil
) -> None:
    place = place_with_postgres
    (place.folder / "prompts.jsonl").write_text('{"prompt": "Say hello."}\n')
    with ExitStack() as stack:
        redis = start_redis(stack, place, wait_until)
        place.migrate()
        place.set_up_prometheus()
        running = start(stack, place, *STACK)

        submitted = place.execute("worker", *place.command(SUBMIT))
        assert submitted.returncode == 0, submitted.stderr
        results = ["promptmill", "results", "greeting"]
        wait_until(lambda: '"succeeded"' in place.execute("worker", *results).stdout, timeout=PATIENCE)

        if CAN_WATCH:
            targets = f"http://127.0.0.1:{place.replacements['9090']}/api/v1/targets"
            wait_until(lambda: '"health":"up"' in read(targets), timeout=PATIENCE)

        assert denied_by_redis(place) == 0
        assert not lines_that_are_no_json(place)
        assert not passwords_in_environments(place, running)
        for service, process in reversed(running.items()):
            program_of(process).terminate()
            assert process.wait(PATIENCE) == 0, place.log(service)
        redis.terminate()
        assert redis.wait(PATIENCE) == 0


def lines_that_are_no_json(place: Place) -> list[str]:
    """Of what our services have written; beat may have had nothing to say."""
    lines = [line for service in STACK if service in OURS for line in place.log(service).splitlines()]
    return [line for line in lines if not line.startswith("{")]


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
    found = set()
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
        with pytest.raises(NoPermissionError):
            ours.config_get("requirepass")
        assert ours.info("persistence")["aof_enabled"] == 1
        assert ours.info("memory")["maxmemory_policy"] == "noeviction"


@pytest.mark.parametrize("secret", ["empty", "missing"])
def test_redis_does_not_start_without_its_password(place: Place, secret: str) -> None:
    take_away(place, "redis_password", secret)
    done = place.execute("redis", *place.command(SERVICES["redis"]["command"]))
    assert done.returncode != 0
    assert "redis_password" in done.stderr
    assert "valkey" not in done.stdout


def take_away(place: Place, name: str, secret: str) -> None:
    file = place.folder / "secrets" / name
    file.unlink()
    if secret == "empty":
        file.write_text("\n")


def test_postgres_is_healthy_when_it_takes_connections_and_knows_who_may_do_what(
    place_with_postgres: Place, place: Place
) -> None:
    assert place_with_postgres.is_healthy("postgres")
    assert not place.is_healthy("postgres")
    done = place_with_postgres.execute("worker", *SERVICES["migrate"]["command"])
    assert "permission denied" in done.stderr

    for secret in ("missing", "empty"):
        (place_with_postgres.folder / "secrets/postgres_app_password").touch()
        take_away(place_with_postgres, "postgres_app_password", secret)
        owner = f"postgresql://postgres@127.0.0.1:{place_with_postgres.replacements['5432']}/promptmill"
        done = place_with_postgres.run_script("postgres_passwords", owner)
        assert done.returncode != 0
        assert "postgres_app_password is empty" in done.stderr


@pytest.mark.skipif(
    not (shutil.which("valkey-cli") or shutil.which("redis-cli")), reason="no valkey-cli or redis-cli here"
)
def test_redis_says_that_it_is_healthy_to_its_own_client(place: Place, start: Start) -> None:
    with ExitStack() as stack:
        redis = start(stack, place, "redis")["redis"]
        redis.terminate()
        assert redis.wait(PATIENCE) == 0


def read(url: str) -> str:
    """What is told there; nothing while it is not ready."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return ""


@pytest.mark.parametrize("service", ["worker", "beat"])
def test_who_is_without_redis_is_not_healthy_for_long(place: Place, service: str) -> None:
    pulse = Path(place.environment(service)["PROMPTMILL_WORKER__PULSE_FILE"])
    pulse.touch()
    assert place.is_healthy(service)
    two_minutes_ago = pulse.stat().st_mtime - 120
    os.utime(pulse, (two_minutes_ago, two_minutes_ago))
    assert not place.is_healthy(service)
