"""`promptmill limits`: what a person sees of the limiter, against a real Redis, a simulated Claude and a worker."""

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from promptmill.claude.keys import rehearsing
from promptmill.limits import BlockingLimiter, Ceilings, Pool, RedisLimiter
from promptmill.simulator.process import SimulatorHandle
from promptmill.testing import simulated_claude

pytestmark = pytest.mark.timeout(180)

GROUP = "claude-haiku-5-5"
ADMIN = {"ANTHROPIC_ADMIN_KEY": "sk-ant-admin01-CANARY"}
ROWS = [{"prompt": f"Say something about {number}."} for number in range(1200)]
LEARN = {"PROMPTMILL_RPM": "", "PROMPTMILL_ITPM": "", "PROMPTMILL_OTPM": ""}


@dataclass(frozen=True)
class Working:
    """A batch that is being worked on: 120 requests per minute, so that it goes on for long."""

    cli: Any
    run: "subprocess.Popen[str]"
    account: str


@pytest.fixture(scope="module")
def working(
    tmp_path_factory: pytest.TempPathFactory,
    make_cli: Callable[[Path, SimulatorHandle], Any],
    wait_until: Callable[..., None],
) -> Iterator[Working]:
    with simulated_claude(rpm=120, itpm=200_000, otpm=40_000) as claude:
        cli = make_cli(tmp_path_factory.mktemp("limits"), claude)
        cli.environment.update(LEARN)
        words = ["--name", "mine", "--max-tokens", "50"]
        run = cli.start("run", cli.file("rows.jsonl", *ROWS), "-o", "out.jsonl", *words)
        try:
            wait_until(lambda: pool_of(cli, "requests", "learned"), timeout=60)
            yield Working(cli, run, rehearsing("default", claude.url))
        finally:
            run.send_signal(signal.SIGTERM)
            run.communicate(timeout=60)


def pool_of(cli: Any, dimension: str, source: str) -> dict[str, Any] | None:
    """The pool of the batch once a limit of it is from there."""
    pools = [each for each in cli.json("limits")["pools"] if each["group"] == GROUP]
    known = [each for each in pools if each["dimensions"][dimension]["source"] == source]
    return known[0] if known else None


def test_where_nothing_runs_there_is_a_sentence_and_no_folder_is_made(bare_cli: Any) -> None:
    done = bare_cli("limits")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Nothing runs in this data folder; only what is set is known.")
    assert "No limit is set" in done.stdout
    assert "promptmill limits probe, while workers run" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert not (bare_cli.folder / ".promptmill").exists()


def test_what_is_set_is_shown_where_nothing_runs(bare_cli: Any) -> None:
    (bare_cli.folder / "promptmill.toml").write_text('[limits.groups."claude-opus-4.x"]\nrpm = 50\n')

    done = bare_cli("limits", "show", PROMPTMILL_RPM="60", PROMPTMILL_OTPM="0")

    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["every", "model", "group", "60", "learned", "none"] in lines
    assert ["claude-opus-4.x", "50", "learned", "learned"] in lines


def test_a_redis_that_is_set_and_does_not_answer_is_a_failure_and_the_document_is_printed_all_the_same(
    bare_cli: Any,
) -> None:
    done = bare_cli("limits", "--json", REDIS_URL="redis://:hunter2@127.0.0.1:9/0")

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.endswith("does not answer; start it, or set PROMPTMILL_REDIS_URL to one that runs")
    document = json.loads(done.stdout)
    assert document["silence"].endswith("does not answer")
    assert document["pools"] == []
    assert "hunter2" not in done.stdout + done.stderr


def test_the_limits_of_a_batch_that_runs_are_those_of_the_server(working: Working) -> None:
    document = working.cli.json("limits")

    (pool,) = (each for each in document["pools"] if each["group"] == GROUP)
    dimensions = pool["dimensions"]
    assert {name: each["limit"] for name, each in dimensions.items()} == {
        "requests": 120, "input_tokens": 200_000, "output_tokens": 40_000,
    }  # fmt: skip
    assert 0 < dimensions["requests"]["used"] <= 240
    assert pool["account"] == working.account
    assert pool["held_by"] in ("starting", "requests")
    (waiting,) = document["waiting"]
    assert waiting["batches"][0]["name"] == "mine"
    assert 0 < waiting["pending"] < len(ROWS)
    assert document["workers"] == 1


def test_a_person_reads_it_in_eighty_columns(working: Working) -> None:
    done = working.cli("limits")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{GROUP}, account {working.account}\n")
    assert "requests           120  headers" in done.stdout
    assert "of them handed to workers: mine" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80


def test_the_same_figures_come_as_metrics(working: Working) -> None:
    done = working.cli("limits", "--prometheus")

    series = f'promptmill_limit_per_minute{{account="{working.account}",dimension="requests",group="{GROUP}",source="learned"}}'
    assert f"{series} 120.0" in done.stdout.splitlines()
    assert "promptmill_limiter_reachable 1.0" in done.stdout.splitlines()


def test_an_estimate_meanwhile_goes_by_the_limits_of_that_server(working: Working) -> None:
    file = working.cli.file("more.jsonl", *ROWS[:10])

    (limits,) = working.cli.json("estimate", file, "--model", GROUP, "--max-tokens", "50")["limits"]

    assert limits["requests"] == 120


def test_status_says_which_limit_binds(working: Working) -> None:
    assert working.cli.json("status")["bound_by"] == "requests"


def test_watched_away_from_a_terminal_it_writes_lines_until_ctrl_c(working: Working) -> None:
    watching = working.cli.start("limits", "--watch")
    assert watching.stdout is not None
    line = watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    _, said = watching.communicate(timeout=20)

    assert line.startswith(f"limits account={working.account} group={GROUP} ")
    assert watching.returncode == 130
    assert said == ""


def test_a_probe_tells_the_running_limiter_what_the_account_allows(working: Working) -> None:
    done = working.cli("limits", "probe", **ADMIN)

    assert done.returncode == 0, done.stderr
    assert f"{GROUP}                  120       200,000         40,000" in done.stdout
    assert f"Calls of account {working.account} go by these limits from now on." in done.stderr
    assert "CANARY" not in done.stdout + done.stderr
    pools = {each["group"]: each for each in working.cli.json("limits")["pools"]}
    assert pools["claude-opus-4.x"]["dimensions"]["output_tokens"] | {"allowed": None, "burst": None} == {
        "limit": 40_000, "source": "probed", "used": 0.0, "used_share": 0.0, "bucket": pytest.approx(333, abs=1),
        "bucket_capacity": pytest.approx(333, abs=1), "other_programs": 0.0, "allowed": None, "burst": None,
    }  # fmt: skip


def test_after_a_probe_the_page_shows_the_group_in_use_and_counts_the_others(working: Working) -> None:
    assert working.cli("limits", "probe", **ADMIN).returncode == 0

    page = working.cli("limits").stdout

    assert page.startswith(f"{GROUP}, account {working.account}\n")
    assert "claude-opus-4.x" not in page
    assert "Known and never used: " in page
    assert max(len(line) for line in page.splitlines()) <= 80


def test_a_probe_of_a_workspace_is_one_document(working: Working) -> None:
    done = working.cli("limits", "probe", "--workspace", "wrkspc_1", "--json", **ADMIN)

    document = json.loads(done.stdout)
    assert document["workspace"] == "wrkspc_1"
    assert document["told"] is True
    (haiku,) = (each for each in document["groups"] if each["group"] == GROUP)
    assert haiku["stated"] == {"requests": 120, "input_tokens": 200_000, "output_tokens": 40_000}


@pytest.mark.parametrize(
    ("words", "environment", "sentence"),
    [
        ((), {}, "ANTHROPIC_ADMIN_KEY: reading an account's limits needs an admin key"),
        ((), {"ANTHROPIC_ADMIN_KEY": "sk-ant-api03-CANARY"}, "this key is not accepted for reading limits"),
        (("--account", "nobody"), ADMIN, "no key belongs to the account nobody; there are: default"),
        (("--workspace", "odd"), ADMIN, "the organization of this key has no workspace odd"),
    ],
)
def test_what_is_wrong_with_a_probe_is_one_line(
    cli: Any, words: tuple[str, ...], environment: dict[str, str], sentence: str
) -> None:
    done = cli("limits", "probe", *words, **environment)

    assert done.returncode == 1
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "CANARY" not in done.stderr


def test_a_probe_where_nothing_runs_shows_the_limits_and_says_that_nobody_was_told(
    cli: Any, tmp_path: Path
) -> None:
    (tmp_path / "admin.key").write_text("sk-ant-admin01-CANARY\n")

    done = cli("limits", "probe", ANTHROPIC_ADMIN_KEY_FILE="admin.key")

    assert done.returncode == 0, done.stderr
    assert "claude-opus-4.x" in done.stdout
    assert "Nobody was told: nothing runs in this data folder" in done.stderr


def test_a_probe_whose_redis_does_not_answer_fails_and_says_to_start_it(cli: Any) -> None:
    done = cli("limits", "probe", REDIS_URL="redis://127.0.0.1:9/0", **ADMIN)

    assert done.returncode == 1
    assert "claude-opus-4.x" in done.stdout
    assert (
        "promptmill: nobody was told: the Redis at redis://127.0.0.1:9/0 does not answer; start it"
        in done.stderr
    )
    assert "while workers run" not in done.stderr


def test_a_reader_that_has_read_enough_ends_the_watching(bare_cli: Any) -> None:
    with bare_cli.start("limits", "--watch") as watching:
        assert watching.stdout.readline().startswith("limits pools=0 ")
        watching.stdout.close()
        said = watching.stderr.read()

    assert watching.returncode == 0
    assert said == ""


def test_options_that_do_not_go_together_are_wrong_usage(bare_cli: Any) -> None:
    assert bare_cli("limits", "--json", "--watch").returncode == 2
    assert bare_cli("limits", "--json", "probe").returncode == 2


def test_limits_that_somebody_taught_are_known_on_any_redis(bare_cli: Any, clean_redis: str) -> None:
    with BlockingLimiter(lambda: RedisLimiter(clean_redis)) as limiter:
        limiter.teach(Pool("research", GROUP), Ceilings(50, None, 0))

    done = bare_cli("limits", REDIS_URL=clean_redis)

    assert "Known and never used: 1 model group; promptmill limits --json has it" in done.stdout
    (pool,) = json.loads(bare_cli("limits", "--json", REDIS_URL=clean_redis).stdout)["pools"]
    assert [each["limit"] for each in pool["dimensions"].values()] == [50, 30_000, None]


def test_limits_are_forgotten_by_account_and_model_group(bare_cli: Any, clean_redis: str) -> None:
    simulator = "http://127.0.0.1:9"
    rehearsed = rehearsing("research", simulator)
    pools = [Pool(rehearsed, GROUP), Pool("research", "claude-opus-5"), Pool("other", GROUP)]
    with BlockingLimiter(lambda: RedisLimiter(clean_redis)) as limiter:
        for pool in pools:
            limiter.teach(pool, Ceilings(50, 100, 200))

        here = {"REDIS_URL": clean_redis, "ANTHROPIC_BASE_URL": f"{simulator}/"}
        done = bare_cli("limits", "forget", "--account", "research", "--group", GROUP, **here)

        assert done.returncode == 0, done.stderr
        assert done.stdout == f"Forgotten: {GROUP}, account {rehearsed}. Its next call begins gently.\n"
        assert [limiter.peek(pool).dimensions[1].limit for pool in pools] == [30_000, 100, 100]
        bare_cli("limits", "forget", REDIS_URL=clean_redis)
        assert [limiter.peek(pool).dimensions[1].limit for pool in pools] == [30_000] * 3


def test_what_nobody_knows_cannot_be_forgotten_and_it_is_said_what_is_known(
    bare_cli: Any, clean_redis: str
) -> None:
    with BlockingLimiter(lambda: RedisLimiter(clean_redis)) as limiter:
        limiter.teach(Pool("research", GROUP), Ceilings(50, 100, 200))

    done = bare_cli("limits", "forget", "--account", "reserch", REDIS_URL=clean_redis)

    assert done.returncode == 1
    assert f"nothing is known of account reserch; in use lately: {GROUP} (account research)" in done.stderr
    assert "does not answer" in bare_cli("limits", "forget", REDIS_URL="redis://127.0.0.1:9/0").stderr


def test_doctor_notes_limits_for_an_account_that_no_key_has(bare_cli: Any) -> None:
    (bare_cli.folder / "keys.toml").write_text(
        '[[key]]\nlabel = "main"\nkey = "sk-x"\naccount = "research"\n'
    )
    (bare_cli.folder / "promptmill.toml").write_text("[limits.accounts.reserch]\nrpm = 50\n")

    done = bare_cli(
        "doctor", "--json", PROMPTMILL_KEYS_FILE="keys.toml", ANTHROPIC_BASE_URL="http://127.0.0.1:9"
    )

    (check,) = (
        each for each in json.loads(done.stdout)["checks"] if each["name"] == "limits.accounts.reserch"
    )
    assert check["verdict"] == "note"
    assert check["found"] == "no key belongs to this account; there are: research"


def test_doctor_notes_limits_for_a_model_group_that_no_model_is_of(bare_cli: Any) -> None:
    (bare_cli.folder / "promptmill.toml").write_text(
        """
        [limits.groups]
        "claude-haiku-5.5".rpm = 50
        "claude-opus-4-8".rpm = 50
        "claude-opus-4.x-fast".rpm = 50
        "my-own".rpm = 50
        [limits.accounts.research.groups]
        "zzz".rpm = 50
        "claude-haiku-5-5".rpm = 50
        [models.my-own]
        context_window = 100000
        """
    )

    done = bare_cli("doctor", "--json", ANTHROPIC_BASE_URL="http://127.0.0.1:9")

    checks = {each["name"]: each for each in json.loads(done.stdout)["checks"] if ".groups." in each["name"]}
    unknown = "no model that is known here is of this group"
    assert {name: each["found"] for name, each in checks.items()} == {
        'limits.groups."claude-haiku-5.5"': f"{unknown}; the nearest is claude-haiku-5-5",
        'limits.groups."claude-opus-4-8"': f"{unknown}; the nearest is claude-opus-4.x",
        'limits.accounts.research.groups."zzz"': unknown,
    }
    assert {each["verdict"] for each in checks.values()} == {"note"}


def test_doctor_says_that_nothing_is_known_of_the_limits_until_something_is(
    bare_cli: Any, clean_redis: str
) -> None:
    def found() -> tuple[str, str]:
        checks = json.loads(bare_cli("doctor", "--json", REDIS_URL=clean_redis).stdout)["checks"]
        (check,) = (each for each in checks if each["name"] == "limits")
        return check["verdict"], check["found"]

    assert found() == ("note", "unknown")
    with BlockingLimiter(lambda: RedisLimiter(clean_redis)) as limiter:
        limiter.teach(Pool("research", GROUP), Ceilings(50, None, 0))
    assert found() == ("ok", f"learned for {GROUP}")
