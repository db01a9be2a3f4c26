"""What a submission would cost, asked before it is made: nothing is written, and the figures learn."""

import json
from typing import Any

import pytest

from tests.ports import free_port

pytestmark = pytest.mark.timeout(180)

MODEL = "claude-haiku-5-5"
ROWS = [{"question": f"What is {n} + {n}?"} for n in range(40)]
ASKED = ("--model", MODEL, "--template", "Answer briefly: {{ question }}")


def test_nothing_is_left_behind(cli: Any) -> None:
    file = cli.file("rows.jsonl", *ROWS)

    done = cli("estimate", file, *ASKED)

    assert done.returncode == 0, done.stderr
    assert [each.name for each in cli.folder.iterdir()] == [file]
    assert "no answers yet: a first guess of 400 tokens" in done.stdout


def test_it_is_what_submit_says_and_what_a_dry_run_says(cli: Any) -> None:
    file = cli.file("rows.jsonl", *ROWS)

    asked = cli.json("estimate", file, *ASKED)
    dry = cli.json("submit", file, *ASKED, "--dry-run")
    submitted = cli.json("submit", file, *ASKED)

    assert asked == dry
    assert asked["estimate"] == submitted["estimate"]
    assert len(cli.json("list")) == 1


def test_the_time_is_what_the_limits_allow(cli: Any) -> None:
    file = cli.file("rows.jsonl", *ROWS)

    unknown = cli("estimate", file, *ASKED, PROMPTMILL_RPM="", PROMPTMILL_ITPM="", PROMPTMILL_OTPM="")
    limited = cli("estimate", file, *ASKED, PROMPTMILL_RPM="20")
    unlimited = cli("estimate", file, *ASKED)

    assert "unknown: no limiter runs here" in unknown.stdout
    assert "2 min 00 s" in limited.stdout
    assert "bound by  requests: 20 a minute" in limited.stdout
    assert "no limit holds" in unlimited.stdout


def test_faults_are_named_as_submit_names_them(cli: Any) -> None:
    done = cli("estimate", cli.file("rows.jsonl", {"other": 1}), *ASKED)

    assert done.returncode == 1
    assert "line 1" in done.stderr
    assert "1 fault, so nothing was estimated:" in done.stderr


def test_a_redis_that_is_set_and_does_not_answer_is_told(cli: Any) -> None:
    file, port = cli.file("rows.jsonl", *ROWS), free_port()

    done = cli("estimate", file, *ASKED, "--json", REDIS_URL=f"redis://127.0.0.1:{port}/0")

    [notice] = json.loads(done.stdout)["notices"]
    assert f"127.0.0.1:{port}/0 does not answer" in notice
    assert notice in " ".join(done.stderr.split())


def test_after_a_run_it_rests_on_answers_and_status_compares(cli: Any) -> None:
    done = cli("run", cli.file("rows.jsonl", *ROWS), *ASKED, timeout=120)
    assert done.returncode == 0, done.stderr

    status = cli.json("status")
    told = cli.json("estimate", cli.file("more.jsonl", *ROWS, *ROWS), *ASKED)

    actual = status["predicted"]["actual"]
    assert status["predicted"]["jobs"] == 40
    assert status["predicted"]["as_admitted"]["output_tokens"] == 40 * 400
    assert actual["cost_usd"] == status["cost_usd"] == status["projected_usd"]
    assert told["estimate"]["rests_on"][0]["template_answers"] == 40
    assert told["estimate"]["output_tokens"] / 80 == pytest.approx(actual["output_tokens"] / 40, rel=0.3)
    assert told["estimate"]["input_tokens"] / 80 == pytest.approx(actual["input_tokens"] / 40, rel=0.05)
    low, high = (told["estimate"][side]["output_tokens"] for side in ("low", "high"))
    assert low < 2 * actual["output_tokens"] < high
    assert "TOKENS OUT" in cli("status").stdout
