"""Inserting: many new rows at once, all or none; by COPY on Postgres, for a seventh of the CPU of single inserts.

Rows come as the driver takes them, encoded by who knows what is in them: SQLAlchemy's own way through a million
rows of eleven columns costs more than the database.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Column, Connection, Table
from sqlalchemy.exc import DBAPIError


def insert_rows(
    conn: Connection, table: Table, names: Sequence[str], rows: Iterable[tuple[Any, ...]]
) -> None:
    """Insert rows of the columns named, each value as the driver takes it; see `encoded`.

    Raises:
        sqlalchemy.exc.IntegrityError: a row is in the way of another.
    """
    columns = ", ".join(names)
    if conn.dialect.name == "postgresql":
        _copy(conn, f"COPY {table.name} ({columns}) FROM STDIN", rows)
    else:
        places = ", ".join("?" * len(names))
        conn.exec_driver_sql(f"INSERT INTO {table.name} ({columns}) VALUES ({places})", list(rows))  # noqa: S608  # our own names


def encoded(conn: Connection, column: Column[Any], value: Any) -> Any:
    """A value of a column as the driver of this database takes it."""
    encode = column.type.bind_processor(conn.dialect)
    return value if encode is None else encode(value)


@contextmanager
def all_or_none(conn: Connection) -> Iterator[None]:
    """A savepoint: what fails inside is undone, and the transaction goes on if it can."""
    savepoint = conn.begin_nested()
    try:
        yield
    except BaseException:
        with suppress(DBAPIError):  # a full disk has undone everything; that error is the one to see
            savepoint.rollback()
        raise
    savepoint.commit()


def _copy(conn: Connection, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
    driver: Any = conn.connection.driver_connection
    with _wrapped(conn, statement), driver.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


@contextmanager
def _wrapped(conn: Connection, statement: str) -> Iterator[None]:
    """Errors of the driver as SQLAlchemy gives them elsewhere."""
    driver_error = conn.dialect.loaded_dbapi.Error
    try:
        yield
    except driver_error as error:
        lost = conn.dialect.is_disconnect(error, conn.connection.dbapi_connection, None)
        if lost:
            conn.invalidate(error)
        raise DBAPIError.instance(
            statement, None, error, driver_error, hide_parameters=True, connection_invalidated=lost
        ) from error
