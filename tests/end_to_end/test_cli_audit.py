"""The audit as typed: 0 where everything adds up, 1 and what is wrong where it does not; and errors with their advice."""

import json
import sqlite3
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(180)

MODEL = "claude-haiku-5-5"
ROWS = [{"custom_id": f"row-{n}", "prompt": f"Say {n}"} for n in range(30)]


def _broken(document: Any) -> set[str]:
    return {check["name"] for check in document["checks"] if not check["ok"]}


def test_a_rehearsal_with_faults_holds_against_the_book_of_the_simulator(cli: Any, claude: Any) -> None:
    claude.set_scenario(
        fault=[
            {"kind": "lost_reply", "nth": [2, 9]},
            {"kind": "overloaded", "nth": [4]},
            {"kind": "answer", "nth": [6], "stop_reason": "refusal", "category": "cyber"},
        ]
    )
    cli("run", cli.file("rows.jsonl", *ROWS), "--model", MODEL, "--name", "mine", timeout=120)

    document = cli.json("audit", "mine")

    assert document["ok"]
    assert {"cost", "replies", "ledger_attempts", "ledger_total"} <= {c["name"] for c in document["checks"]}
    notes = {note["name"]: note["count"] for note in document["notes"]}
    assert notes["unknown_connection_failed"] == notes["billed_and_lost"] == 2
    assert cli.json("status", "mine")["not_whole"] == {"refusal": 1}


def test_what_does_not_add_up_is_named_and_the_exit_code_is_1(cli: Any) -> None:
    cli("submit", cli.file("rows.jsonl", *ROWS), "--model", MODEL, "--name", "mine")
    with sqlite3.connect(cli.folder / ".promptmill" / "promptmill.db") as database:
        database.execute("UPDATE batch SET cost_nanos = 5, succeeded = 1")
    database.close()

    shown = cli("audit", "mine")
    told = cli("audit", "mine", "--json")

    assert (shown.returncode, told.returncode) == (1, 1)
    assert "WRONG" in shown.stdout
    assert "3 of " in shown.stdout.splitlines()[-1]
    assert [line for line in shown.stdout.splitlines() if len(line) > 80] == []
    assert _broken(json.loads(told.stdout)) == {"cost", "succeeded", "still_open"}


def test_a_book_that_was_asked_for_and_cannot_be_read_is_said_beside_all_other_checks(cli: Any) -> None:
    cli("submit", cli.file("rows.jsonl", *ROWS), "--model", MODEL, "--name", "mine")

    done = cli("audit", "mine", "--ledger", "http://127.0.0.1:1")

    assert done.returncode == 1
    assert "WHAT" in done.stdout
    assert (
        "not compared with the simulator's book: no simulator of this version answers at http://127.0.0.1:1"
        in (" ".join(done.stdout.split()))
    )
    assert done.stdout.splitlines()[-1].endswith("checks hold, but the simulator's book was not read")
    wrong = cli("audit", "mine", "--ledger", "bla")
    assert (wrong.returncode, "bla is no URL" in wrong.stderr) == (2, True)


def test_jobs_that_failed_are_shown_in_groups_with_what_to_do(cli: Any, claude: Any) -> None:
    claude.set_scenario(fault=[{"kind": "server_error", "status": 400, "text": "Say 2"}])
    words = ["run", cli.file("rows.jsonl", *ROWS[:3]), "--model", MODEL, "--name", "mine"]
    ran = cli(*words, timeout=120)

    assert "not answered: 1 prompt_rejected (400 " in ran.stderr
    assert "as row-2 (1 attempt, req_" in " ".join(ran.stderr.split())
    assert "do: the API refuses this request as it is" in ran.stderr
    [group] = cli.json("status", "mine")["errors"]
    assert (group["custom_id"], group["status"], group["attempts"]) == ("row-2", 400, 1)
    [failed] = cli("results", "mine", "--only", "errored").stdout.splitlines()
    assert json.loads(failed)["error"]["advice"] == group["advice"]
