"""What must hold after a chaos run, asked in plain SQL and of the simulator's book: the product is not asked.

The one idea: each check is a value with what was expected and what was found, so that all are shown and none hides
the next. The command `promptmill audit` is asked too, as one more witness.
"""

import contextlib
import itertools
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from redis import Redis

from tests.chaos.play import Stage, limit_refusals
from tests.chaos.surroundings import Rows, wait_until

_LEASES_S = 90.0
_LEAST_WAIT_S = 0.04
_WAITED_AFTER = ("connection_failed", "server_failed", "overloaded", "unreachable", "rate_limited")
_MOST_ATTEMPTS = 25


@dataclass(frozen=True, slots=True)
class Check:
    """One statement about the run; `expected` is words or a value, `ok` the verdict."""

    what: str
    expected: object
    found: object
    ok: bool


def equal(what: str, expected: object, found: object) -> Check:
    return Check(what, expected, found, expected == found)


def at_most(what: str, bound: int, found: int) -> Check:
    return Check(what, f"≤ {bound:,}", found, found <= bound)


def check(stage: Stage) -> list[Check]:
    """Everything, in the order a reader asks."""
    book = stage.claude.ledger(detail=True)
    return [
        *_jobs(stage),
        *_attempts(stage),
        *_waits(stage),
        *_counters(stage),
        *_bill(stage, book),
        *_calls(stage, book),
        *_redis(stage),
        *_audit(stage),
    ]


def _jobs(stage: Stage) -> Iterator[Check]:
    states: dict[str, int] = dict(stage.database.ask("SELECT state, count(*) FROM job GROUP BY state"))
    yield equal("jobs that succeeded; nothing else is left", {"succeeded": stage.plan.jobs}, states)
    yield equal(
        "batches that have ended",
        len(stage.plan.submissions),
        _one(stage, "SELECT count(*) FROM batch WHERE state = 'ended' AND ended_at IS NOT NULL"),
    )
    yield equal("replies", stage.plan.jobs, _one(stage, "SELECT count(*) FROM reply"))
    yield equal(
        "replies whose attempt did not succeed, or is of another job",
        0,
        _one(
            stage,
            "SELECT count(*) FROM reply r LEFT JOIN attempt a ON a.id = r.attempt_id AND a.job_id = r.job_id"
            " AND a.outcome = 'succeeded' WHERE a.id IS NULL",
        ),
    )
    yield equal("jobs answered twice in the database", 0, len(_answered_twice(stage)))


def _answered_twice(stage: Stage) -> Rows:
    return stage.database.ask(
        "SELECT job_id, count(*) FROM attempt WHERE outcome = 'succeeded' GROUP BY job_id HAVING count(*) > 1"
    )


def _attempts(stage: Stage) -> Iterator[Check]:
    yield equal("attempts left open", 0, _one(stage, "SELECT count(*) FROM attempt WHERE outcome = 'open'"))
    yield equal(
        "attempts whose numbers have gaps",
        0,
        _one(
            stage,
            "SELECT count(*) FROM job j WHERE j.attempts <> (SELECT count(*) FROM attempt a WHERE a.job_id = j.id)",
        ),
    )
    lost: Counter[int] = Counter(
        dict(
            stage.database.ask(
                "SELECT w.pid, count(*) FROM attempt a JOIN worker w ON w.id = a.worker_id"
                " WHERE a.outcome = 'lost' GROUP BY w.pid"
            )
        )
    )
    gone = stage.crew.killed | set(stage.crew.ended)
    yield equal(
        "workers that lost calls and were not killed", [], sorted(pid for pid in lost if pid not in gone)
    )
    yield at_most(
        "attempts lost with their worker: calls in flight at kills", stage.in_flight_at_kills, lost.total()
    )
    yield equal("workers that ended by themselves", {}, stage.crew.ended)


def _waits(stage: Stage) -> Iterator[Check]:
    """Nothing is tried again in a tight loop, whoever has it by then."""
    attempts = stage.database.ask(
        "SELECT job_id, outcome, opened_at, closed_at FROM attempt ORDER BY job_id, number"
    )
    waits = [
        (_moment(later[2]) - _moment(earlier[3])).total_seconds()
        for earlier, later in itertools.pairwise(attempts)
        if earlier[0] == later[0] and earlier[1] in _WAITED_AFTER
    ]
    soon = sum(wait < _LEAST_WAIT_S for wait in waits)
    yield equal(f"of {len(waits):,} retries of failed calls, those without a wait", 0, soon)
    by_job = Counter(job for job, *_ in attempts)
    most = max(by_job.values())
    yield at_most("attempts of the unluckiest job", _MOST_ATTEMPTS, most)


def _moment(value: object) -> datetime:
    """SQLite keeps moments as text."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(str(value))


_COUNTERS = {
    "attempts": "count(*)",
    "cost_nanos": "coalesce(sum(cost_nanos), 0)",
    "input_tokens": "sum(input_tokens)",
    "output_tokens": "sum(output_tokens)",
    "unpriced_attempts": "sum(CASE WHEN outcome <> 'open' AND cost_nanos IS NULL THEN 1 ELSE 0 END)",
    "unknown_nanos": "sum(CASE WHEN outcome <> 'open' AND cost_nanos IS NULL THEN coalesce(reserved_nanos, 0) ELSE 0 END)",
    "reserved_nanos": "sum(CASE WHEN outcome = 'open' THEN coalesce(reserved_nanos, 0) ELSE 0 END)",
}


def _counters(stage: Stage) -> Iterator[Check]:
    for name, formula in _COUNTERS.items():
        kept = stage.database.ask(f"SELECT id, {name} FROM batch ORDER BY id")
        counted = stage.database.ask(
            f"SELECT batch_id, {formula} FROM attempt GROUP BY batch_id ORDER BY batch_id"
        )
        yield equal(
            f"{name} of the batches: the sum of their attempts",
            [int(value) for _, value in counted],
            [int(value) for _, value in kept],
        )


def _bill(stage: Stage, book: dict[str, Any]) -> Iterator[Check]:
    """Our attempts against the simulator's lines, by request id; then by prompt for what nobody could tell us."""
    lines = {line["request_id"]: line for line in book["bills"]}
    yield equal("lines of the bill, each of its own request", book["billed"]["answers"], len(lines))
    known = stage.database.ask(
        "SELECT request_id, cost_nanos FROM attempt WHERE cost_nanos > 0 ORDER BY request_id"
    )
    wrong = [request for request, cost in known if lines.get(request, {}).get("cost_nanos") != cost]
    yield equal("attempts with a cost that the bill does not show so", [], wrong[:5])
    matched = {request for request, _ in known}
    yield equal("requests that two attempts claim", 0, len(known) - len(matched))
    unmatched = Counter(line["prompt"] for request, line in lines.items() if request not in matched)
    unknown: Counter[str] = Counter(
        dict(
            stage.database.ask(
                "SELECT p.fingerprint, count(*) FROM attempt a JOIN prompt p ON p.job_id = a.job_id"
                " WHERE a.outcome <> 'open' AND a.cost_nanos IS NULL GROUP BY p.fingerprint"
            )
        )
    )
    yield equal("billed calls that no attempt of their job can be", 0, (unmatched - unknown).total())
    ours = sum(cost for _, cost in known)
    rest = sum(line["cost_nanos"] for request, line in lines.items() if request not in matched)
    yield equal(
        "the whole bill: our cost and what is known to be unknown", book["billed"]["cost_nanos"], ours + rest
    )


def _calls(stage: Stage, book: dict[str, Any]) -> Iterator[Check]:
    times: dict[str, int] = defaultdict(int)
    for line in book["bills"]:
        times[line["prompt"]] += 1
    again = sum(count - 1 for count in times.values())
    replies_lost = book["faults"].get("cut", 0) + book["faults"].get("lost_reply", 0)
    yield equal("prompts that were answered", stage.plan.jobs, len(times))
    yield at_most(
        "answers billed twice: calls in flight at kills + replies lost on the wire",
        _one(stage, "SELECT count(*) FROM attempt WHERE outcome IN ('lost', 'interrupted')") + replies_lost,
        again,
    )
    yield equal("429 that no scenario asked for", 0, limit_refusals(book))
    for kind in ("overloaded", "cut", "lost_reply", "outage"):
        found = book["faults"].get(kind, 0)
        yield Check(f"faults of the kind {kind} that happened", "> 0", found, found > 0)


def _redis(stage: Stage) -> Iterator[Check]:
    redis = stage.redis.client
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: not _permits(redis), "the permits of the dead are given up", _LEASES_S)
    yield equal("permits left", {}, _permits(redis))
    yield equal("messages left", 0, int(redis.llen("promptmill")))


def _permits(redis: "Redis") -> dict[str, int]:
    found: dict[str, int] = {}
    for key in redis.scan_iter("promptmill:limit:*:permits:*"):
        size = redis.hlen(key) if redis.type(key) == b"hash" else redis.zcard(key)
        if size:
            found[key.decode()] = int(size)
    return found


def _audit(stage: Stage) -> Iterator[Check]:
    for number in range(len(stage.plan.submissions)):
        done = subprocess.run(
            [sys.executable, "-m", "producers.cli", "audit", f"chaos-{number}"],
            env=stage.environment,
            cwd=stage.folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        (stage.folder / f"audit-{number}.txt").write_text(done.stdout + done.stderr)
        yield equal(f"exit code of promptmill audit chaos-{number}", 0, done.returncode)


def _one(stage: Stage, query: str) -> int:
    return int(stage.database.ask(query)[0][0])
