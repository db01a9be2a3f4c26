"""Keys are replaced while jobs run, and the old ones revoked: no job suffers, and nobody has to say anything."""

import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import func, select

from promptmill.clock import SystemClock
from promptmill.prompts import Prompt
from promptmill.routes import KEY_STATES
from promptmill.states import JobState
from promptmill.store import ledger
from promptmill.store.batches import BatchRow
from promptmill.store.tables import job
from promptmill.testing import a_batch, a_prompt, simulated_claude
from workers.other_keys import FIRST_REST_S

Start = Callable[..., Any]
Replace = Callable[[Path, str], None]
pytestmark = pytest.mark.timeout(240)

LATENCY_S = 0.4
SLOTS = "5"


def by_rename(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def by_symlink(path: Path, text: str) -> None:
    """As a mounted secret is replaced: the file is a link, and what it leads to another file."""
    target = path.with_name(f"{path.name}.{time.monotonic_ns()}")
    target.write_text(text)
    link = path.with_suffix(".link")
    link.symlink_to(target)
    link.replace(path)


def in_halves(path: Path, text: str) -> None:
    """Whoever reads between the two finds a key that is none."""
    path.write_text(text[: len(text) // 2])
    time.sleep(0.3)
    path.write_text(text)


WAYS: tuple[Replace, ...] = (by_rename, in_place, by_symlink, in_halves)


def names() -> Iterator[str]:
    return (f"sk-ant-api03-CANARY-{number:04d}" for number in itertools.count())


def rotate(claude: Any, place: Path, old: str, new: str, way: Replace, *, early: float = 0.0) -> None:
    """The new key is valid and in its place, the old one revoked `early` seconds before that."""
    claude.change_keys(add={"one": [new]}, revoke=[old] if early else [])
    time.sleep(early)
    way(place, new)
    claude.change_keys(revoke=[old])


def test_a_key_that_is_replaced_in_mid_run_is_picked_up_and_no_job_suffers(
    start_mill: Start, sqlite_url: str, tmp_path: Path
) -> None:
    secrets, place = names(), tmp_path / "anthropic.key"
    current = next(secrets)
    by_rename(place, current)
    with simulated_claude(
        organizations={"one": [current]}, only_known_keys=True, first_token_s=LATENCY_S
    ) as claude:
        mill = start_mill(
            sqlite_url,
            claude,
            ANTHROPIC_API_KEY_FILE=str(place),
            PROMPTMILL_CONCURRENCY=SLOTS,
        )
        made = [a_batch(mill.database, questions("first", 20))]
        mill.start_worker()
        for way, early in zip(WAYS, (0.0, 0.5, 0.0, 0.0), strict=True):
            mill.wait_until(lambda: succeeded(mill, made[-1:]) >= 10, timeout=30)
            made.append(a_batch(mill.database, questions(way.__name__, 20)))
            current, old = next(secrets), current
            rotate(claude, place, old, current, way, early=early)
        ended = [mill.wait_for_end(each.id) for each in made]
        answered = claude.ledger()["answered"]
    assert succeeded(mill, made) == 100
    assert answered == {"1": 100}
    assert {failure for each in ended for failure in each.failures} <= {"key_rejected"}
    assert "CANARY" not in mill.logs()


def questions(of: str, count: int) -> list[Prompt]:
    return [a_prompt(f"{of}: {number}") for number in range(count)]


def succeeded(mill: Any, batches: Sequence[BatchRow]) -> int:
    return sum(mill.status(each.id).jobs[JobState.SUCCEEDED] for each in batches)


TOKENS = """
import datetime, json, pathlib, sys
store = pathlib.Path(sys.argv[1])
first, *others = json.loads(store.read_text())
store.write_text(json.dumps(others))
ends = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=3)
print(json.dumps({"token": first, "expires_at": ends.isoformat()}))
"""
"""As a secret store does: at each call the next token, which lives for three seconds."""


def open_since_before(mill: Any, batches: Sequence[BatchRow], moment: datetime) -> bool:
    """Whether a call that began before this moment is still under way."""
    with mill.database.read() as connection:
        attempts = [row for each in batches for row in ledger.attempts_of(connection, batch_id=each.id)]
    return any(each.outcome == ledger.OPEN and each.opened_at <= moment for each in attempts)


def test_short_lived_tokens_of_a_command_follow_each_other_without_a_refusal(
    start_mill: Start, sqlite_url: str, tmp_path: Path
) -> None:
    store, script, keys = tmp_path / "store.json", tmp_path / "token.py", tmp_path / "keys.toml"
    script.write_text(TOKENS)
    command = json.dumps([sys.executable, "-S", str(script), str(store)])
    keys.write_text(f'[[key]]\nlabel = "vault"\naccount = "research"\ncommand = {command}\n')
    keys.chmod(0o600)
    tokens = [f"sk-ant-oat01-CANARY-{number}" for number in range(200)]
    store.write_text(json.dumps(tokens))
    with simulated_claude(
        organizations={"one": tokens}, only_known_keys=True, first_token_s=LATENCY_S
    ) as claude:
        mill = start_mill(
            sqlite_url,
            claude,
            PROMPTMILL_KEYS_FILE=str(keys),
            PROMPTMILL_CONCURRENCY=SLOTS,
            PROMPTMILL_LOG_LEVEL="INFO",
        )
        made = [a_batch(mill.database, questions("first", 30))]
        mill.start_worker()
        for turn in (2, 3):
            mill.wait_until(lambda turn=turn: mill.logs().count("token_fetched") >= turn, timeout=30)
            known = mill.logs().count("token_fetched")
            taken = SystemClock().now()
            done = succeeded(mill, made) + 2 * int(SLOTS)
            made.append(a_batch(mill.database, questions(f"turn {turn}", 25)))
            # As many answers as there are slots, twice: no call with the old one is under way any more.
            mill.wait_until(lambda done=done: succeeded(mill, made) >= done, timeout=30)
            mill.wait_until(lambda taken=taken: not open_since_before(mill, made, taken), timeout=30)
            claude.change_keys(revoke=tokens[: known - 1])
        ended = [mill.wait_for_end(each.id) for each in made]
    assert succeeded(mill, made) == 80
    assert [each.failures for each in ended] == [{}] * 3
    assert "CANARY" not in mill.logs()


def test_a_worker_with_a_stale_key_leaves_its_jobs_to_one_whose_key_is_good(
    start_mill: Start, sqlite_url: str, tmp_path: Path
) -> None:
    stale, good = tmp_path / "stale.key", tmp_path / "good.key"
    by_rename(stale, "sk-ant-api03-CANARY-stale")
    by_rename(good, "sk-ant-api03-CANARY-good")
    with simulated_claude(
        organizations={"one": ["sk-ant-api03-CANARY-good"]},
        only_known_keys=True,
        first_token_s=0.1,
        faults=[{"kind": "hold"}],
    ) as claude:
        mill = start_mill(sqlite_url, claude, quick=True, PROMPTMILL_CONCURRENCY=SLOTS)
        mill.start_worker(ANTHROPIC_API_KEY_FILE=str(good))
        mill.start_worker(ANTHROPIC_API_KEY_FILE=str(stale))
        mill.wait_until(lambda: _telling(mill) == 2, timeout=30)
        made, began = a_batch(mill.database, 150), time.monotonic()
        # The good one's calls are held, or it may be through before the stale one has asked for anything.
        mill.wait_until(lambda: mill.status(made.id).failures.get("key_rejected", 0) > 0, timeout=60)
        claude.set_scenario()
        status = mill.wait_for_end(made.id)
        took = time.monotonic() - began
        answered = claude.ledger()["answered"]
    assert status.jobs[JobState.SUCCEEDED] == 150
    assert answered == {"1": 150}
    assert set(status.failures) == {"key_rejected"}
    assert status.failures["key_rejected"] <= 2 * int(SLOTS)
    assert "batch_paused" not in mill.logs()
    with mill.database.read() as connection:
        dispatched = connection.scalar(select(func.sum(job.c.dispatch)).where(job.c.batch_id == made.id))
    # Each rest is twice as long as the one before it, and after each it tries again with what it has room for.
    rests = int(math.log2(1 + took / FIRST_REST_S))
    assert dispatched <= 150 + (3 + rests) * int(SLOTS)


def _telling(mill: Any) -> int:
    with Redis.from_url(mill.environment["PROMPTMILL_REDIS_URL"]) as redis:
        return int(redis.hlen(KEY_STATES))


@pytest.mark.chaos
def test_keys_rotated_every_five_seconds_under_load_cost_no_job(
    start_mill: Start, postgres_first_url: str, tmp_path: Path
) -> None:
    secrets, place = names(), tmp_path / "anthropic.key"
    current = next(secrets)
    by_rename(place, current)
    with simulated_claude(
        organizations={"one": [current]}, only_known_keys=True, first_token_s=1.0, jitter=0.5
    ) as claude:
        mill = start_mill(
            postgres_first_url,
            claude,
            ANTHROPIC_API_KEY_FILE=str(place),
            PROMPTMILL_CONCURRENCY="200",
            PROMPTMILL_RPM="6000",
        )
        made = a_batch(mill.database, 6000)
        mill.start_worker()
        mill.start_worker()
        turn = 0
        while mill.status(made.id).batch.state != "ended":
            over = time.monotonic() + 5
            mill.wait_until(lambda over=over: time.monotonic() > over, timeout=10)
            current, old = next(secrets), current
            rotate(claude, place, old, current, WAYS[turn % len(WAYS)], early=(turn % 3) * 0.5)
            turn += 1
        status = mill.status(made.id)
        book = claude.ledger()
    assert turn >= 10
    assert status.jobs[JobState.SUCCEEDED] == 6000
    assert book["answered"] == {"1": 6000}
    assert set(status.failures) <= {"key_rejected"}
    assert status.batch.cost_nanos == book["billed"]["cost_nanos"]
