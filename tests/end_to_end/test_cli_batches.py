"""Submitting, looking, controlling and reading, as typed. No worker is needed for most of it."""

import csv
import json
import os
import resource
import shlex
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest
from anthropic.types.messages import MessageBatchIndividualResponse

from promptmill.simulator.process import SimulatorHandle
from promptmill.testing import simulated_claude
from tests.end_to_end.held_submit import ROWS as ROWS_FOR_A_WHILE
from tests.end_to_end.held_submit import held_submit

pytestmark = pytest.mark.timeout(180)

MODEL = "claude-haiku-5-5"
ROWS = [{"custom_id": f"row-{n}", "prompt": f"Say {n}", "note": "=2+3"} for n in range(3)]
ANTHROPIC_ROW = {
    "custom_id": "a-1",
    "params": {"model": MODEL, "max_tokens": 20, "messages": [{"role": "user", "content": "Hi"}]},
}


def test_submit_prints_the_id_and_nothing_else_on_standard_output(cli: Any) -> None:
    done = cli("submit", cli.file("rows.jsonl", *ROWS), "--model", MODEL)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith("batch_")
    assert len(done.stdout.splitlines()) == 1


def test_submit_as_json_tells_jobs_and_the_estimate(cli: Any) -> None:
    told = cli.json("submit", cli.file("rows.jsonl", *ROWS), "--model", MODEL, "--name", "mine")

    assert told["jobs"] == 3
    assert set(told["estimate"]) == {"input_tokens", "output_tokens", "cost_usd", "low", "high", "rests_on"}
    assert told["batch_id"] == cli.json("status", "mine")["batch_id"]


def test_submitted_twice_it_is_one_batch_and_new_makes_another(cli: Any) -> None:
    words = ["submit", cli.file("rows.jsonl", *ROWS), "--model", MODEL]

    first, again, other = (cli(*words).stdout, cli(*words).stdout, cli(*words, "--new").stdout)

    assert first == again != other
    assert len(cli.json("list")) == 2


@pytest.mark.parametrize(
    "words",
    [
        "status", "status mine", "list", "results", "audit", "purge mine", "schedule list", "schedule show it",
        "schedule pause it", "schedule resume it", "schedule run it", "schedule remove it",
    ],
)  # fmt: skip
def test_a_question_in_the_wrong_folder_names_it_and_leaves_none(cli: Any, words: str) -> None:
    done = cli(*words.split())

    assert f"in {cli.folder / '.promptmill'}; make one with: promptmill" in done.stderr
    assert not (cli.folder / ".promptmill").exists()


def test_status_is_the_documented_document(cli: Any) -> None:
    cli("submit", cli.file("rows.jsonl", *ROWS), "--model", MODEL, "--name", "mine")

    status = cli.json("status", "mine")

    assert list(status) == [
        "batch_id", "name", "state", "simulated", "reason", "lane", "jobs", "usage", "cost_usd", "estimate_usd",
        "projected_usd", "predicted", "budget_usd", "reserved_usd", "unknown_usd", "attempts", "failures",
        "errors", "not_whole", "created_at", "started_at", "ended_at", "purged_at", "notify", "elapsed_s", "eta_s",
        "bound_by",
    ]  # fmt: skip
    assert status["state"] == "active"
    assert status["simulated"] is True
    assert status["jobs"] == {
        "total": 3, "pending": 3, "queued": 0, "running": 0, "submitted": 0,
        "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0,
    }  # fmt: skip
    assert set(status["usage"]) == {
        "input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens",
    }  # fmt: skip
    assert status["cost_usd"] == "0.000000000"
    assert status["created_at"].endswith("Z")
    assert status["ended_at"] is None


def test_status_for_people_says_why_nothing_moves(cli: Any) -> None:
    cli("submit", cli.file("rows.jsonl", *ROWS), "--model", MODEL)

    said = cli("status").stdout

    assert "no worker is running" in said
    assert "3 pending of 3" in said


def test_a_batch_can_be_paused_resumed_and_canceled(cli: Any) -> None:
    cli("submit", cli.file("rows.jsonl", *ROWS), "--model", MODEL, "--name", "mine")

    assert cli.json("pause", "mine")["state"] == "paused"
    assert cli.json("status", "mine")["reason"] == "paused by a person"
    assert cli.json("resume", "mine")["state"] == "active"
    canceled = cli.json("cancel", "mine")

    assert canceled["state"] == "ended"
    assert canceled["jobs"]["canceled"] == 3


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--model", "nobody-1", "unknown model 'nobody-1'"),
        ("--max-tokens", "9999999", "9,999,999 is above the 128,000 of"),
        ("--template", "{{", "line 1 of the template: unexpected"),
        ("--notify", "http://example.com", "the address of a webhook begins with https://"),
    ],
)
def test_a_wrong_value_is_told_by_the_name_of_its_option(cli: Any, option: str, value: str, why: str) -> None:
    done = cli("submit", cli.file("rows.jsonl", *ROWS), "--model", MODEL, option, value)

    assert (done.returncode, done.stdout) == (2, "")
    assert f"Invalid value for {option}: {why}" in done.stderr
    assert not (cli.folder / ".promptmill").exists()


def test_a_submit_that_is_refused_leaves_no_folder(cli: Any) -> None:
    done = cli("submit", cli.file("rows.jsonl", *ROWS, {"promt": "x"}), "--model", MODEL)

    assert (done.returncode, "field promt: there is no such field" in done.stderr) == (1, True)
    assert not (cli.folder / ".promptmill").exists()


@pytest.mark.parametrize(
    "unbuffered", ["", "1"]
)  # Python keeps what it could not print, and tries at its end
def test_no_room_for_what_is_printed_is_a_sentence(cli: Any, unbuffered: str) -> None:
    cli("submit", cli.file("rows.jsonl", *ROWS), "--model", MODEL)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "producers.cli", "status"],
            cwd=cli.folder, env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip

    assert done.returncode == 1
    assert done.stderr == (
        "promptmill: standard output: No space left on device; make room, or write elsewhere\n"
    )


def test_what_cannot_be_the_data_folder_is_told_with_its_setting(cli: Any) -> None:
    (cli.folder / ".promptmill").write_text("a file")

    done = cli("submit", cli.file("rows.jsonl", *ROWS), "--model", MODEL)

    assert done.returncode == 1
    assert done.stderr == (
        "promptmill: PROMPTMILL_HOME: .promptmill cannot be the data folder (File exists); name another\n"
    )


@pytest.mark.parametrize(("out", "why"), [(".", ". is a folder"), ("no/out.csv", "does not exist")])
def test_results_that_cannot_be_written_where_they_should_are_wrong_usage(
    cli: Any, out: str, why: str
) -> None:
    done = cli("results", "mine", "-o", out)

    assert (done.returncode, "Invalid value for --output: " in done.stderr, why in done.stderr) == (
        2,
        True,
        True,
    )


def test_a_change_that_is_not_allowed_is_one_line_and_exit_code_1(cli: Any) -> None:
    cli("submit", cli.file("rows.jsonl", *ROWS), "--model", MODEL, "--name", "mine")

    cli("cancel", "mine")
    done = cli("resume", "mine")

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_batch_names_those_there_are(cli: Any) -> None:
    cli("submit", cli.file("rows.jsonl", *ROWS), "--model", MODEL, "--name", "mine")

    done = cli("status", "yours")

    assert done.returncode == 1
    assert "mine" in done.stderr


def test_every_fault_of_a_file_is_named_and_nothing_is_submitted(cli: Any) -> None:
    file = cli.file(
        "bad.jsonl",
        "this is no JSON",
        {"custom_id": "a", "prompt": "fine"},
        {"custom_id": "a", "prompt": "the same id"},
        {"custom_id": "spaces are wrong", "prompt": "x"},
        {"question": "no prompt"},
        {"prompt": "x", "model": "gpt-4o"},
    )

    done = cli("submit", file, "--model", MODEL)

    assert done.returncode == 1
    for words in ("line 1", "line 3", "line 4", "line 5", "line 6", "5 faults"):
        assert words in done.stderr
    assert cli.json("list") == []


def test_rows_with_faults_can_be_left_out(cli: Any) -> None:
    file = cli.file("bad.jsonl", "no JSON", *ROWS)

    done = cli("submit", file, "--model", MODEL, "--skip-invalid")

    assert done.returncode == 0, done.stderr
    assert "left out: bad.jsonl, line 1" in done.stderr
    assert cli.json("status")["jobs"]["total"] == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "no such file"), (b"", "no row"), (b'{"prompt": "\xff"}\n', "UTF-8")],
    ids=["missing", "empty", "not UTF-8"],
)
def test_a_file_that_cannot_be_read_is_named(cli: Any, content: bytes | None, words: str) -> None:
    if content is not None:
        (cli.folder / "file.jsonl").write_bytes(content)

    done = cli("submit", "file.jsonl", "--model", MODEL)

    assert done.returncode == 1
    assert "file.jsonl" in done.stderr
    assert words in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["submit"],
        ["submit", "rows.jsonl", "--bogus"],
        ["submit", "rows.jsonl", "--deadline", "soon"],
        ["submit", "rows.jsonl", "--priority", "urgent"],
        ["submit", "rows.jsonl", "--lane", "bulk"],
        ["submit", "rows.jsonl", "--tag", "team"],
        ["submit", "rows.jsonl", "--system", "@missing.md"],
        ["submit", "rows.jsonl", "--schema", "nowhere:Model"],
        ["results", "--only", "sort-of"],
        ["results", "--format", "xml"],
        ["results", "-o", "out.xlsx"],
        ["fly"],
    ],
)
def test_wrong_usage_is_exit_code_2(cli: Any, words: list[str]) -> None:
    cli.file("rows.jsonl", *ROWS)

    done = cli(*words)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_rows_can_come_from_standard_input(cli: Any) -> None:
    done = cli("submit", "-", "--model", MODEL, stdin='{"prompt": "one"}\n{"prompt": "two"}\n')

    assert done.returncode == 0, done.stderr
    assert cli.json("status")["jobs"]["total"] == 2


def test_results_come_in_every_format(cli: Any) -> None:
    done = cli("run", cli.file("rows.jsonl", *ROWS, ANTHROPIC_ROW))
    assert done.returncode == 0, done.stderr
    names = ["row-0", "row-1", "row-2", "a-1"]

    lines = [json.loads(line) for line in cli("results").stdout.splitlines()]
    assert [line["custom_id"] for line in lines] == names
    assert lines[0]["input"] == ROWS[0]

    batch_lines = cli("results", "--format", "anthropic").stdout.splitlines()
    parsed = [MessageBatchIndividualResponse.model_validate_json(line) for line in batch_lines]
    assert [each.custom_id for each in parsed] == names
    assert json.loads(batch_lines[0])["result"]["message"] == lines[0]["message"]

    cli("results", "-o", "out.csv")
    with (cli.folder / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == [line["text"] for line in lines]

    assert cli("results", "--only", "errored").stdout == ""


def test_a_reader_that_has_enough_is_no_failure(cli: Any) -> None:
    cli(
        "submit",
        cli.file("rows.jsonl", *[{"prompt": f"row {n} " * 200} for n in range(300)]),
        "--model",
        MODEL,
    )
    reading = cli.start("results")
    assert reading.stdout.readline()

    reading.stdout.close()

    assert reading.wait(60) == 0
    assert reading.stderr.read() == ""
    reading.stderr.close()


def test_an_answer_with_a_schema_is_read(cli: Any) -> None:
    (cli.folder / "labels.py").write_text(
        "from pydantic import BaseModel\n\nclass Label(BaseModel):\n    sure: bool\n    count: int\n"
    )

    done = cli("run", cli.file("rows.jsonl", ROWS[0]), "--schema", "labels:Label", "-o", "-")

    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["parsed"]) == {"sure", "count"}


def test_the_doctor_finds_everything_in_order(cli: Any) -> None:
    found = cli.json("doctor")

    assert found["ok"] is True
    setting = next(each for each in found["settings"] if each["name"] == "ANTHROPIC_BASE_URL")
    assert setting["origin"] == "environment (ANTHROPIC_BASE_URL)"


def test_the_doctor_shows_no_key(cli: Any) -> None:
    done = cli("doctor", ANTHROPIC_API_KEY="sk-ant-very-secret")

    assert "sk-ant-very-secret" not in done.stdout + done.stderr
    assert "set (not shown)" in done.stdout


def test_the_doctor_says_what_to_do_about_what_is_wrong(cli: Any) -> None:
    done = cli(
        "doctor",
        PROMPTMILL_REDIS_URL="redis://127.0.0.1:1/0",
        PROMPTMILL_BROKER_URL="amqp://name:password@127.0.0.1:1//",
        ANTHROPIC_BASE_URL="http://127.0.0.1:1",
    )

    assert done.returncode == 1
    assert "PROMPTMILL_REDIS_URL" in done.stdout
    assert "correct PROMPTMILL_BROKER_URL" in done.stdout
    assert "name:password" not in done.stdout
    assert "correct ANTHROPIC_BASE_URL" in done.stdout


def test_a_wrong_setting_is_one_line_that_names_it(cli: Any) -> None:
    done = cli("status", PROMPTMILL_CONCURRENCY="many")

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "PROMPTMILL_CONCURRENCY" in done.stderr


def test_a_misspelt_setting_is_one_note_and_stops_nothing(cli: Any) -> None:
    done = cli("list", "--json", PROMPTMILL_RMP="5")

    assert (done.returncode, done.stdout.strip()) == (0, "[]")
    note = "note: nothing reads PROMPTMILL_RMP in the environment (did you mean PROMPTMILL_RPM?)"
    assert " ".join(done.stderr.split()) == note
    for silent in (
        cli("list", "--help", PROMPTMILL_RMP="5"),
        cli("list", "--json", PROMPTMILL_RMP="5", PROMPTMILL_CHILD="1"),
        cli("doctor", PROMPTMILL_RMP="5"),
    ):
        assert "nothing reads" not in silent.stderr


def test_the_keys_of_a_file_that_is_wrong_end_with_exit_code_1(cli: Any) -> None:
    keys = cli.folder / "keys.toml"
    keys.write_text('[[key]]\nlabel = "new"\nkey = "sk-ant-CANARY"\n')
    keys.chmod(0o644)
    fine = cli("keys", PROMPTMILL_KEYS_FILE=str(keys))
    assert fine.returncode == 0
    assert f"others on this machine may read {keys}" in " ".join(fine.stdout.split())

    keys.write_text('[[key]]\nlabel = "new"\nkey = "sk-ant-CANARY"\nacount = "x"\n')
    for form in ([], ["--json"]):
        done = cli("keys", *form, PROMPTMILL_KEYS_FILE=str(keys))
        assert done.returncode == 1
        assert f"key new in {keys} has no field acount; did you mean account?" in " ".join(
            done.stdout.split()
        )
        assert "CANARY" not in done.stdout + done.stderr


@pytest.fixture
def empty_postgres_url(postgres_server: str) -> Iterator[str]:
    name = f"promptmill_empty_{uuid4().hex}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield urlunsplit(urlsplit(postgres_server)._replace(path=f"/{name}"))
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_a_server_database_is_migrated_on_request_only(cli: Any, empty_postgres_url: str) -> None:
    words = ["submit", cli.file("rows.jsonl", *ROWS), "--model", MODEL]
    environment = {"PROMPTMILL_DATABASE_URL": empty_postgres_url}

    before = cli(*words, **environment)
    cli("migrate", **environment)
    after = cli(*words, **environment)

    assert (before.returncode, after.returncode) == (1, 0), after.stderr
    assert "promptmill migrate" in before.stderr


def test_an_unexpected_error_is_one_sentence_and_its_traceback_is_in_a_file(cli: Any) -> None:
    (cli.folder / "labels.py").write_text("raise RuntimeError('boom')\n")
    words = ["submit", cli.file("rows.jsonl", *ROWS), "--schema", "labels:Label"]

    done = cli(*words)

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "boom" in (cli.folder / ".promptmill" / "logs" / "errors.log").read_text()
    assert "Traceback" in cli(*words, PROMPTMILL_DEBUG="1").stderr


def test_help_answers_at_once(cli: Any) -> None:
    cold = replace(cli, popen=subprocess.Popen)
    cold("--help")

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = cold("--help", timeout=5)  # seconds on a machine that does other things too
    after = resource.getrusage(resource.RUSAGE_CHILDREN)

    assert done.returncode == 0
    # Seconds of CPU, because the tests beside it take the rest. 0.1 on an idle machine; the promise is 0.5.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_the_data_folder_is_for_its_owner_alone(cli: Any) -> None:
    cli("submit", cli.file("rows.jsonl", *ROWS), "--model", MODEL)

    mode = stat.S_IMODE((cli.folder / ".promptmill").stat().st_mode)

    assert sys.platform == "win32" or mode == 0o700


def test_status_can_be_watched_until_the_end(
    cli: Any, claude: SimulatorHandle, wait_until: Callable[..., None]
) -> None:
    cli("submit", cli.file("rows.jsonl", *ROWS), "--model", MODEL, "--name", "mine")
    watching = cli.start("status", "mine", "--watch")

    cli("run", "rows.jsonl", "--model", MODEL, "--name", "mine")

    _, said = watching.communicate(timeout=60)
    assert "state=ended done=3/3" in said
    assert claude.ledger()["answered"] == {"1": 3}


def test_ctrl_c_only_looks_away_from_a_batch_that_is_watched(cli: Any) -> None:
    words = ["submit", cli.file("rows.jsonl", *ROWS), "--model", MODEL, "--name", "mine", "--watch"]
    watching = cli.start(*words)
    assert watching.stdout.readline().startswith("batch_")
    while "progress" not in watching.stderr.readline():
        assert watching.poll() is None

    watching.send_signal(signal.SIGINT)

    _, said = watching.communicate(timeout=30)
    assert watching.returncode == 130
    assert "promptmill status mine --watch" in said
    assert cli.json("status", "mine")["state"] == "active"


def stored_in(folder: Path) -> int:
    """Rows of batches in the database of that folder."""
    file = folder / ".promptmill" / "promptmill.db"
    with (
        suppress(sqlite3.OperationalError),
        closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as db,
    ):
        return int(db.execute("SELECT coalesce(sum(total), 0) FROM batch").fetchone()[0])
    return 0


@pytest.mark.parametrize("new", [[], ["--new"]])
def test_ctrl_c_in_a_submit_says_how_far_it_is_and_how_to_go_on(
    cli: Any, wait_until: Callable[..., None], new: list[str]
) -> None:
    words = ["submit", cli.file("many.jsonl", *[{"prompt": f"Say {n}"} for n in range(ROWS_FOR_A_WHILE)])]
    with held_submit([*words, "--model", MODEL, *new], cli.folder, cli.environment) as submitting:
        wait_until(lambda: stored_in(cli.folder) > 0 or submitting.poll() is not None, timeout=60)
        submitting.send_signal(signal.SIGINT)

        out, said = submitting.communicate(timeout=30)

    assert (submitting.returncode, out) == (130, ""), said
    assert f" of {ROWS_FOR_A_WHILE:,} rows are stored" in said
    assert "admitting: it is being submitted, " in cli("status").stdout
    prog, *way_on = shlex.split(said.splitlines()[-1])
    assert (prog, way_on[:4]) == ("promptmill", [*words, "--model", MODEL])
    assert cli(*way_on).returncode == 0
    [whole] = cli.json("list")
    assert (whole["state"], whole["jobs"]["total"]) == ("active", ROWS_FOR_A_WHILE)


INTERRUPTED_BEFORE_IT_IS_TOLD = """
import sys
from producers.admitting import Admitting
from producers.cli.app import main

tell = Admitting.__call__

def interrupt_at_storing(view, doing, done, of):
    if doing == "storing":
        raise KeyboardInterrupt
    tell(view, doing, done, of)

Admitting.__call__ = interrupt_at_storing
main()
"""


def test_ctrl_c_in_a_submit_before_the_first_rows_stored_were_told_leads_to_the_same_batch(cli: Any) -> None:
    words = ["submit", cli.file("rows.jsonl", *ROWS), "--model", MODEL, "--new"]
    assert cli(*words).returncode == 0

    broken = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_BEFORE_IT_IS_TOLD, *words],
        cwd=cli.folder,
        env={**os.environ, **cli.environment},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (broken.returncode, broken.stdout) == (130, "")
    assert f"{len(ROWS)} of {len(ROWS)} rows are stored" in broken.stderr
    assert cli(*shlex.split(broken.stderr.splitlines()[-1])[1:]).returncode == 0
    assert [(each["state"], each["jobs"]["total"]) for each in cli.json("list")] == [
        ("active", len(ROWS))
    ] * 2


def test_another_claude_than_at_submit_is_not_asked(cli: Any) -> None:
    file = cli.file("rows.jsonl", *ROWS)
    cli("submit", file, "--model", MODEL, "--name", "real", ANTHROPIC_BASE_URL="https://api.anthropic.com")

    with simulated_claude() as simulator:
        cli("run", file, "--model", MODEL, "--name", "rehearsal", ANTHROPIC_BASE_URL=simulator.url)

    assert cli.json("status", "real")["simulated"] is False
    assert cli.json("status", "real")["jobs"]["pending"] == 3
    assert cli.json("status", "rehearsal")["jobs"]["succeeded"] == 3


def test_a_submit_goes_on_when_nobody_listens_any_more(cli: Any) -> None:
    submitting = cli.start("submit", cli.file("rows.jsonl", *ROWS), "--model", MODEL, "--name", "mine")
    submitting.stderr.close()
    submitting.stdout.close()

    assert submitting.wait(60) == 0
    assert cli.json("status", "mine")["jobs"]["total"] == 3
