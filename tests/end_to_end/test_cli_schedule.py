"""`promptmill schedule`, as it is typed."""

import json
from typing import Any

import pytest

from promptmill.recurrence import Due

NIGHTLY = ("--cron", "0 2 * * *", "--timezone", "Asia/Shanghai", "--model", "claude-haiku-5-5")


def add(cli: Any, *words: str) -> str:
    done = cli("schedule", "add", *words)
    assert done.returncode == 0, done.stderr
    return str(done.stderr)


def test_a_schedule_is_added_listed_shown_paused_resumed_run_and_removed(cli: Any) -> None:
    said = add(cli, "nightly", "data-{{ date }}.jsonl", *NIGHTLY, "--budget", "5", "--name", "n-{{ date }}")
    assert "nightly is added\nnext: 20" in said
    assert "02:00+08:00" in said
    assert "a worker reads it when it is due" in said

    [listed] = cli.json("schedule", "list")
    assert listed["name"] == "nightly"
    assert listed["file"] == "data-{{ date }}.jsonl"
    assert [due[10:] for due in listed["next_due"]] == ["T18:00:00Z"] * 3
    assert listed["simulated"] is True
    assert "no worker runs" in listed["hint"]
    taken = cli("schedule", "add", "nightly", "other.jsonl", *NIGHTLY)
    assert "Invalid value for NAME: there is a schedule named 'nightly' already" in taken.stderr
    assert "nightly (simulated)  0 2 * * *" in cli("schedule", "list").stdout

    assert cli.json("schedule", "pause", "nightly")["next_due"] == []
    assert "paused" in cli("schedule", "show", "nightly").stdout
    assert len(cli.json("schedule", "resume", "nightly")["next_due"]) == 3

    [run] = cli.json("schedule", "run", "nightly")["runs"]
    assert (run["state"], run["manual"], run["batch"]) == ("waiting", True, None)
    shown = cli("schedule", "show", "nightly").stdout
    assert "(by hand)  waiting" in shown
    assert max(map(len, shown.splitlines())) <= 80

    told = cli("schedule", "run", "nightly")
    assert f"note: there is no {cli.folder}/data-" in " ".join(told.stderr.split())
    assert "a worker reads it now, on its own machine" in " ".join(told.stderr.split())

    assert cli("schedule", "remove", "nightly").returncode == 0
    assert cli.json("schedule", "list") == []
    gone = cli("schedule", "show", "nightly")
    assert gone.returncode == 1
    assert "there is no schedule 'nightly'; there is none at all yet" in gone.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("x", "rows.jsonl", "--cron", "0 2 * *"), "is no cron expression"),
        (("x", "rows.jsonl", "--every", "soon"), "is no duration such as"),
        (("x", "rows.jsonl", "--every", "1y"), "units are s, m, h, d and w"),
        (("x", "rows.jsonl", "--every", "0.5s"), "an interval is of whole seconds"),
        (("x", "rows.jsonl"), "--cron or --every: give either a cron expression or an interval"),
        (("x", "--every", "1h"), "give either a file or prompts"),
        (("x", "-", "--every", "1h"), "nobody is there at the standard input"),
        (("x", "{{ day }}.jsonl", "--every", "1h"), "'day' is undefined; known are due, date, schedule, run"),
        (("x", "rows.jsonl", "--every", "1h", "--name", "same-{{ date[:4] }}"), "would both be named"),
        (("x", "rows.jsonl", "--cron", "0 9,17 * * *", "--name", "n-{{ date }}"), "would both be named"),
        (("x", "rows.jsonl", "--every", "1h", "--timezone", "Mars/Base"), "there is no time zone"),
        (("x", "rows.jsonl", "--every", "1h", "--timezone", "Shanghay"), "did you mean Asia/Shanghai?"),
        (("x", "--prompt", "a", "--every", "1h"), "Invalid value for --model: give the model of the prompts"),
        (("x", "rows.jsonl", "--every", "1h", "--missed", "some"), "some is none of latest, all, skip"),
        (("x", "rows.jsonl", "--every", "1h", "--template", "{{ x"), "template"),
        (("x", "rows.jsonl", "--every", "1h", "--deadline", "2026-12-01"), "is no duration"),
        (("x", "--prompt", "a", "--every", "1h", "--model", "claude-nonsense"), "claude-nonsense"),
    ],
)
def test_what_could_not_go_well_is_refused_when_it_is_added(
    cli: Any, words: tuple[str, ...], said: str
) -> None:
    done = cli("schedule", "add", *words)

    assert done.returncode in {1, 2}
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_what_had_failed_before_a_pause_is_not_tried_after_it(
    cli: Any, monkeypatch: pytest.MonkeyPatch, claude: Any
) -> None:
    from producers import schedules  # noqa: PLC0415  # what a person writes
    from promptmill.runtime import open_database  # noqa: PLC0415  # likewise
    from promptmill.settings import load  # noqa: PLC0415  # likewise
    from promptmill.store import schedule_runs  # noqa: PLC0415  # likewise

    monkeypatch.chdir(cli.folder)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", claude.url)
    added = schedules.add("hourly", every="1h", prompts=["a"], model="claude-haiku-5-5")
    with open_database(load()) as database, database.begin() as conn:
        schedule_runs.record(conn, added.row.id, Due(added.row.created_at), added.row.created_at)

    schedules.pause("hourly")

    [run] = schedules.resume("hourly").runs
    assert (run.state, run.reason, run.try_after) == ("skipped", "the schedule was paused first", None)


def test_prompts_of_its_own_and_the_python_form(
    cli: Any, monkeypatch: pytest.MonkeyPatch, claude: Any
) -> None:
    from producers import schedules  # noqa: PLC0415  # what a person writes

    monkeypatch.chdir(cli.folder)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", claude.url)

    added = schedules.add(
        "hourly", every="1h", prompts=["What is new on {{ date }}?"], model="claude-haiku-5-5"
    )
    schedules.run("hourly")
    ran = schedules.run("hourly")

    assert [run.manual for run in ran.runs] == [True, True]
    assert all(run.due_at.microsecond for run in ran.runs), "no due time is taken from the timetable"
    assert added.next_due == schedules.schedule("hourly").next_due
    [listed] = cli.json("schedule", "list")
    assert (listed["every_s"], listed["prompts"], listed["file"]) == (3600, 1, None)
    assert "What is new" not in json.dumps(listed) + cli("schedule", "show", "hourly").stdout
