"""`promptmill run`: the whole thing on one machine."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from promptmill.simulator.process import SimulatorHandle
from promptmill.testing import simulated_claude

pytestmark = pytest.mark.timeout(180)

SUMS = [{"custom_id": f"sum-{n}", "prompt": f"What is {n} + {n}?"} for n in range(40)]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@dataclass(frozen=True)
class Finished:
    """A run of all sums that has ended."""

    cli: Any
    claude: SimulatorHandle
    said: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, make_cli: Callable[..., Any]) -> Iterator[Finished]:
    with simulated_claude() as claude:
        cli = make_cli(tmp_path_factory.mktemp("finished"), claude)
        done = cli("run", cli.file("sums.jsonl", *SUMS), "-o", "out.jsonl")
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
        yield Finished(cli, claude, done.stderr)


def test_every_prompt_is_answered_once_in_the_order_of_the_file(finished: Finished) -> None:
    answers = lines(finished.cli.folder / "out.jsonl")

    assert [line["custom_id"] for line in answers] == [row["custom_id"] for row in SUMS]
    assert finished.claude.ledger()["answered"] == {"1": len(SUMS)}
    assert "40 answers of 40 prompts" in finished.said
    assert "0 refused with 429" in finished.said


def test_run_again_asks_nothing_twice(finished: Finished) -> None:
    again = finished.cli("run", "sums.jsonl", "-o", "again.jsonl")

    assert again.returncode == 0, again.stderr
    assert "40 prompts, submitted before; nothing is left to ask" in again.stderr
    assert "estimated" not in again.stderr
    assert finished.claude.ledger()["answered"] == {"1": len(SUMS)}
    folder = finished.cli.folder
    assert (folder / "again.jsonl").read_bytes() == (folder / "out.jsonl").read_bytes()


def test_the_cost_and_tokens_are_those_of_the_bill(finished: Finished) -> None:
    status = finished.cli.json("status")

    billed = finished.claude.ledger()["billed"]
    assert status["cost_usd"] == billed["cost_usd"]
    assert status["usage"]["output_tokens"] == billed["usage"]["output_tokens"]


def test_nothing_runs_afterwards(finished: Finished) -> None:
    assert processes_of(finished.cli.folder) == []


def test_without_key_and_address_a_simulated_claude_answers_and_that_is_said(bare_cli: Any) -> None:
    done = bare_cli("run", bare_cli.file("one.jsonl", {"prompt": "Hello"}), "-o", "out.jsonl")

    assert done.returncode == 0, done.stderr
    assert "simulated Claude answers" in done.stderr
    assert "1 of them is an answer of the simulated Claude" in done.stderr
    assert lines(bare_cli.folder / "out.jsonl")[0]["simulated"] is True


def test_killed_with_9_it_leaves_nothing_running(cli: Any, wait_until: Callable[..., None]) -> None:
    with simulated_claude(first_token_s=5, jitter=0) as slow:
        running = cli.start("run", cli.file("sums.jsonl", *SUMS), ANTHROPIC_BASE_URL=slow.url)
        wait_until(lambda: in_flight(slow) > 0, timeout=60)

        running.kill()
        running.communicate()

        wait_until(lambda: processes_of(cli.folder) == [], timeout=60)


def test_ctrl_c_drains_and_says_how_to_go_on(cli: Any, wait_until: Callable[..., None]) -> None:
    with simulated_claude(first_token_s=1.5, jitter=0, faults=[{"kind": "hold", "times": 10}]) as slow:
        file = cli.file("sums.jsonl", *SUMS)
        words = ["run", file, "-o", "out.jsonl"]
        environment = {"ANTHROPIC_BASE_URL": slow.url, "PROMPTMILL_CONCURRENCY": "10"}
        running = cli.start(*words, **environment)
        wait_until(lambda: in_flight(slow) == 10, timeout=60)
        running.send_signal(signal.SIGINT)
        wait_until(lambda: is_draining(cli.folder), timeout=30)
        slow.set_scenario()
        _, said = running.communicate(timeout=60)

        assert running.returncode == 130, said
        assert "promptmill run sums.jsonl -o out.jsonl" in said
        answered = slow.ledger()["answered"].get("1", 0)
        assert 0 < answered < len(SUMS)
        status = cli.json("status")
        assert status["jobs"]["succeeded"] == answered
        assert status["jobs"]["running"] == 0

        done = cli(*words, timeout=120, **environment)

        assert done.returncode == 0, done.stderr
        assert slow.ledger()["answered"] == {"1": len(SUMS)}
        assert len(lines(cli.folder / "out.jsonl")) == len(SUMS)


def test_ctrl_c_after_which_nothing_is_left_is_a_run_that_finished(
    cli: Any, wait_until: Callable[..., None]
) -> None:
    with simulated_claude(faults=[{"kind": "hold", "times": 5}]) as slow:
        file = cli.file("sums.jsonl", *SUMS[:5])
        running = cli.start("run", file, "-o", "out.jsonl", ANTHROPIC_BASE_URL=slow.url)
        wait_until(lambda: in_flight(slow) == 5, timeout=60)
        running.send_signal(signal.SIGINT)
        wait_until(lambda: is_draining(cli.folder), timeout=30)
        slow.set_scenario()
        _, said = running.communicate(timeout=60)

    assert running.returncode == 0, said
    assert said.count("finish first") == 1
    assert "5 answers of 5 prompts" in said
    assert "interrupted" not in said
    assert len(lines(cli.folder / "out.jsonl")) == 5


def test_ctrl_c_twice_leaves_at_once(cli: Any, wait_until: Callable[..., None]) -> None:
    with simulated_claude(faults=[{"kind": "hold"}]) as stuck:
        running = cli.start("run", cli.file("sums.jsonl", *SUMS), ANTHROPIC_BASE_URL=stuck.url)
        wait_until(lambda: in_flight(stuck) > 0, timeout=60)
        running.send_signal(signal.SIGINT)
        wait_until(lambda: is_draining(cli.folder), timeout=30)
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(2)
        running.send_signal(signal.SIGINT)

        _, said = running.communicate(timeout=30)

    assert running.returncode == 130, said
    assert processes_of(cli.folder) == []


def test_a_prompt_that_is_refused_gives_exit_code_3_and_its_reason(cli: Any, claude: SimulatorHandle) -> None:
    claude.set_scenario(fault=[{"kind": "server_error", "status": 400, "nth": 2}])

    done = cli("run", cli.file("sums.jsonl", *SUMS[:5]), "-o", "out.jsonl")

    assert done.returncode == 3, done.stderr
    assert "not answered: 1 prompt_rejected" in done.stderr
    states = [line["state"] for line in lines(cli.folder / "out.jsonl")]
    assert sorted(states) == ["errored"] + ["succeeded"] * 4
    error = next(line["error"] for line in lines(cli.folder / "out.jsonl") if line["error"])
    assert error["status"] == 400


def test_a_deadline_that_passed_gives_exit_code_4(cli: Any) -> None:
    done = cli("run", cli.file("sums.jsonl", *SUMS[:5]), "--deadline", "1s")

    assert done.returncode == 4, done.stderr
    assert "not answered: 5 expired" in done.stderr


def test_a_folder_of_the_persons_own_called_workers_is_not_taken_for_ours(cli: Any) -> None:
    for name in ("workers", "promptmill", "producers"):
        (cli.folder / name).mkdir()
        (cli.folder / name / "__init__.py").write_text("raise RuntimeError('not ours')\n")
    (cli.folder / "celeryconfig.py").write_text("raise RuntimeError('not ours')\n")

    done = subprocess.run(
        [Path(sys.executable).with_name("promptmill"), "run", cli.file("one.jsonl", SUMS[0])],
        cwd=cli.folder,
        env={**os.environ, **cli.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_a_wrong_key_is_said_within_seconds_and_loses_nothing(cli: Any) -> None:
    file = cli.file("sums.jsonl", *SUMS[:5])
    with simulated_claude(organizations={"ours": ["sk-ant-right-key"]}, only_known_keys=True) as strict:
        wrong = {"ANTHROPIC_BASE_URL": strict.url, "ANTHROPIC_API_KEY": "sk-ant-wrong-key"}
        done = cli("run", file, "-o", "out.jsonl", **wrong)

        assert done.returncode == 1, done.stderr
        assert "ANTHROPIC_API_KEY" in done.stderr
        assert "wrong-key" not in done.stderr
        assert "0 answers of 5 prompts" in done.stderr
        assert "Then go on with:\n  promptmill run sums.jsonl -o out.jsonl" in done.stderr
        assert len(lines(cli.folder / "out.jsonl")) == 5
        assert cli.json("status")["jobs"]["errored"] == 0

        again = cli("run", file, ANTHROPIC_BASE_URL=strict.url, ANTHROPIC_API_KEY="sk-ant-right-key")

    assert again.returncode == 0, again.stderr


def test_an_unreachable_redis_is_said_with_the_setting_to_change(cli: Any) -> None:
    done = cli(
        "run", cli.file("one.jsonl", SUMS[0]), timeout=20, PROMPTMILL_REDIS_URL="redis://127.0.0.1:1/0"
    )

    assert done.returncode == 1
    assert "PROMPTMILL_REDIS_URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreachable_database_is_said_with_the_setting_to_change(cli: Any) -> None:
    done = cli(
        "run",
        cli.file("one.jsonl", SUMS[0]),
        timeout=20,
        PROMPTMILL_DATABASE_URL="postgresql://127.0.0.1:1/x",
    )

    assert done.returncode == 1
    assert "PROMPTMILL_DATABASE_URL" in done.stderr


def test_an_endpoint_that_does_not_answer_is_said_with_the_setting_to_change(cli: Any) -> None:
    done = cli("run", cli.file("one.jsonl", SUMS[0]), timeout=20, ANTHROPIC_BASE_URL="http://127.0.0.1:1")

    assert done.returncode == 1
    assert "ANTHROPIC_BASE_URL" in done.stderr


def test_an_output_that_cannot_be_written_is_said_before_anything_is_asked(
    cli: Any, claude: SimulatorHandle
) -> None:
    done = cli("run", cli.file("one.jsonl", SUMS[0]), "-o", "no/such/folder/out.jsonl")

    assert done.returncode == 2
    assert claude.ledger()["answered"] == {}


def test_three_workers_share_the_work(cli: Any, claude: SimulatorHandle) -> None:
    done = cli("run", cli.file("sums.jsonl", *SUMS), "--workers", "3", timeout=120)

    assert done.returncode == 0, done.stderr
    assert claude.ledger()["answered"] == {"1": len(SUMS)}
    assert {log.name for log in (cli.folder / ".promptmill" / "logs").glob("worker-*.log")} == {
        "worker-1.log", "worker-2.log", "worker-3.log",
    }  # fmt: skip


def test_results_to_standard_output_are_nothing_but_results(cli: Any) -> None:
    done = cli("run", cli.file("sums.jsonl", *SUMS[:3]), "-o", "-")

    assert [json.loads(line)["custom_id"] for line in done.stdout.splitlines()] == ["sum-0", "sum-1", "sum-2"]


def test_chinese_rows_of_a_table_without_a_header_fill_a_template(cli: Any) -> None:
    (cli.folder / "题目.tsv").write_text("三加四等于几\t7\n五减二等于几\t3\n", encoding="utf-8")

    done = cli(
        "run", "题目.tsv", "--columns", "question,answer", "--template", "请回答 {{ question }}", "-o", "out.jsonl"
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert [line["input"]["answer"] for line in lines(cli.folder / "out.jsonl")] == ["7", "3"]


def processes_of(folder: Path) -> list[str]:
    """The command lines of processes whose data folder lies in `folder`."""
    found = []
    for process in psutil.process_iter():
        try:
            home = process.environ().get("PROMPTMILL_HOME", "")
            words = process.cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
        if home.startswith(str(folder)) or any(word.startswith(str(folder)) for word in words):
            found.append(" ".join(words))
    return found


def is_draining(folder: Path) -> bool:
    """Whether the worker of a run has heard that it is to end."""
    return "Warm shutdown" in (folder / ".promptmill" / "logs" / "worker-1.log").read_text()


def in_flight(claude: SimulatorHandle) -> int:
    """Calls that are being answered."""
    return int(claude.ledger()["in_flight"])
