"""The version of the schema: brought up to date, or checked, by alembic from the package's own files.

SQLite changes in one transaction. On Postgres each migration has its own and may leave it for what cannot be in
one, so processes take turns by a lock of the session, which they try for again and again: one that waited inside
a statement would itself be what an index that is made beside the work waits for.

Nothing is migrated beside workers of an older version: what they wrote meanwhile would be in no count that is new.

Every command checks the version, so that is done by the names of the files; alembic, 0.3 s of imports, is for those
who migrate.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import OperationalError

from promptmill.errors import ConfigurationError, Unavailable
from promptmill.store.workers import FRESH_FOR, count_live

if TYPE_CHECKING:
    from alembic.config import Config

Clock = Callable[[Connection], datetime]

LOCK_PATIENCE_S = 5.0
"""The longest a migration waits for a table: whoever asks for that table next waits behind it."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 0x70726F6D70746D  # "promptm": one migration at a time on Postgres
_TURN_EVERY_S = 0.2
_NO_LOCK_TO_BE_HAD = "55P03"


def load_alembic() -> None:
    """Import it: before a transaction is begun, because others wait for its end."""
    from alembic import command  # noqa: F401, PLC0415  # see the module's docstring
    from alembic.config import Config  # noqa: F401, PLC0415  # likewise


def upgrade(conn: Connection, clock: Clock) -> None:
    """Run what is missing; others wait for its end.

    Args:
        conn: within a transaction on SQLite, outside of any on Postgres, and closed by the caller.
        clock: the database's time (`database_now`), by which workers are alive.

    Raises:
        ConfigurationError: the schema was made by a newer version, or workers of an older one run.
        Unavailable: tables are in use, on Postgres.
    """
    if conn.dialect.name == "sqlite":
        _run(conn, clock)
        return
    with _turn(conn):
        try:
            _run(conn, clock)
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != _NO_LOCK_TO_BE_HAD:
                raise
            raise Unavailable(
                f"the tables are in use, and were not to be had within {LOCK_PATIENCE_S:g} s: stop the workers, "
                "and whatever else holds a transaction open in this database, and run `promptmill migrate` again"
            ) from error


def _run(conn: Connection, clock: Clock) -> None:
    from alembic import command  # noqa: PLC0415  # see the module's docstring

    _refuse_newer(conn)
    _refuse_beside_workers(conn, clock)
    config = _config()
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
    _refuse_newer(conn)
    if _current(conn) != max(_known()):
        raise ConfigurationError(
            "the database has no tables of this version yet: run `promptmill migrate`",
            setting="PROMPTMILL_DATABASE_URL",
        )


def pending(conn: Connection) -> list[str]:
    """The revisions that a database with tables still lacks; none where it is newer than this program."""
    current = _current(conn)
    return [] if current is None else sorted(each for each in _known() if each > current)


def _refuse_newer(conn: Connection) -> None:
    current = _current(conn)
    if current is not None and current not in _known():
        raise ConfigurationError(
            f"the database was migrated (to {current}) by a newer version of Promptmill than this one: "
            "upgrade this one, and run `promptmill migrate` with the newest",
            setting="PROMPTMILL_DATABASE_URL",
        )


def _refuse_beside_workers(conn: Connection, clock: Clock) -> None:
    if _current(conn) in (None, max(_known())):
        return
    if alive := count_live(conn, clock(conn)):
        raise ConfigurationError(
            f"the database is of an older version, and workers of that version run on it ({alive} seen in the last "
            f"{FRESH_FOR.total_seconds():g} s): stop them all, then run this command again, and start workers of this "
            "version when it has ended"
        )


def _known() -> set[str]:
    """The revisions of this version: `v0001_initial.py` is 0001."""
    return {path.stem[1:].partition("_")[0] for path in (_MIGRATIONS / "versions").glob("v*.py")}


def _current(conn: Connection) -> str | None:
    """The revision that the database says it is at; None where it has no tables yet."""
    if not inspect(conn).has_table("alembic_version"):
        return None
    return conn.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _config() -> "Config":
    from alembic.config import Config  # noqa: PLC0415  # see the module's docstring

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
