"""A budget as typed: what is said before, how `run` ends when it is used up, and how it goes on."""

import json
import re
import shlex
from typing import Any

import pytest

from promptmill.simulator.process import SimulatorHandle

pytestmark = pytest.mark.timeout(180)

MODEL = "claude-haiku-5-5"
SUMS = [{"custom_id": f"sum-{n}", "prompt": f"What is {n} + {n}?", "max_tokens": 200} for n in range(60)]
UNPRICED = """
[models.claude-nobody-7]
context_window = 200000
max_output_tokens = 64000
"""


def test_run_stops_with_exit_code_4_and_the_command_it_prints_goes_on(
    cli: Any, claude: SimulatorHandle
) -> None:
    file = cli.file("sums.jsonl", *SUMS)

    done = cli("run", file, "-o", "out.jsonl", "--budget", "0.002", timeout=120)

    assert done.returncode == 4, done.stderr
    assert claude.ledger()["billed"]["cost_nanos"] <= 2_000_000
    assert "stopped: budget of $0.002: " in done.stderr
    assert len((cli.folder / "out.jsonl").read_text().splitlines()) == len(SUMS)
    status = cli.json("status")
    assert (status["state"], status["budget_usd"]) == ("paused", "0.002000000")
    assert (status["reserved_usd"], status["jobs"]["running"]) == ("0.000000000", 0)

    command = re.findall(r"^  promptmill (run .*)$", done.stderr, flags=re.MULTILINE)[-1]
    assert re.fullmatch(r"run sums.jsonl -o out.jsonl --budget 0\.\d+", command)
    watched = cli("submit", file, "--model", MODEL, "--watch")
    assert watched.returncode == 4
    assert f"go on with: promptmill set {status['name']} --budget {command.split()[-1]}" in watched.stderr

    again = cli(*shlex.split(command), timeout=120)  # the amount is enough for all of it

    assert again.returncode == 0, again.stderr
    assert "it was $0.002" in again.stderr
    assert claude.ledger()["answered"] == {"1": len(SUMS)}


def test_a_second_batch_that_its_budget_stops_is_gone_on_with_by_its_own_name(
    cli: Any, claude: SimulatorHandle
) -> None:
    file = cli.file("sums.jsonl", *SUMS)
    cli("submit", file, "--model", MODEL)
    assert cli("cancel", cli.json("list")[0]["name"]).returncode == 0

    done = cli("run", file, "--new", "--budget", "0.000001", timeout=120)

    assert done.returncode == 4, done.stderr
    assert re.search(
        r"^  promptmill run sums.jsonl --budget 0\.\d+ --name sums-\w+-2$", done.stderr, re.MULTILINE
    )
    assert claude.ledger()["answered"] == {}


def test_a_budget_given_to_a_batch_that_exists_holds(cli: Any) -> None:
    file = cli.file("sums.jsonl", *SUMS)
    cli("submit", file, "--model", MODEL)

    done = cli("submit", file, "--model", MODEL, "--budget", "7.5")
    kept = cli("submit", file, "--model", MODEL)

    assert "is $7.50 now; it had none" in done.stderr
    assert "budget" not in kept.stderr
    assert cli.json("status")["budget_usd"] == "7.500000000"
    assert "budget    $7.50: $0.00 spent, $7.50 left" in cli("status").stdout


def test_estimate_and_submit_say_how_far_a_budget_goes(cli: Any) -> None:
    file = cli.file("sums.jsonl", *SUMS)

    short = cli.json("estimate", file, "--model", MODEL, "--budget", "0.003")
    enough = cli("estimate", file, "--model", MODEL, "--budget", "3")
    admitted = cli("submit", file, "--model", MODEL, "--budget", "0.003")

    covers = short["budget_covers"]
    assert short["budget_usd"] == "0.003000000"
    assert 0 < covers["low"] <= covers["expected"] <= covers["high"] < len(SUMS)
    assert "budget    $3.00, enough for all prompts" in enough.stdout
    assert f"used up after about {covers['expected']} of 60 prompts; the batch pauses then" in " ".join(
        admitted.stderr.split()
    )


@pytest.mark.parametrize("amount", ["0", "-1", "1,5", "much", "nan", "0.0000000001"])
def test_what_is_no_amount_is_wrong_usage_and_named(cli: Any, amount: str) -> None:
    done = cli("submit", cli.file("one.jsonl", SUMS[0]), "--model", MODEL, f"--budget={amount}")

    assert done.returncode == 2
    assert amount in done.stderr
    assert "--budget" in done.stderr


def test_no_budget_is_set_for_a_price_nobody_knows(cli: Any) -> None:
    (cli.folder / "promptmill.toml").write_text(UNPRICED, encoding="utf-8")
    cli("submit", cli.file("one.jsonl", SUMS[0]), "--model", "claude-nobody-7", "--name", "one")

    done = cli("set", "one", "--budget", "5")

    assert done.returncode == 2
    assert "the price of claude-nobody-7 is unknown" in done.stderr
    assert cli.json("status")["budget_usd"] is None
    assert cli("set", "one", "--budget", "none", "--priority", "high").returncode == 0


def test_no_budget_is_promised_for_a_price_nobody_knows(cli: Any) -> None:
    (cli.folder / "promptmill.toml").write_text(UNPRICED, encoding="utf-8")
    file = cli.file("one.jsonl", SUMS[0])

    done = cli("submit", file, "--model", "claude-nobody-7", "--budget", "5")

    assert done.returncode == 1
    assert "the price of 1 of 1 prompts is unknown" in done.stderr
    assert json.loads(cli("list", "--json").stdout) == []
