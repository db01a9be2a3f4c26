"""One row, staged: servers and workers start, batches are submitted as a user submits them, things go wrong.

The one idea: the server's moments count from its last reset, which is made right before the first batch is
submitted; what we do ourselves (kill, restart, submit the second batch) happens at the same moments.
"""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from realtime import loads
from realtime.commands import CommandCount, counted_commands, script_micros
from realtime.rows import HALF_WAY, Row
from realtime.servers import ThrowawayRedis, Workers, environment_of, one_at_a_time, wait_until
from sqlalchemy import select

from producers import submit
from producers.batches import Batch
from promptmill.embedded import throwaway_postgres
from promptmill.settings import Settings, load
from promptmill.store import workers
from promptmill.store.database import Database, database_now
from promptmill.store.stats import BatchStatus
from promptmill.store.tables import job, prompt
from promptmill.testing import SimulatorHandle, simulated_claude

LATENCY = {"first_token_s": 0.9, "jitter": 0.2}
STORM_S = 30.0
_LOOK_S = 0.25


@dataclass(frozen=True, kw_only=True)
class Played:
    """What a run left behind.

    Attributes:
        row: what was run.
        seconds: the time by rate alone that it was made for.
        ledger: the server's book with all details.
        statuses: of each batch.
        prompts: the fingerprints of each batch's prompts.
        submitted_s: when each batch was submitted, on the server's clock.
        redis_us: Redis's time in scripts, the limiter's nearly all; since its restart where it was killed.
        commands: what reached Redis, where the row counts it.
    """

    row: Row
    seconds: float
    ledger: dict[str, Any]
    statuses: list[BatchStatus]
    prompts: list[frozenset[str]]
    submitted_s: list[float]
    redis_us: float
    commands: CommandCount | None


@dataclass
class _Stage:
    """What is running."""

    row: Row
    settings: Settings
    database: Database
    claude: SimulatorHandle
    redis: ThrowawayRedis
    workers: Workers
    batches: list[Batch] = field(default_factory=list)
    submitted_s: list[float] = field(default_factory=list)


def play(row: Row, seconds: float, *, seed: int = 7, keep: Path | None = None) -> Played:
    """Run one row to its end; the server's book and the workers' logs stay in the folder `keep`, where one is given.

    Raises:
        TimeoutError: it did not end in three times its time and two minutes.
    """
    with contextlib.ExitStack() as stack:
        folder = _folder(stack, row, keep)
        stage = _set_up(stack, row, seconds, folder, seed)
        commands = stack.enter_context(counted_commands(stage.redis.url)) if row.scripts else None
        before = script_micros(stage.redis.url)
        _play(stage, seconds, seed)
        book = stage.claude.ledger(detail=True)
        if keep is not None:
            (folder / "ledger.json").write_text(json.dumps(book))
        return Played(
            row=row,
            seconds=seconds,
            ledger=book,
            statuses=[batch.status() for batch in stage.batches],
            prompts=[_fingerprints(stage.database, batch.id) for batch in stage.batches],
            submitted_s=stage.submitted_s,
            redis_us=script_micros(stage.redis.url) - (0.0 if row.redis_away_s else before),
            commands=commands,
        )


def scenario_of(row: Row, seconds: float) -> dict[str, Any]:
    """The tables of the simulator's scenario for what happens at the server."""
    half = HALF_WAY * seconds
    tables: dict[str, Any] = {"fault": loads.answer_lengths(row.loads)}
    if row.refuse_once:
        refusal = {"kind": "rate_limited", "retry_after_s": row.refuse_once, "from_s": half, "times": 1}
        tables["fault"].insert(0, refusal)
    if row.storm:
        storm = {"kind": "overloaded", "probability": row.storm, "from_s": half, "until_s": half + STORM_S}
        tables["fault"].insert(0, storm)
    if row.overloaded:
        tables["fault"].insert(0, {"kind": "overloaded", "probability": row.overloaded})
    if row.tenant:
        tables["tenant"] = [{"share": row.tenant, "from_s": half}]
    if row.change != 1:
        names = zip(("rpm", "itpm", "otpm"), row.limits, strict=True)
        tables["limits"] = [{"at_s": half, **{name: limit * row.change for name, limit in names}}]
    return tables


def seconds_of_limit(row: Row, seconds: float) -> float:
    """What is ours of so many seconds, in seconds of the server's first limits."""
    before, later = (row.per_minute(when).requests / row.limits.requests for when in (False, True))
    return seconds * (HALF_WAY * before + (1 - HALF_WAY) * later)


def _folder(stack: contextlib.ExitStack, row: Row, keep: Path | None) -> Path:
    if keep is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"promptmill-row-{row.name}-")))
    folder = keep / f"row-{row.name}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def _set_up(stack: contextlib.ExitStack, row: Row, seconds: float, folder: Path, seed: int) -> _Stage:
    rpm, itpm, otpm = row.limits
    claude = stack.enter_context(
        simulated_claude(
            rpm=rpm,
            itpm=itpm,
            otpm=otpm,
            burst_s=row.burst_s,
            hidden_request_burst_s=row.hidden_s,
            token_factor=row.token_factor,
            tokens_per_s=row.tokens_per_s,
            mean_output_tokens=row.loads[0].output_tokens,
            seed=seed,
            **LATENCY,
        )
    )
    claude.set_scenario(**scenario_of(row, seconds))
    redis = ThrowawayRedis(folder)
    stack.callback(redis.kill)
    environment = environment_of(folder, _settings_of(stack, row, claude, redis))
    settings = load(environ=environment, folder=folder)
    crew = Workers(folder, environment)
    database = Database.open(settings.effective_database_url)
    stack.callback(database.close)
    database.migrate()
    stack.callback(crew.stop)
    with one_at_a_time():
        for number in range(row.workers):
            crew.start(clock_s=row.clocks[number] if number < len(row.clocks) else 0.0)
        wait_until(lambda: _live(database) == row.workers, "the workers have signed in")
    return _Stage(row, settings, database, claude, redis, crew)


def _settings_of(
    stack: contextlib.ExitStack, row: Row, claude: SimulatorHandle, redis: ThrowawayRedis
) -> dict[str, str]:
    values = {
        "PROMPTMILL_REDIS_URL": redis.url,
        "ANTHROPIC_BASE_URL": claude.url,
        "ANTHROPIC_API_KEY": "sk-simulated",
        "PROMPTMILL_CONCURRENCY": str(row.slots),
    }
    if row.postgres:
        values["PROMPTMILL_DATABASE_URL"] = stack.enter_context(throwaway_postgres())
    if row.configured is not None:
        names = ("PROMPTMILL_RPM", "PROMPTMILL_ITPM", "PROMPTMILL_OTPM")
        values |= {name: str(limit * row.configured) for name, limit in zip(names, row.limits, strict=True)}
    return values


def _live(database: Database) -> int:
    with database.read() as connection:
        return len(workers.live(connection, database_now(connection)))


def _play(stage: _Stage, seconds: float, seed: int) -> None:
    counts = loads.counts(stage.row.loads, seconds_of_limit(stage.row, seconds), stage.row.limits)
    stage.claude.reset()
    begun = time.monotonic()
    events = _events(stage, seconds, counts, begun, seed)
    deadline = begun + 3 * seconds + 120
    while events or not all(batch.look().has_ended for batch in stage.batches):
        while events and time.monotonic() - begun >= events[0][0]:
            events.pop(0)[1]()
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"row {stage.row.name} has not ended; its workers: {stage.workers.last_words()}"
            )
        time.sleep(_LOOK_S)


def _events(
    stage: _Stage, seconds: float, counts: list[int], begun: float, seed: int
) -> list[tuple[float, Callable[[], None]]]:
    """What we do ourselves, in the order of its moments."""
    row = stage.row
    half = HALF_WAY * seconds
    events: list[tuple[float, Callable[[], None]]] = [
        (each.begins * seconds, partial(_submit, stage, each, count, begun, seed))
        for each, count in zip(row.loads, counts, strict=True)
    ]
    if row.killed:
        events.append((half, lambda: stage.workers.kill(row.killed)))
    if row.redis_away_s:
        events += [(half, stage.redis.kill), (half + row.redis_away_s, stage.redis.start)]
    return sorted(events, key=lambda event: event[0])


def _submit(stage: _Stage, load: loads.Load, count: int, begun: float, seed: int) -> None:
    batch = submit(
        load.prompts(count, stage.row.token_factor, seed),
        model=loads.MODEL,
        max_tokens=loads.MOST_OUTPUT,
        system=load.system,
        priority=load.priority,
        settings=stage.settings,
    )
    stage.batches.append(batch)
    stage.submitted_s.append(time.monotonic() - begun)


def _fingerprints(database: Database, batch_id: str) -> frozenset[str]:
    with database.read() as connection:
        found = connection.execute(
            select(prompt.c.fingerprint)
            .join(job, job.c.id == prompt.c.job_id)
            .where(job.c.batch_id == batch_id)
        )
        return frozenset(found.scalars())
