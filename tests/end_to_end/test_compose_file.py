"""What docker-compose.yml promises without being run: what a service may do, and who is given which secret."""

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from promptmill.settings import ClaudeSettings
from tests.end_to_end.compose_place import (
    FACTS,
    FILE,
    OURS,
    ROOT,
    SERVICES,
    as_compose_fills_it_in,
    make_secrets,
)

LONG_RUNNING = sorted(set(SERVICES) - {"migrate"})
GIVEN = {
    "redis": {"redis_password"},
    "postgres": {"postgres_password", "postgres_owner_password", "postgres_app_password"},
    "migrate": {"redis_password", "postgres_owner_password"},
    "worker": {"redis_password", "postgres_app_password"},
    "beat": {"redis_password", "postgres_app_password"},
    "flower": {"redis_password", "flower_basic_auth"},
    "dashboard": {"redis_password", "postgres_app_password", "dashboard_token"},
    "simulator": set(),
    "prometheus": {"dashboard_token"},
    "grafana": {"grafana_password"},
}
COMPOSE = os.environ.get("PROMPTMILL_TEST_COMPOSE") or shutil.which("docker-compose")
"""The real program, for its `config` alone: docs/deployment.md says how to have it without an engine."""


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_can_do_no_more_than_it_must(service: str) -> None:
    facts = SERVICES[service]
    assert facts["read_only"]
    assert facts["init"]
    assert facts["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in facts["security_opt"]
    assert set(facts.get("cap_add", [])) <= {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}
    assert service == "postgres" or not facts["user"].startswith("0")
    assert {"memory", "cpus", "pids"} <= set(facts["deploy"]["resources"]["limits"])
    assert all(port.startswith("127.0.0.1:") for port in facts.get("ports", []))
    assert "latest" not in facts["image"] or service in OURS


@pytest.mark.parametrize("service", LONG_RUNNING)
def test_a_service_that_stays_says_how_it_is(service: str) -> None:
    assert SERVICES[service]["healthcheck"]["test"]
    assert SERVICES[service]["restart"] == "unless-stopped"


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_is_given_the_secrets_that_it_needs_and_no_other(service: str) -> None:
    assert set(SERVICES[service].get("secrets", [])) == GIVEN[service]


@pytest.mark.parametrize(
    ("folder", "services"),
    [
        ("/run/secrets/keys", {"worker"}),
        ("/run/secrets/encryption", {"migrate", "worker", "beat", "dashboard"}),
    ],
)
def test_only_who_needs_it_sees_a_folder_of_secrets(folder: str, services: set[str]) -> None:
    assert {name for name, facts in SERVICES.items() if folder in str(facts.get("volumes"))} == services


def test_no_secret_can_be_put_into_an_environment() -> None:
    for service, facts in SERVICES.items():
        for name, value in facts.get("environment", {}).items():
            if any(word in name for word in ("PASSWORD", "TOKEN", "KEY", "AUTH")):
                assert str(value).startswith("/run/"), f"{service}: {name}"


def test_a_worker_gets_longer_to_stop_than_a_call_may_take() -> None:
    minutes = int(SERVICES["worker"]["stop_grace_period"].removesuffix("m"))
    assert minutes * 60 > ClaudeSettings().total_timeout_s


def test_a_rehearsal_calls_the_simulator_of_this_file() -> None:
    address, _, port = (
        (ROOT / "ops/demo.env").read_text().split("ANTHROPIC_BASE_URL=http://")[1].partition(":")
    )
    assert SERVICES[address]["profiles"] == ["demo"]
    assert SERVICES[address]["command"][-1] == port.strip()


def test_grafana_finds_its_dashboards_and_prometheus() -> None:
    read = YAML(typ="safe").load
    (provider,) = read(ROOT / "ops/grafana/provisioning/dashboards/promptmill.yml")["providers"]
    (source,) = read(ROOT / "ops/grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert f"./ops/grafana/dashboards:{provider['options']['path']}:ro" in SERVICES["grafana"]["volumes"]
    assert source["url"].removeprefix("http://").removesuffix(":9090") in SERVICES


def test_every_file_that_is_named_is_there_or_is_made(tmp_path: Path) -> None:
    made = make_secrets(tmp_path)
    named = [facts["file"] for facts in (*FACTS["secrets"].values(), *FACTS["configs"].values())]
    for file in named:
        assert (ROOT / as_compose_fills_it_in(file, {"MILL_SECRETS": str(made)})).is_file(), file


def test_secrets_are_made_once_and_only_their_owner_can_get_at_them(tmp_path: Path) -> None:
    first = {file: file.read_text() for file in make_secrets(tmp_path).rglob("*") if file.is_file()}
    secrets = make_secrets(tmp_path)

    assert {file: file.read_text() for file in secrets.rglob("*") if file.is_file()} == first
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in first} == {0o444}
    assert len(set(first.values())) == len(first)


def test_a_key_takes_the_place_of_none(tmp_path: Path) -> None:
    key = make_secrets(tmp_path) / "keys/anthropic_api_key"
    assert key.read_text() == "replace-me\n"

    make_secrets(tmp_path, ANTHROPIC_API_KEY="the-first")
    make_secrets(tmp_path, ANTHROPIC_API_KEY="another")

    assert key.read_text() == "the-first\n"


@pytest.fixture(scope="module")
def real() -> dict[str, Any]:
    """The services as the real compose understands the file."""
    if COMPOSE is None:
        pytest.skip("no docker-compose here; PROMPTMILL_TEST_COMPOSE can name one")
    told = subprocess.run(
        [COMPOSE, "--file", FILE, "--profile", "*", "config", "--format", "json", "--no-path-resolution"],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    services: dict[str, Any] = json.loads(told.stdout)["services"]
    return services


def test_the_real_compose_reads_the_file_as_these_tests_do(real: dict[str, Any]) -> None:
    assert set(real) == set(SERVICES)
    for service, facts in SERVICES.items():
        theirs = real[service]
        words = [as_compose_fills_it_in(word, {}) for word in facts.get("command", [])]
        told = {
            name: as_compose_fills_it_in(value, {}) for name, value in facts.get("environment", {}).items()
        }
        # It writes a dollar doubled, so that what it writes can be read again.
        assert [word.replace("$$", "$") for word in theirs.get("command") or []] == words
        assert theirs.get("environment", {}) == told
        assert (
            theirs["healthcheck"]["test"] == facts["healthcheck"]["test"] if "healthcheck" in facts else True
        )
