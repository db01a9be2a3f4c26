"""No statement reads its way through a table of jobs: what each costs does not grow with the batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from typing import Any

import pytest
from sqlalchemy import event, text

from promptmill.states import JobState, PausedBy
from promptmill.store import (
    answered,
    backlog,
    batches,
    control,
    failures,
    jobs,
    ledger,
    recounting,
    results,
    retrying,
    stats,
    terms,
    unreadable,
    workers,
)

GROWING = ("job", "prompt", "reply", "attempt")
MANY = 5_000
FEW = 200
GROUP = "claude-sonnet-5"
# These hold only what is out or running at the moment, and may be read whole.
SMALL_INDEXES = ("INDEX job_out", "INDEX job_running")

Statement = tuple[str, Any]


def _look_at_all(conn: Any, now: Any) -> None:
    """What the page and `limits` ask, of all batches at once."""
    backlog.waiting_jobs(conn)
    stats.statuses(conn, batches.unfinished(conn, 10), now)
    stats.standings(conn)


def _walk(world: Any, many: int = 8, pages: int = 3) -> Any:
    """Do everything that is done while a batch runs; read only the first `pages` pages of its results."""
    made = world.batch(many, deadline=world.now + timedelta(seconds=500), template="t")
    with world.database.begin() as conn:
        assert jobs.insert_many(conn, made.id, [world.new_job(0)], world.now) == 0
    first, second, third, fourth = world.running(made, 4)
    world.complete(first)
    world.fail(second)
    world.defer(third)
    again = world.dispatch(made, 2)
    with world.database.begin() as conn:
        jobs.load(conn, [first.job_id, third.job_id])
        jobs.model_groups_waiting(conn, made.id)
        jobs.groups_pending(conn, world.now)
        jobs.select_pending(conn, made.id, GROUP, 5, world.now)
        jobs.unqueue(conn, [(each.job_id, each.dispatch) for each in again], world.now)
        jobs.lost_queued(conn, [], world.now)
        jobs.queued_under(conn, [(each.job_id, each.dispatch) for each in again])
        jobs.replied_by(conn, [(first.job_id, first.attempt_id)])
        control.pause(conn, made.id, "lunch", world.now)
        control.resume(conn, made.id, world.now)
        batches.active(conn)
        _look_at_all(conn, world.now)
        stats.flow(conn, stats.status(conn, made.id, world.now), world.now)
        failures.groups(conn, made.id)
        failures.stop_reasons(conn, made.id)
        stats.resting(conn, made.id, world.now)
        stats.window_counts(conn, world.now)
        ledger.attempts_of(conn, job_id=fourth.job_id)
        kind = answered.Kind(GROUP, simulated=True, template="t")
        above = answered.experience_above(conn, kind, world.now)
        answered.experience_of(conn, made.id, kind, above, world.now)
        workers.beat(conn, "worker-1", 1, world.now)
        workers.running_of(conn, "worker-1")
    world.tick(60)
    world.reap()
    world.complete(fourth)
    with world.database.begin() as conn:
        list(islice(results.iterate(conn, made.id, page=3), 3 * pages))
        list(islice(results.iterate(conn, made.id, only=[JobState.SUCCEEDED], page=3), 1))
    other = world.batch(2, deadline=world.now)
    with world.database.begin() as conn:
        jobs.expire_overdue(conn, world.now)
    other = world.batch(2)
    with world.database.begin() as conn:
        control.cancel(conn, other.id, world.now)
        page = retrying.page_to_retry(conn, other.id, [JobState.CANCELED])
        assert page
        retrying.retry(conn, other.id, page.ids, [JobState.CANCELED], world.now)
        terms.change(conn, other.id, terms.NewTerms(priority=2.0), world.now)
        control.resume_due(conn, world.now)
    return made


def test_no_statement_scans_a_table_that_grows(world: Any) -> None:
    _fill(world)
    with _recorded(world) as statements:
        _walk(world)
        with world.database.begin() as conn:
            control.resume_held(conn, PausedBy.KEY, "simulated")
            unreadable.unreadable(conn, ["job_1", "job_2"])
    plans = _sqlite_scans if world.database.dialect == "sqlite" else _postgres_scans
    with world.database.begin() as conn:
        scans = [(scan, sql) for sql, parameters in statements for scan in plans(conn, sql, parameters)]
    assert len(statements) > 40
    assert scans == []


def test_postgres_looks_at_few_rows_of_a_batch_it_has_no_statistics_of(
    postgres_url: str, world_of: Any
) -> None:
    """A batch is worked on at once after it was submitted, and statistics come a minute later."""
    world = world_of(postgres_url)
    with _recorded(world) as statements:
        made = _walk(world, MANY, pages=1)
    with world.database.begin() as conn:
        touched = {
            sql: _rows_touched(conn, sql, parameters)
            for sql, parameters in statements
            if not sql.startswith("INSERT")
        }
    assert world.row(made).total == MANY
    assert {sql: rows for sql, rows in touched.items() if rows > FEW} == {}


@pytest.mark.parametrize("has_statistics", [False, True])
@pytest.mark.parametrize("code", ["'rare'", "NULL"])
def test_one_job_of_a_rare_failure_is_found_without_a_walk_through_the_common_ones(
    world: Any, code: str, has_statistics: bool
) -> None:
    made = world.batch(0)
    _many_errored(world, made, last_code=code)
    if has_statistics and world.database.dialect == "postgresql":
        with world.database.begin() as conn:
            conn.execute(text("ANALYZE"))
    with _recorded(world) as statements, world.database.read() as conn:
        common, rare = failures.groups(conn, made.id)

    assert (common.jobs, common.custom_id, rare.jobs, rare.custom_id) == (MANY - 1, "row 1", 1, f"row {MANY}")
    samples = [(sql, parameters) for sql, parameters in statements if "job_failed" in sql or "LIMIT" in sql]
    assert samples
    with world.database.begin() as conn:
        if world.database.dialect == "postgresql":
            assert max(_rows_touched(conn, *each) for each in samples) <= FEW
        else:
            assert {_sqlite_sorts(conn, *each) for each in samples} == {False}
            assert all(_columns_looked_up(conn, *each) == 6 for each in samples)


def test_what_a_dead_process_closed_is_found_without_a_walk_through_what_was_closed_since(
    postgres_url: str, world_of: Any
) -> None:
    world = world_of(postgres_url)
    made = world.batch(MANY // 10)
    theirs, *others = world.running(made, MANY // 10, worker="dead")
    world.fail(theirs)
    died_at = world.now
    world.tick(3_000)
    world.fail(*others)
    span = died_at - timedelta(seconds=5), died_at + timedelta(seconds=70)
    with _recorded(world) as statements, world.database.read() as conn:
        assert workers.closed_by(conn, {"dead": span}, 100) == {theirs.job_id}
    [closed] = [each for each in statements if "closed_at" in each[0]]
    with world.database.begin() as conn:
        assert _rows_touched(conn, *closed) <= 5


def _many_errored(world: Any, made: Any, last_code: str) -> None:
    """Jobs that failed of one thing, and the last of them of another."""
    is_sqlite = world.database.dialect == "sqlite"
    numbers = (
        f"(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY}) SELECT i FROM n) AS n"
        if is_sqlite
        else f"generate_series(1, {MANY}) AS n(i)"
    )
    moment = "'2020-01-01T00:00:00.000000Z'" if is_sqlite else "TIMESTAMPTZ '2020-01-01Z'"
    with world.database.begin() as conn:
        conn.execute(
            text(
                "INSERT INTO job (id, batch_id, seq, custom_id, state, model_group, estimated_input_tokens,"
                " estimated_output_tokens, dispatch, token, attempts, changed_at, error_kind, error_status, error_code)"
                f" SELECT 'bad' || i, '{made.id}', i, 'row ' || i, 'errored', 'g', 1, 1, 1, 1, 1, {moment},"
                f" 'overloaded', 529, CASE WHEN i = {MANY} THEN {last_code} ELSE 'common' END FROM {numbers}"
            )
        )
        recounting.recount(conn, made.id)


def _sqlite_sorts(conn: Any, sql: str, parameters: Any) -> bool:
    return any("TEMP B-TREE" in step for step in _steps(conn, sql, parameters))


def _columns_looked_up(conn: Any, sql: str, parameters: Any) -> int:
    """By how many columns of its index the job is looked up, the batch among them."""
    [step] = [each for each in _steps(conn, sql, parameters) if "INDEX job_failed" in each]
    return step.count("=?")


def _steps(conn: Any, sql: str, parameters: Any) -> list[str]:
    return [row[3] for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", parameters)]


@contextmanager
def _recorded(world: Any) -> Iterator[list[Statement]]:
    """Every statement that reads or changes rows, by its wording, with the parameters it was last used with."""
    seen: dict[str, Any] = {}

    def record(_c: Any, _cursor: Any, sql: str, parameters: Any, _x: Any, many: bool) -> None:
        if sql.lstrip().startswith(("SELECT", "UPDATE", "INSERT", "WITH")) and "alembic" not in sql:
            seen[sql] = parameters[0] if many else parameters

    statements: list[Statement] = []
    event.listen(world.database._engine, "before_cursor_execute", record)
    try:
        yield statements
    finally:
        event.remove(world.database._engine, "before_cursor_execute", record)
        statements.extend(seen.items())


def _sqlite_scans(conn: Any, sql: str, parameters: Any) -> list[str]:
    plan = _steps(conn, sql, parameters)
    grown = tuple(f"SCAN {table}" for table in GROWING)
    return [
        step for step in plan if step.startswith(grown) and not any(small in step for small in SMALL_INDEXES)
    ]


def _rows_touched(conn: Any, sql: str, parameters: Any) -> int:
    """How many rows the steps of a plan had in hand, those they threw away included."""
    savepoint = conn.begin_nested()
    # As for a table of millions, where reading through it all is no way.
    conn.exec_driver_sql("SET LOCAL enable_seqscan = off")
    [[[explained]]] = conn.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", parameters).all()
    savepoint.rollback()
    return _rows_of(explained["Plan"])


def _rows_of(step: dict[str, Any]) -> int:
    rows = step["Actual Rows"] + sum(
        number for fact, number in step.items() if fact.startswith("Rows Removed")
    )
    return int(rows * step["Actual Loops"]) + sum(_rows_of(below) for below in step.get("Plans", []))


def _postgres_scans(conn: Any, sql: str, parameters: Any) -> list[str]:
    # A few thousand rows are read through sooner than looked up; it matters what can be done with millions.
    conn.exec_driver_sql("SET LOCAL enable_seqscan = off")
    plan = [row[0] for row in conn.exec_driver_sql(f"EXPLAIN {sql}", parameters)]
    grown = tuple(f"Seq Scan on {table}" for table in GROWING)
    return [step for step in plan if any(table in step for table in grown)]


def _fill(world: Any) -> None:
    """A large batch that has ended, which nobody asks about any more."""
    made = world.batch(0)
    numbers = (
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY})"
        if world.database.dialect == "sqlite"
        else f"WITH n(i) AS (SELECT generate_series(1, {MANY}))"
    )
    columns = {
        "job": "id, batch_id, seq, custom_id, state, model_group, estimated_input_tokens, estimated_output_tokens,"
        " dispatch, token, attempts, changed_at",
        "prompt": "job_id, fingerprint, body",
        "reply": "job_id, attempt_id, model, simulated, created_at, text, message",
        "attempt": "id, job_id, batch_id, number, token, worker_id, key_label, account, model, model_group, lane,"
        " opened_at, outcome, input_tokens, output_tokens, cache_write_5m_tokens, cache_write_1h_tokens,"
        " cache_read_tokens, web_searches, simulated",
    }
    values = {
        "job": f"'old' || i, '{made.id}', i, i || '', 'succeeded', 'g', 1, 1, 1, 1, 1, '2020-01-01T00:00:00.000000Z'",
        "prompt": "'old' || i, 'f', '{}'",
        "reply": "'old' || i, 'a', 'm', '1', '2020-01-01T00:00:00.000000Z', 't', '{}'",
        "attempt": f"'old' || i, 'old' || i, '{made.id}', 1, 1, 'w', 'k', 'a', 'm', 'g', 'realtime',"
        " '2020-01-01T00:00:00.000000Z', 'succeeded', 1, 1, 0, 0, 0, 0, '1'",
    }
    with world.database.begin() as conn:
        for table in GROWING:
            selected = values[table]
            if world.database.dialect == "postgresql":
                selected = selected.replace("'2020-01-01T00:00:00.000000Z'", "TIMESTAMPTZ '2020-01-01Z'")
                selected = selected.replace("'1'", "TRUE")
            conn.execute(text(f"INSERT INTO {table} ({columns[table]}) {numbers} SELECT {selected} FROM n"))
        if world.database.dialect == "postgresql":
            conn.execute(text("ANALYZE"))


@pytest.mark.parametrize("table", GROWING)
def test_the_scan_would_be_noticed(world: Any, table: str) -> None:
    _fill(world)
    plans = _sqlite_scans if world.database.dialect == "sqlite" else _postgres_scans
    with world.database.begin() as conn:
        assert plans(conn, f"SELECT * FROM {table}", ())
