"""The roles of ops/postgres: the owner makes tables, the application works in them, the reader sees no prompt."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege, ReadOnlySqlTransaction

from promptmill.embedded import throwaway_postgres
from promptmill.states import JobState
from promptmill.store.database import Database
from promptmill.testing import a_batch, simulated_claude

OPS = Path(__file__).parents[3] / "ops" / "postgres"
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def url_of() -> Iterator[Callable[[str], str]]:
    """A server with the three roles and a migrated database; its address by role."""
    with throwaway_postgres() as url:

        def as_role(role: str) -> str:
            return url.replace("postgres@", f"promptmill_{role}@", 1)

        _run(url, OPS / "roles.sql")
        database = Database.open(as_role("owner"))
        database.migrate()
        database.close()
        _run(as_role("owner"), OPS / "reader.sql")
        yield as_role


def test_a_worker_does_its_work_as_a_role_that_can_change_no_table(
    start_mill: Callable[..., Any], url_of: Callable[[str], str]
) -> None:
    with simulated_claude() as claude:
        mill = start_mill(url_of("app"), claude)
        batch = a_batch(mill.database, 30)
        mill.start_worker()
        status = mill.wait_for_end(batch.id)
    assert status.jobs[JobState.SUCCEEDED] == 30


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE other (id int)",
        "DROP TABLE reply",
        "ALTER TABLE job ADD COLUMN other int",
        "TRUNCATE attempt",
        "CREATE ROLE other",
        "CREATE INDEX other ON job (id)",
        "COPY batch TO PROGRAM 'true'",
        "SELECT pg_read_file('/etc/passwd')",
    ],
)
def test_the_application_changes_no_table_and_leaves_the_server_alone(
    url_of: Callable[[str], str], statement: str
) -> None:
    with psycopg.connect(url_of("app")) as connection, pytest.raises(InsufficientPrivilege):
        connection.execute(statement.encode())


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT body FROM prompt",
        "SELECT text FROM reply",
        "SELECT shared FROM batch",
        "SELECT notify_url FROM batch",
        "SELECT notify_fault FROM batch",
        "SELECT error_message FROM attempt",
        "SELECT what FROM schedule",
    ],
)
def test_the_reader_sees_no_prompt_and_no_answer(url_of: Callable[[str], str], statement: str) -> None:
    with psycopg.connect(url_of("reader")) as connection, pytest.raises(InsufficientPrivilege):
        connection.execute(statement.encode())


def test_the_reader_sees_figures_and_writes_nothing(url_of: Callable[[str], str]) -> None:
    with psycopg.connect(url_of("reader")) as connection:
        connection.execute("SELECT name, state, cost_nanos FROM batch")
        connection.execute("SELECT outcome, cost_nanos FROM attempt")
        with pytest.raises(ReadOnlySqlTransaction):
            connection.execute("UPDATE batch SET state = 'ended'")
    with psycopg.connect(url_of("reader"), autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        with pytest.raises(InsufficientPrivilege):
            connection.execute("UPDATE batch SET state = 'ended'")


def _run(url: str, file: Path) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(file.read_bytes())
