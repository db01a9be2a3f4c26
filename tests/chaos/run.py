"""`./dev chaos`: breaks everything at random for a while, by a seed, and looks whether anything was lost or paid twice.

The one idea: the plan is printed before anything happens, and the folder of the run is kept when something does not
hold, so that a failure can be looked at and run again.
"""

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from promptmill.testing import simulated_claude
from tests.chaos.checks import Check, check
from tests.chaos.plan import RPM, Plan, make_plan
from tests.chaos.play import Stage, settings_of
from tests.chaos.surroundings import Crew, RedisServer, database_server, environment_of, wait_until

LATENCY = {"first_token_s": 0.6, "jitter": 0.3, "tokens_per_s": 100.0, "mean_output_tokens": 90.0}
_SHOWN = 60  # characters of a value
_UNANSWERED = (
    "SELECT j.id, j.state, j.error_kind, a.number, a.outcome, a.status, a.opened_at, a.closed_at, a.error_message"
    " FROM job j LEFT JOIN attempt a ON a.job_id = j.id WHERE j.state <> 'succeeded' ORDER BY j.id, a.number"
)
_WORTH_TELLING = ("warning", "error", "critical")


def main(words: list[str]) -> int:
    """Make the plan, play it, check, tell; 0 when everything holds."""
    options = _parser().parse_args(words)
    plan = make_plan(options.seed, options.minutes, options.database)
    _say(str(plan))
    if options.plan:
        return 0
    folder = Path(options.keep or tempfile.mkdtemp(prefix=f"promptmill-chaos-{plan.seed}-")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    checks = _run(plan, folder)
    failed = [each for each in checks if not each.ok]
    if failed or options.keep:
        _say(f"\nThe folder of this run is kept: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    again = f"./dev chaos run --minutes {plan.minutes:g} --seed {plan.seed} --database {plan.database}"
    _say(f"{len(checks) - len(failed)} of {len(checks)} checks hold. Again: {again}")
    return 1 if failed else 0


def _run(plan: Plan, folder: Path) -> list[Check]:
    with contextlib.ExitStack() as stack:
        stage = _set_up(stack, plan, folder)
        try:
            _say(f"\nThe work was done after {stage.play():.0f} s.\n")
        except TimeoutError as error:
            _say(f"\n{error}\n")
        (folder / "ledger.json").write_text(json.dumps(stage.claude.ledger(detail=True)))
        checks = check(stage)
        (folder / "unanswered.txt").write_text("\n".join(map(str, stage.database.ask(_UNANSWERED))))
        codes = stage.crew.stop()
        checks.append(Check("exit codes of the workers after SIGTERM", "all 0", codes, not any(codes)))
        _show(checks)
        _show_logs(stage)
        return checks


def _set_up(stack: contextlib.ExitStack, plan: Plan, folder: Path) -> Stage:
    claude = stack.enter_context(simulated_claude(rpm=RPM, seed=plan.seed, faults=plan.faults, **LATENCY))
    redis = RedisServer(folder / "redis", keeps=plan.redis_keeps)
    stack.callback(redis.end, "kill -9")
    redis.start()
    wait_until(lambda: redis.answers, "redis answers", 10)
    database = stack.enter_context(database_server(plan.database, folder))
    environment = environment_of(folder, settings_of(plan, claude, redis, database))
    migrate = [sys.executable, "-m", "producers.cli", "migrate"]
    subprocess.run(migrate, env=environment, cwd=folder, check=True, capture_output=True)
    crew = Crew(folder, environment)
    stack.callback(crew.stop)
    return Stage(plan, folder, claude, redis, database, crew, environment, _say)


def _show(checks: list[Check]) -> None:
    for each in checks:
        verdict = "ok  " if each.ok else "FAIL"
        _say(f"{verdict}  {each.what}: {_short(each.found)}")
        if not each.ok:
            _say(f"      expected {_short(each.expected)}")


def _show_logs(stage: Stage) -> None:
    """What the workers complained of, how often: most of it is what a run like this is expected to bring."""
    said: Counter[str] = Counter()
    for path in stage.crew.logs():
        for line in path.read_text(errors="replace").splitlines():
            if line.startswith("Traceback"):
                said["a traceback"] += 1
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict) and entry.get("level") in _WORTH_TELLING:
                    said[f"{entry['level']} {entry.get('event')}"[:_SHOWN]] += 1
    _say("\nIn the logs of the workers:")
    for words, count in said.most_common():
        _say(f"  {count:6,}  {words}")


def _short(value: object) -> str:
    words = f"{value:,}" if isinstance(value, int) else str(value)
    return words if len(words) <= 4 * _SHOWN else f"{words[: 4 * _SHOWN]} …"


def _say(words: str) -> None:
    print(words, flush=True)  # noqa: T201  a person watches


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./dev chaos run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long things are broken (10)")
    parser.add_argument("--seed", type=int, default=time.time_ns() // 1_000_000 % 100_000, help="of the plan")
    parser.add_argument("--database", choices=("postgres", "sqlite"), default="postgres")
    parser.add_argument("--keep", metavar="FOLDER", help="where the logs and the book of the run stay")
    parser.add_argument("--plan", action="store_true", help="show the plan and do nothing")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
