"""Which troubles of a database pass, and what is said where they do not."""

import sqlite3
import subprocess
import sys

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from promptmill.store.engines import first_line, hush, parse, shown, will_pass


def _sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("said")
    error.sqlite_errorcode = code
    return error


def _wrapped(cause: Exception) -> DBAPIError:
    return DBAPIError("SELECT 1", None, cause)


@pytest.mark.parametrize(
    "code",
    [
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_BUSY_SNAPSHOT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_CANTOPEN,
    ],
)
def test_a_busy_or_full_sqlite_passes(code: int) -> None:
    assert will_pass(_wrapped(_sqlite_error(code)))


@pytest.mark.parametrize(
    "code", [sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CONSTRAINT_UNIQUE]
)
def test_a_wrong_statement_or_a_broken_file_does_not_pass(code: int) -> None:
    assert not will_pass(_wrapped(_sqlite_error(code)))


@pytest.mark.parametrize(
    "cause",
    [
        psycopg.OperationalError("server closed the connection unexpectedly"),
        psycopg.errors.ConnectionTimeout("no answer"),
        psycopg.errors.AdminShutdown(),
        psycopg.errors.CannotConnectNow(),
        psycopg.errors.DeadlockDetected(),
        psycopg.errors.SerializationFailure(),
        psycopg.errors.DiskFull(),
        psycopg.errors.TooManyConnections(),
        psycopg.errors.LockNotAvailable(),
    ],
    ids=lambda cause: type(cause).__name__,
)
def test_a_postgres_that_is_away_or_undid_the_transaction_passes(cause: Exception) -> None:
    assert will_pass(_wrapped(cause))


@pytest.mark.parametrize(
    "cause",
    [psycopg.errors.UndefinedTable(), psycopg.errors.UniqueViolation(), psycopg.errors.InvalidPassword()],
    ids=lambda cause: type(cause).__name__,
)
def test_a_postgres_that_was_asked_wrongly_does_not_pass(cause: Exception) -> None:
    assert not will_pass(_wrapped(cause))


def test_the_row_that_postgres_quotes_is_cut_off() -> None:
    cause = psycopg.errors.NotNullViolation(
        "null value in column x\nDETAIL:  Failing row contains (my secret)"
    )
    error = _wrapped(cause)
    hush(error)
    assert "secret" not in str(error)
    assert "secret" not in str(cause)
    assert first_line(error) == "null value in column x"


def test_a_password_is_not_shown() -> None:
    url = parse("postgresql://joe:hush@db.example/name?sslmode=require")
    assert shown(url) == "postgresql://joe:***@db.example/name?sslmode=require"
    url = parse("postgresql://joe@db.example/name?password=hush&sslpassword=hush")
    assert shown(url) == "postgresql://joe@db.example/name?password=hidden&sslpassword=hidden"


def test_without_the_driver_it_is_said_what_to_install() -> None:
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from promptmill.errors import ConfigurationError\n"
        "from promptmill.store.database import Database\n"
        "try:\n    Database.open('postgresql://127.0.0.1/x')\n"
        "except ConfigurationError as error:\n    print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "pip install 'promptmill[postgres]'" in said
