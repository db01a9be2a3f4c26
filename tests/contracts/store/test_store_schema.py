"""The schema: migrations and tables say the same, and several processes may migrate at once."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from promptmill.errors import ConfigurationError, Unavailable
from promptmill.store import batches, schema
from promptmill.store.database import Database
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


def _first_version(empty: Database) -> None:
    """A batch of two jobs, one of them answered, in the tables of version 0001."""
    with empty.begin() as conn:
        config = schema._config()
        config.attributes["connection"] = conn
        command.upgrade(config, "0001")
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
