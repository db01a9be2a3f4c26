"""The Postgres databases of tests: taken again only when nothing but rows has changed, and never by the same name."""

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from promptmill.store import workers
from promptmill.store.database import Database
from tests.copies import Copies


@pytest.fixture
def copies(postgres_server: str, postgres_template: str) -> Iterator[Copies]:
    made = Copies(postgres_server, postgres_template)
    yield made
    made.drop_all()


def oid(url: str) -> int:
    """What stays of a database when its name changes."""
    [found] = do(url, "SELECT oid FROM pg_database WHERE datname = current_database()")
    return int(str(found))


def do(url: str, statement: str) -> tuple[object, ...]:
    with psycopg.connect(url) as connection:
        done = connection.execute(statement.encode())
        return (done.fetchone() or ()) if done.description else ()


def sign_in(url: str) -> None:
    database = Database.open(url)
    new = workers.NewWorker(id="worker", host="here", pid=1, version="0", endpoint=None, slots=10)
    with database.begin() as connection:
        workers.register(connection, new, datetime(2026, 3, 1, tzinfo=UTC))
    database.close()


def test_one_that_is_taken_again_has_another_name_and_no_rows(copies: Copies) -> None:
    with copies.one() as first:
        before = oid(first)
        sign_in(first)
        assert do(first, "SELECT count(*) FROM worker") == (1,)
    with copies.one() as second:
        assert oid(second) == before
        assert second != first
        assert do(second, "SELECT count(*) FROM worker") == (0,)


def test_who_has_stayed_in_it_is_sent_away(copies: Copies) -> None:
    with copies.one() as url:
        before = oid(url)
        stayed = psycopg.connect(url)
        stayed.execute("SELECT 1")
    with copies.one() as again:
        assert oid(again) == before
        with pytest.raises(psycopg.OperationalError):
            stayed.execute("SELECT 1")
    stayed.close()


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE other (id int)",
        "ALTER TABLE job ADD COLUMN other int",
        "CREATE INDEX other ON job (id)",
        "ANALYZE",
        "UPDATE alembic_version SET version_num = 'other'",
    ],
)
def test_one_that_has_changed_in_more_than_rows_is_not_taken_again(copies: Copies, change: str) -> None:
    with copies.one() as url:
        before = oid(url)
        do(url, change)
    with copies.one() as other:
        assert oid(other) != before
