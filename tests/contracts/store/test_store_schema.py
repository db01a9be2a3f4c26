"""The schema: migrations and tables say the same, and several processes may migrate at once."""

import random
import string
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from producers import audit_checks
from producers.audit_checks import Check
from promptmill.errors import ConfigurationError, Unavailable
from promptmill.runtime import open_database
from promptmill.settings import Settings
from promptmill.store import audit, batches, failures, jobs, schema, stats, workers
from promptmill.store.database import Database, database_now
from promptmill.store.tables import METADATA

ON_POSTGRES = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)


@pytest.fixture
def empty_url(database_url: str, tmp_path: Path) -> Iterator[str]:
    """A database without a table, of the same kind."""
    if database_url.startswith("sqlite"):
        yield f"sqlite:///{tmp_path}/empty.db"
        return
    server, _, name = database_url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}_empty".encode())
        yield f"{server}/{name}_empty"
        connection.execute(f"DROP DATABASE {name}_empty WITH (FORCE)".encode())


@pytest.fixture
def empty(empty_url: str) -> Iterator[Database]:
    opened = Database.open(empty_url)
    yield opened
    opened.close()


def test_alembic_finds_no_difference_between_migrations_and_tables(database: Database) -> None:
    with database.read() as conn:
        assert compare_metadata(MigrationContext.configure(conn), METADATA) == []


def test_migrations_make_the_very_tables_and_indexes_that_the_tables_say(
    database: Database, empty: Database
) -> None:
    with empty.begin() as conn:
        METADATA.create_all(conn)
        declared = _definitions(conn)
    with database.read() as conn:
        migrated = _definitions(conn)
    assert migrated == declared


def _definitions(conn: Connection) -> dict[str, str]:
    """What the database itself says about tables and indexes, the predicates of partial ones included."""
    if conn.dialect.name == "sqlite":
        query = "SELECT name, replace(replace(sql, char(10), ''), char(9), '') FROM sqlite_master"
    else:
        query = """
            SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
            UNION ALL
            SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
            UNION ALL
            SELECT table_name || '.' || column_name, concat_ws(' ', ordinal_position, data_type, is_nullable)
            FROM information_schema.columns WHERE table_schema = 'public'
        """
    return {row[0]: str(row[1]) for row in conn.execute(text(query)) if "alembic" not in row[0]}


def test_a_command_that_finds_its_tables_loads_no_alembic(sqlite_url: str) -> None:
    program = f"""
import sys
from promptmill.store.database import Database
Database.open({sqlite_url!r}).check_schema()
sys.exit("alembic" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(schema.__file__).parents[2])


def test_an_empty_database_is_told_how_to_get_its_tables(empty: Database) -> None:
    with pytest.raises(ConfigurationError, match="promptmill migrate"):
        empty.check_schema()
    empty.migrate()
    empty.check_schema()


def test_migrating_again_changes_nothing(database: Database, world: Any) -> None:
    made = world.batch()
    database.migrate()
    database.check_schema()
    assert world.row(made).total == 3


def test_a_database_of_a_newer_version_is_left_alone(empty: Database) -> None:
    empty.migrate()
    with empty.begin() as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match="newer version"):
        empty.check_schema()
    with pytest.raises(ConfigurationError, match="newer version"):
        empty.migrate()


def test_several_processes_may_migrate_at_once(empty_url: str) -> None:
    program = (
        "import sys; from promptmill.store.database import Database; "
        "database = Database.open(sys.argv[1]); database.migrate(); database.check_schema(); database.close()"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, empty_url], stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, errors


def test_a_migration_that_fails_leaves_nothing_behind(empty: Database) -> None:
    with empty.begin() as conn:
        conn.execute(text("CREATE TABLE worker (id INTEGER)"))  # in the way of the last table to be made
    with pytest.raises(Exception, match="worker"):
        empty.migrate()
    with empty.read() as conn:
        assert not conn.dialect.has_table(conn, "batch")
        assert not conn.dialect.has_table(conn, "alembic_version")


def _tables_of(version: str, database: Database) -> None:
    config = schema._config()
    with database._writing.connect() as conn:
        is_sqlite = database.dialect == "sqlite"
        with conn.begin() if is_sqlite else nullcontext():
            config.attributes["connection"] = conn
            command.upgrade(config, version)


def _first_version(empty: Database) -> None:
    """A batch of two jobs, one of them answered, in the tables of version 0001."""
    _tables_of("0001", empty)
    with empty.begin() as conn:
        conn.execute(
            text(
                "INSERT INTO batch (id, name, state, lane, model, endpoint, simulated, priority, total, succeeded,"
                " errored, canceled, expired, input_tokens, output_tokens, cache_write_tokens, cache_read_tokens,"
                " attempts, unpriced_attempts, cost_nanos, reserved_nanos, created_at, tags, options, shared)"
                " VALUES ('b', 'old', 'active', 'realtime', 'm', 'e', :yes, 1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0,"
                " 0, '2026-01-01T00:00:00.000000Z', '{}', '{}', '{}')"
            ),
            {"yes": True},
        )
        for seq, state in enumerate(("succeeded", "pending")):
            conn.execute(
                text(
                    "INSERT INTO job (id, batch_id, seq, custom_id, state, model_group, estimated_input_tokens,"
                    " estimated_output_tokens, dispatch, token, attempts, changed_at) VALUES (:id, 'b', :seq, :name,"
                    " :state, 'm', 70, 400, 0, 0, 0, '2026-01-01T00:00:00.000000Z')"
                ),
                {"id": f"j{seq}", "name": f"row-{seq}", "seq": seq, "state": state},
            )


def test_a_database_of_the_first_version_keeps_its_rows_and_is_counted_up(empty: Database) -> None:
    _first_version(empty)
    empty.migrate()
    with empty.read() as conn:
        row = batches.get(conn, "b")
    assert (row.formula_tokens, row.formula_tokens_answered) == (140, 70)
    assert (row.template, row.estimated_input_tokens) == (None, None)


def _insert(conn: Connection, table: str, **values: Any) -> None:
    names = ", ".join(values)
    places = ", ".join(f":{name}" for name in values)
    conn.execute(text(f"INSERT INTO {table} ({names}) VALUES ({places})"), values)


MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
NOON = "2026-01-01T00:00:00.000000Z"
NO_TOKENS = dict.fromkeys(("input_tokens", "output_tokens"), 0)


def _batch_of_0003(conn: Connection, **counters: int) -> None:
    none = dict.fromkeys(
        ("succeeded", "errored", "canceled", "expired", "cache_write_tokens", "cache_read_tokens"), 0
    )
    money = dict.fromkeys(("cost_nanos", "reserved_nanos", "unpriced_attempts", "unknown_nanos"), 0)
    said = {
        "name": "old",
        "state": "active",
        "lane": "realtime",
        "model": "m",
        "endpoint": "e",
        "deadline": NOON,
    }
    json = dict.fromkeys(("tags", "options", "shared"), "{}")
    made = {"id": "b", "simulated": True, "priority": 1, "created_at": NOON}
    _insert(conn, "batch", **made, **said, **json, **{**none, **money, **NO_TOKENS, **counters})


def _job_of_0003(
    conn: Connection, seq: int, state: str, outcome: str | None, kept: bool = False, **facts: Any
) -> None:
    """A job with one attempt that ended so, and with its answer where it has one; with none where it never began."""
    known = {"model_group": "m", "estimated_input_tokens": 70, "estimated_output_tokens": 400, "dispatch": 1}
    began = outcome is not None
    ended = {"state": state, "attempts": int(began), "token": int(began), "changed_at": NOON}
    ended["error_kind"] = None if state == "succeeded" else outcome
    ids = {"id": f"j{seq:03}", "batch_id": "b", "seq": seq, "custom_id": f"row-{seq}"}
    _insert(conn, "job", **ids, **known, **ended)
    if not began:
        return
    who = {
        "worker_id": "w",
        "key_label": "k",
        "account": "a",
        "model": "m",
        "model_group": "m",
        "lane": "realtime",
    }
    used = NO_TOKENS | dict.fromkeys(
        ("cache_write_5m_tokens", "cache_write_1h_tokens", "cache_read_tokens", "web_searches"), 0
    )
    of = {"id": f"a{seq:03}", "job_id": f"j{seq:03}", "batch_id": "b", "number": 1, "token": 1}
    closed = {"opened_at": NOON, "outcome": outcome, "cost_nanos": 0, "reserved_nanos": 5, "simulated": True}
    _insert(conn, "attempt", **of, **who, **used, **{**closed, **facts})
    if state == "succeeded" or kept:
        reply = {"model": "m", "simulated": True, "created_at": NOON, "text": "t", "message": "{}"}
        stop_reason = facts.get("stop_reason")
        _insert(conn, "reply", job_id=of["job_id"], attempt_id=of["id"], stop_reason=stop_reason, **reply)


LONG = "".join(random.Random(1).choices(string.ascii_letters, k=6_000))


def _work_of_version_0003(conn: Connection) -> None:
    """What may have become of jobs, 60 errors of different codes among it."""
    counted = {"total": 70, "succeeded": 3, "errored": 61, "expired": 2, "attempts": 68}
    _batch_of_0003(conn, **counted, unpriced_attempts=1, unknown_nanos=5)
    _job_of_0003(conn, 0, "succeeded", "succeeded", stop_reason="end_turn")
    _job_of_0003(conn, 1, "succeeded", "succeeded", stop_reason=LONG)
    _job_of_0003(conn, 2, "succeeded", "truncated", stop_reason="max_tokens")
    _job_of_0003(conn, 3, "pending", "truncated", kept=True, stop_reason="max_tokens")
    _job_of_0003(conn, 4, "errored", "prompt_rejected", status=400, error_type=LONG, error_message="no")
    _job_of_0003(conn, 5, "expired", "overloaded", status=529, error_type="overloaded_error")
    _job_of_0003(conn, 6, "expired", None)
    _job_of_0003(conn, 7, "pending", "lost", cost_nanos=None)
    _job_of_0003(conn, 8, "pending", "overloaded", status=529, error_type="overloaded_error")
    _job_of_0003(conn, 9, "pending", None)
    for seq in range(10, 70):
        _job_of_0003(conn, seq, "errored", "server_failed", status=500, error_code=f"trace {seq}")


def _broken(empty: Database) -> list[Check]:
    with empty.read() as conn:
        checks = audit_checks.checks(batches.get(conn, "b"), audit.count(conn, "b", MOMENT))
    return [each for each in checks if not each.ok]


def test_work_of_the_version_before_is_counted(empty: Database) -> None:
    _tables_of("0003", empty)
    with empty.begin() as conn:
        _work_of_version_0003(conn)

    empty.migrate()

    assert _broken(empty) == []
    with empty.read() as conn:
        assert failures.stop_reasons(conn, "b") == {LONG[:100]: 1, "max_tokens": 1}
        largest, *_ = failures.groups(conn, "b")
        outcomes = stats.status(conn, "b", MOMENT).failures
    assert (largest.kind, largest.jobs, largest.custom_id) == ("other", 11, None)
    assert outcomes == {"prompt_rejected": 1, "overloaded": 2, "lost": 1, "truncated": 2, "server_failed": 60}
    with empty.begin() as conn:
        assert jobs.expire_overdue(conn, MOMENT + timedelta(days=1)) == 4
    assert _broken(empty) == []


@ON_POSTGRES
def test_what_was_said_of_failures_is_filled_in_page_by_page(empty: Database) -> None:
    _tables_of("0003", empty)
    with empty.begin() as conn:
        _batch_of_0003(conn, total=6_001, errored=6_001, attempts=6_001)
        _job_of_0003(conn, 0, "errored", "prompt_rejected", status=400, error_type="t")
        for statement in _MORE_LIKE_IT:
            conn.execute(text(statement))

    empty.migrate()

    with empty.read() as conn:
        [group] = failures.groups(conn, "b")
    assert (group.jobs, group.status, group.type, group.custom_id) == (6_001, 400, "t", "row-0")
    assert _broken(empty) == []


_MORE_LIKE_IT = (
    """
    INSERT INTO job (id, batch_id, seq, custom_id, state, error_kind, model_group, estimated_input_tokens,
        estimated_output_tokens, dispatch, token, attempts, changed_at)
    SELECT 'k' || n, 'b', n, 'more-' || n, state, error_kind, model_group, 1, 1, 1, 1, 1, changed_at
    FROM job, generate_series(1, 6000) AS n
    """,
    """
    INSERT INTO attempt (id, job_id, batch_id, number, token, worker_id, key_label, account, model, model_group, lane,
        opened_at, outcome, status, error_type, input_tokens, output_tokens, cache_write_5m_tokens,
        cache_write_1h_tokens, cache_read_tokens, web_searches, cost_nanos, simulated)
    SELECT 'k' || n, 'k' || n, 'b', 1, 1, 'w', 'k', 'a', 'm', 'm', 'realtime', opened_at, outcome, status, error_type,
        0, 0, 0, 0, 0, 0, 0, simulated
    FROM attempt, generate_series(1, 6000) AS n
    """,
)


def test_nothing_is_migrated_beside_workers_of_an_older_version(empty: Database) -> None:
    _tables_of("0003", empty)
    with empty.begin() as conn:
        now = database_now(conn)
        workers.register(conn, OLD_WORKER, now)
    with pytest.raises(ConfigurationError, match=r"1 seen in the last 10 s\): stop them all"):
        empty.migrate()
    with empty.begin() as conn:
        assert not inspect(conn).has_table("batch_count")
        workers.leave(conn, OLD_WORKER.id, now)
    empty.migrate()
    empty.check_schema()


def test_a_worker_that_was_killed_long_ago_is_in_nobodys_way(empty: Database) -> None:
    _tables_of("0003", empty)
    with empty.begin() as conn:
        workers.register(conn, OLD_WORKER, database_now(conn) - timedelta(minutes=1))
    empty.migrate()
    empty.check_schema()


def test_a_command_that_would_migrate_a_file_is_refused_beside_an_older_worker(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    database = Database.open(settings.effective_database_url)
    _tables_of("0003", database)
    with database.begin() as conn:
        workers.register(conn, OLD_WORKER, database_now(conn))
    with pytest.raises(ConfigurationError, match="stop them all"), open_database(settings):
        pass
    with database.read() as conn:
        assert conn.scalar(text("SELECT version_num FROM alembic_version")) == "0003"
    database.close()


def test_workers_of_this_version_are_in_nobodys_way(database: Database, world: Any) -> None:
    with database.begin() as conn:
        workers.register(conn, OLD_WORKER, database_now(conn))
    database.migrate()


OLD_WORKER = workers.NewWorker(id="w", host="here", pid=1, version="0", endpoint=None, slots=1)


@ON_POSTGRES
def test_tables_that_are_in_use_are_left_alone_and_it_is_said_what_to_do(
    empty_url: str, empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "LOCK_PATIENCE_S", 0.2)
    _first_version(empty)
    with psycopg.connect(empty_url) as other:
        other.execute("SELECT count(*) FROM batch")
        with pytest.raises(Unavailable, match="stop the workers") as refused:
            empty.migrate()
    assert "SELECT" not in str(refused.value)
    with pytest.raises(ConfigurationError, match="promptmill migrate"):
        empty.check_schema()
    empty.migrate()
    empty.check_schema()


@ON_POSTGRES
def test_jobs_are_counted_before_the_batches_are_locked(
    empty_url: str, empty: Database, wait_until: Callable[..., None]
) -> None:
    _first_version(empty)
    with ThreadPoolExecutor(1) as thread, psycopg.connect(empty_url) as other:
        other.execute("LOCK TABLE job IN ACCESS EXCLUSIVE MODE")
        migrating = thread.submit(empty.migrate)
        with psycopg.connect(empty_url, autocommit=True) as reader:
            wait_until(lambda: reader.execute(_WAITING_FOR_JOB).fetchone())
            reader.execute("SET lock_timeout = '100ms'")
            assert reader.execute("SELECT count(*) FROM batch").fetchone() == (1,)
        other.rollback()
        migrating.result(30)
    empty.check_schema()


_WAITING_FOR_JOB = "SELECT 1 FROM pg_locks WHERE relation = 'job'::regclass AND NOT granted"


@ON_POSTGRES
def test_an_index_whose_making_was_interrupted_is_made_anew(empty_url: str, empty: Database) -> None:
    _first_version(empty)
    with psycopg.connect(empty_url, autocommit=True) as other:
        other.execute("CREATE INDEX attempt_answered ON attempt (id)")
        other.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'attempt_answered'::regclass"
        )
        empty.migrate()
        [(columns, valid)] = other.execute(
            "SELECT pg_get_indexdef(indexrelid), indisvalid FROM pg_index"
            " WHERE indexrelid = 'attempt_answered'::regclass"
        ).fetchall()
    assert valid
    assert "batch_id, model_group, opened_at" in columns


@ON_POSTGRES
def test_an_index_that_was_made_before_the_interruption_is_kept(empty_url: str, empty: Database) -> None:
    _first_version(empty)
    found = "SELECT 'attempt_answered'::regclass::oid"
    with psycopg.connect(empty_url, autocommit=True) as other:
        other.execute(
            "CREATE INDEX attempt_answered ON attempt (batch_id, model_group, opened_at)"
            " WHERE outcome = 'succeeded'"
        )
        before = other.execute(found).fetchone()
        empty.migrate()
        assert other.execute(found).fetchone() == before
