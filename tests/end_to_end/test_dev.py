"""`./dev`, the one entry for people: what it starts, and what it keeps away from what it starts."""

import ast
import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "dev"


@dataclass
class Started:
    """What `dev` would have become."""

    program: Path = Path()
    arguments: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    before: list[list[str]] = field(default_factory=list)
    fails: bool = False


@pytest.fixture
def dev(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The script as a module, with a demo folder of the test's own; it runs in this Python's environment."""
    loader = SourceFileLoader("dev", str(SCRIPT))
    spec = importlib.util.spec_from_loader("dev", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(module)
    monkeypatch.setattr(module, "DEMO_HOME", tmp_path / "demo")
    monkeypatch.setattr(module, "BIN", Path(sys.executable).parent)
    return module


@pytest.fixture
def started(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Started:
    seen = Started()

    def become(program: Path, arguments: list[str], environment: dict[str, str]) -> None:
        seen.program, seen.arguments, seen.environment = program, arguments, environment

    def succeeds_there(_: Path, arguments: list[str], environment: dict[str, str]) -> bool:
        seen.before.append(arguments)
        seen.environment = environment
        return not seen.fails

    monkeypatch.setattr(dev, "become", become)
    monkeypatch.setattr(dev, "goes_well", succeeds_there)
    return seen


def test_the_demo_answers_its_prompts_and_says_that_claude_is_simulated(dev: Any, started: Started) -> None:
    dev.demo(["--limit", "25"])
    shown = subprocess.run(
        [started.program, *started.arguments],
        env=started.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert shown.returncode == 0, shown.stderr
    assert "25 answers of 25 prompts" in shown.stderr
    assert "simulated" in shown.stderr
    assert len((dev.DEMO_HOME / "answers.jsonl").read_text().splitlines()) == 25


@pytest.mark.parametrize("command", ["demo", "test", "chaos"])
@pytest.mark.parametrize(
    "name", ["REDIS_URL", "DATABASE_URL", "PROMPTMILL_REDIS_URL", "PROMPTMILL_DATABASE_URL"]
)
def test_servers_of_the_surroundings_are_kept_away(
    dev: Any, started: Started, monkeypatch: pytest.MonkeyPatch, command: str, name: str
) -> None:
    monkeypatch.setenv(name, "somebody's")
    getattr(dev, command)([])
    assert name not in started.environment


def test_a_key_makes_the_demo_small_and_says_what_it_costs(
    dev: Any, started: Started, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-test")
    dev.demo([])
    assert started.arguments[-2:] == ["--limit", "20"]
    assert "less than a cent" in capsys.readouterr().out
    assert started.environment["ANTHROPIC_API_KEY"] == "sk-ant-test"
    assert "sk-ant-test" not in " ".join(started.arguments)


def test_the_path_of_a_key_file_means_the_same_in_the_folder_of_the_demo(
    dev: Any, started: Started, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY_FILE", "key.txt")
    dev.demo([])
    assert started.environment["ANTHROPIC_API_KEY_FILE"] == str(tmp_path / "key.txt")


def test_tests_that_kill_are_left_to_chaos(dev: Any, started: Started) -> None:
    dev.test(["-x"])
    assert started.arguments == ["-m", "pytest", "-m", "not chaos", "-x"]


CHAOS_TESTS = ["-m", "pytest", "-m", "chaos", "--hypothesis-profile=random", "-n", "3", "--dist", "worksteal"]


def test_chaos_is_the_tests_of_that_name_and_then_the_run(dev: Any, started: Started) -> None:
    dev.chaos([])
    assert started.before == [CHAOS_TESTS]
    assert started.arguments == ["-m", "tests.chaos.run"]


def test_chaos_can_be_one_of_both(dev: Any, started: Started) -> None:
    dev.chaos(["tests", "-x"])
    assert started.arguments == [*CHAOS_TESTS, "-x"]
    dev.chaos(["run", "--seed", "7"])
    assert started.arguments == ["-m", "tests.chaos.run", "--seed", "7"]
    dev.chaos(["--seed", "7"])  # what a run prints for its repetition
    assert started.arguments == ["-m", "tests.chaos.run", "--seed", "7"]
    assert started.before == []


def test_after_tests_that_failed_nothing_is_broken_for_ten_minutes(dev: Any, started: Started) -> None:
    started.fails = True
    with pytest.raises(SystemExit, match=r"\./dev chaos run"):
        dev.chaos([])
    assert started.arguments == []


def test_an_unknown_command_says_where_the_list_is(dev: Any) -> None:
    with pytest.raises(SystemExit, match=r"\./dev help"):
        dev.main(["dmeo"])


def test_an_old_python_can_read_it_far_enough_to_say_what_is_missing(
    dev: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ast.parse(SCRIPT.read_text(), feature_version=(3, 7))
    monkeypatch.setattr(sys, "version_info", (3, 9, 6))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 to 3\.14, and this is 3\.9"):
        dev.interpreter()


def test_a_stand_in_for_a_python_that_is_not_there_is_passed_over(
    dev: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, body in (("python3.14", "exit 127"), ("python3.12", f'exec {sys.executable} "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(sys, "version_info", (3, 9, 6))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    assert dev.interpreter() in {str(tmp_path / "python3.13"), str(tmp_path / "python3.12")}


def test_the_stamp_changes_with_what_the_environment_is_made_from(
    dev: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lock = tmp_path / "a.lock"
    lock.write_text("one==1")
    monkeypatch.setattr(dev, "DEV_LOCK", lock)
    before = dev.fingerprint()
    assert dev.fingerprint() == before
    lock.write_text("one==2")
    assert dev.fingerprint() != before


WEAK = '{"dependencies": [{"name": "fine", "vulns": []}, {"name": "weak", "vulns": [{"id": "X-1"}]}]}'


@pytest.mark.parametrize(
    ("said", "complaint", "faults"),
    [
        (WEAK, "", ["weak has a known weakness: X-1"]),
        ('{"dependencies": [{"name": "own", "skip_reason": "not found"}]}', "", []),
        ("", "requests.exceptions.ConnectionError: Max retries exceeded", []),
        ("", "ERROR: requirement has no hash", ["pip-audit failed"]),
        ("[]", "", ["pip-audit failed"]),
    ],
)
def test_only_a_service_that_is_not_reached_excuses_pip_audit(
    dev: ModuleType, said: str, complaint: str, faults: list[str]
) -> None:
    assert dev.weaknesses_in(said, complaint) == faults
