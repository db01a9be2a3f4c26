"""The version of the schema: brought up to date, or checked, by alembic from the package's own files.

SQLite changes in one transaction. On Postgres each migration has its own and may leave it for what cannot be in
one, so processes take turns by a lock of the session, which they try for again and again: one that waited inside
a statement would itself be what an index that is made beside the work waits for.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from promptmill.errors import ConfigurationError, Unavailable

LOCK_PATIENCE_S = 5.0
"""The longest a migration waits for a table: whoever asks for that table next waits behind it."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 0x70726F6D70746D  # "promptm": one migration at a time on Postgres
_TURN_EVERY_S = 0.2
_NO_LOCK_TO_BE_HAD = "55P03"


def upgrade(conn: Connection) -> None:
    """Run what is missing; others wait for its end.

    Args:
        conn: within a transaction on SQLite, outside of any on Postgres, and closed by the caller.

    Raises:
        ConfigurationError: the schema was made by a newer version.
        Unavailable: tables are in use, on Postgres.
    """
    if conn.dialect.name == "sqlite":
        _run(conn)
        return
    with _turn(conn):
        try:
            _run(conn)
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != _NO_LOCK_TO_BE_HAD:
                raise
            raise Unavailable(
                f"the tables are in use, and were not to be had within {LOCK_PATIENCE_S:g} s: stop the workers, "
                "and whatever else holds a transaction open in this database, and run `promptmill migrate` again"
            ) from error


def _run(conn: Connection) -> None:
    config = _config()
    _refuse_newer(conn, config)
    if conn.dialect.name != "sqlite":
        conn.commit()  # alembic begins a transaction of its own
    config.attributes["connection"] = conn
    command.upgrade(config, "head")


@contextmanager
def _turn(conn: Connection) -> Iterator[None]:
    """Be the only one that migrates; the end of the connection gives it up too."""
    key = {"key": _ADVISORY_LOCK}
    while not conn.execute(text("SELECT pg_try_advisory_lock(:key)"), key).scalar_one():
        conn.rollback()
        time.sleep(_TURN_EVERY_S)
    conn.execute(text(f"SET lock_timeout = {round(LOCK_PATIENCE_S * 1000)}"))
    conn.commit()
    try:
        yield
    finally:
        if not conn.closed and not conn.invalidated:
            conn.rollback()
            conn.execute(text("SELECT pg_advisory_unlock(:key)"), key)
            conn.commit()


def check(conn: Connection) -> None:
    """Raise ConfigurationError unless the schema is at the version of this program."""
    config = _config()
    _refuse_newer(conn, config)
    if _current(conn) != ScriptDirectory.from_config(config).get_current_head():
        raise ConfigurationError(
            "the database has no tables of this version yet: run `promptmill migrate`",
            setting="PROMPTMILL_DATABASE_URL",
        )


def _refuse_newer(conn: Connection, config: Config) -> None:
    current = _current(conn)
    if current is None:
        return
    try:
        ScriptDirectory.from_config(config).get_revision(current)
    except CommandError as error:
        raise ConfigurationError(
            f"the database was migrated (to {current}) by a newer version of Promptmill than this one: "
            "upgrade this one, and run `promptmill migrate` with the newest",
            setting="PROMPTMILL_DATABASE_URL",
        ) from error


def _current(conn: Connection) -> str | None:
    return MigrationContext.configure(conn).get_current_revision()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
