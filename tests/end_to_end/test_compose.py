"""docker-compose.yml without containers: every service's own command and health check, on real servers.

Only what a container would give is replaced: host names, paths, ports and the values a person has to set.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import Redis
from ruamel.yaml import YAML

from promptmill.embedded.process import free_port
from promptmill.embedded.redis import find_server
from promptmill.testing import simulated_claude

WaitUntil = Callable[..., None]

FILE = Path(__file__).resolve().parents[2] / "docker-compose.yml"
SERVICES: Mapping[str, Any] = YAML(typ="safe").load(FILE.read_text())["services"]
LONG_RUNNING = sorted(set(SERVICES) - {"migrate"})
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?}")
PATIENCE = 60.0  # seconds for a program to be healthy; several programs may share two cores
ASKED_OF_A_PERSON = {"POSTGRES_PASSWORD": "a-password", "FLOWER_BASIC_AUTH": "somebody:a-password"}


@dataclass(frozen=True)
class Place:
    """This machine in the place of the containers' network and file system."""

    values: Mapping[str, str]
    replacements: Mapping[str, str]
    folder: Path

    def text(self, text: object) -> str:
        """`text` as compose would fill it in, and then as it must read here."""
        filled = VARIABLE.sub(self._value, str(text))
        theirs = re.compile("|".join(map(re.escape, self.replacements)))
        return theirs.sub(lambda match: self.replacements[match[0]], filled)

    def environment(self, service: str) -> dict[str, str]:
        own = {name: self.text(value) for name, value in SERVICES[service].get("environment", {}).items()}
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            **own,
        }

    def command(self, words: Sequence[str]) -> list[str]:
        return [self.text(word) for word in words]

    def is_healthy(self, service: str) -> bool:
        kind, *words = SERVICES[service]["healthcheck"]["test"]
        command = ["sh", "-c", *words] if kind == "CMD-SHELL" else words
        asked = subprocess.run(
            self.command(command),
            env=self.environment(service),
            cwd=self.folder,
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )
        return asked.returncode == 0

    @contextmanager
    def running(self, service: str) -> "Iterator[subprocess.Popen[bytes]]":
        log = (self.folder / f"{service}.log").open("wb")
        with (
            log,
            subprocess.Popen(
                self.command(SERVICES[service]["command"]),
                env=self.environment(service),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            try:
                yield process
            finally:
                process.kill()

    def _value(self, match: re.Match[str]) -> str:
        return self.values.get(match["name"]) or (match["rest"] if match["kind"] == "-" else "")


@pytest.fixture
def place(clean_redis: str, postgres_url: str, tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "anthropic_api_key").write_text("sk-ant-not-a-real-one\n")
    with simulated_claude() as claude:
        yield Place(
            values={**ASKED_OF_A_PERSON, "ANTHROPIC_BASE_URL": claude.url, "PROMPTMILL_CONCURRENCY": "20"},
            replacements={
                "redis://redis:6379/0": clean_redis,
                "postgresql://promptmill:a-password@postgres:5432/promptmill": postgres_url,
                "/run/secrets": str(tmp_path),
                "/tmp": str(tmp_path),
                "0.0.0.0": "127.0.0.1",
                "5555": str(free_port()),
            },
            folder=tmp_path,
        )


@pytest.mark.parametrize("service", ["worker", "beat", "flower"])
def test_a_service_becomes_healthy_and_ends_cleanly_when_it_is_stopped(
    service: str, place: Place, wait_until: WaitUntil
) -> None:
    assert not place.is_healthy(service)
    with place.running(service) as process:
        wait_until(lambda: process.poll() is not None or place.is_healthy(service), timeout=PATIENCE)
        assert process.poll() is None, (place.folder / f"{service}.log").read_text()
        process.terminate()
        assert process.wait(PATIENCE) == 0


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
        subprocess.run(
            place.command(SERVICES["migrate"]["command"]),
            env=place.environment("migrate"),
            cwd=place.folder,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        assert connection.execute("SELECT count(*) FROM job").fetchone() == (0,)


def test_redis_forgets_nothing_and_evicts_nothing(place: Place, wait_until: WaitUntil) -> None:
    port = free_port()
    program, *flags = SERVICES["redis"]["command"]
    assert program == "valkey-server"
    command = [find_server(), *flags, "--port", str(port), "--bind", "127.0.0.1"]
    log = place.folder / "redis.log"
    with log.open("wb") as output, subprocess.Popen(command, cwd=place.folder, stdout=output) as process:
        try:
            wait_until(lambda: b"Ready to accept connections" in log.read_bytes())
            with Redis(port=port, decode_responses=True) as client:
                assert client.config_get("appendonly", "save", "maxmemory-policy") == {
                    "appendonly": "yes",
                    "save": "",
                    "maxmemory-policy": "noeviction",
                }
        finally:
            process.terminate()


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_can_do_no_more_than_it_must(service: str) -> None:
    facts = SERVICES[service]
    assert facts["read_only"]
    assert facts["init"]
    assert facts["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in facts["security_opt"]
    assert set(facts.get("cap_add", [])) <= {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}
    assert all(port.startswith("127.0.0.1:") for port in facts.get("ports", []))


@pytest.mark.parametrize("service", LONG_RUNNING)
def test_a_service_that_stays_says_how_it_is(service: str) -> None:
    assert SERVICES[service]["healthcheck"]["test"]
    assert SERVICES[service]["restart"] == "unless-stopped"


def test_only_the_worker_is_given_the_key() -> None:
    assert [name for name in SERVICES if "secrets" in SERVICES[name]] == ["worker"]
    assert "ANTHROPIC_API_KEY" not in " ".join(str(facts) for facts in SERVICES.values()).replace(
        "ANTHROPIC_API_KEY_FILE", ""
    )


def test_nothing_secret_has_a_default() -> None:
    for match in VARIABLE.finditer(FILE.read_text()):
        if match["name"] in ASKED_OF_A_PERSON:
            assert match["kind"] == "?", match[0]


def test_a_worker_gets_longer_to_stop_than_a_call_may_take() -> None:
    from promptmill.settings import ClaudeSettings  # noqa: PLC0415

    minutes = int(SERVICES["worker"]["stop_grace_period"].removesuffix("m"))
    assert minutes * 60 > ClaudeSettings().total_timeout_s
