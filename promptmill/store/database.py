"""One database: opened by URL, with transactions to write and snapshots to read.

Both databases behave alike from outside: a transaction is committed at the end of a block, and what may
succeed when done again later is `Unavailable`, whatever the driver calls it.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from promptmill.errors import ConfigurationError, Unavailable
from promptmill.store import schema

SETTING = "PROMPTMILL_DATABASE_URL"

_CONNECT_TIMEOUT_S = 5
_BUSY_TIMEOUT_S = 10.0
_POOL_SIZE = 5
_OLDEST_SQLITE = (3, 35, 0)  # RETURNING

# A peer that vanished without a word is noticed in about 20 seconds.
_POSTGRES_ARGUMENTS = {
    "connect_timeout": _CONNECT_TIMEOUT_S,
    "application_name": "promptmill",
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
# Connection lost, deadlock or conflict, out of disk or memory, lock not to be had, shutdown, system error.
_PASSING_SQLSTATES = ("08", "40", "53", "55P03", "57", "58")
_PASSING_SQLITE_CODES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)
_PRIMARY_CODE = 0xFF  # the low byte of SQLite's extended result codes
_BEGIN_OPTION = "promptmill_begin"


class Database:
    """A small pool of connections to SQLite or Postgres; safe to share between threads."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._engine = _engine(url)
        # SQLite: the write lock is taken at once, so that no transaction dies half-way for want of it.
        self._writing = self._engine.execution_options(**{_BEGIN_OPTION: "BEGIN IMMEDIATE"})

    @classmethod
    def open(cls, url: str) -> "Database":
        """Connect to `sqlite:///path` or `postgresql://…`; the folder of a SQLite file is made.

        Raises:
            ConfigurationError: the URL is wrong, the driver is missing, or nobody answers (within seconds).
        """
        parsed = _parse(url)
        if parsed.get_backend_name() == "sqlite":
            _prepare_file(parsed)
        try:
            database = cls(parsed)
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"{SETTING} names Postgres, whose driver is not installed: pip install 'promptmill[postgres]'",
                setting=SETTING,
            ) from error
        try:
            database._engine.connect().close()
        except DBAPIError as error:
            database.close()
            raise ConfigurationError(
                f"no database answers at {_shown(parsed)} ({SETTING}): {_first_line(error)}", setting=SETTING
            ) from error
        return database

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction that writes; committed at the end of the block, rolled back by an exception.

        Raises:
            Unavailable: the database is away, locked, full, or undid the transaction; do it again later.
        """
        with self._passing_troubles(), self._writing.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads; on SQLite it neither waits for a writer nor holds one up.

        Raises:
            Unavailable: as in `begin`.
        """
        with self._passing_troubles(), self._engine.begin() as connection:
            yield connection

    def migrate(self) -> None:
        """Bring the schema to this version; several processes at once are fine.

        Raises:
            ConfigurationError: the schema was made by a newer version.
            Unavailable: as in `begin`.
        """
        # Recreating a table, SQLite's way of changing one, must not cascade to the rows that refer to it.
        engine = _engine(self._url, foreign_keys=False, poolclass=NullPool)
        writing = engine.execution_options(**{_BEGIN_OPTION: "BEGIN IMMEDIATE"})
        with self._passing_troubles(), writing.begin() as connection:
            schema.upgrade(connection)

    def check_schema(self) -> None:
        """Raise ConfigurationError unless the schema is the one this version needs."""
        with self.read() as connection:
            schema.check(connection)

    def close(self) -> None:
        """Close the pool; connections in use are closed when they come back."""
        self._engine.dispose()

    @contextmanager
    def _passing_troubles(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            if not _will_pass(error):
                raise
            raise Unavailable(
                f"the database at {_shown(self._url)} ({SETTING}) did not do it: {_first_line(error)}"
            ) from error


def database_now(conn: Connection) -> datetime:
    """The database's clock, aware and in UTC; it does not stand still during a transaction."""
    if conn.dialect.name == "sqlite":
        moment = datetime.fromisoformat(
            conn.exec_driver_sql("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')").scalar_one()
        )
    else:
        moment = conn.execute(select(func.clock_timestamp())).scalar_one()
    return moment.astimezone(UTC)


def _parse(url: str) -> URL:
    try:
        # Hosting services still hand out the old scheme.
        parsed = make_url(url.replace("postgres://", "postgresql://", 1))
    except ArgumentError as error:
        raise ConfigurationError(
            f"{SETTING} is not a database URL; it looks like sqlite:///path or postgresql://user@host/name",
            setting=SETTING,
        ) from error
    match parsed.get_backend_name():
        case "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise ConfigurationError(
                    f"{SETTING} names no file: sqlite:///relative/path or sqlite:////absolute/path",
                    setting=SETTING,
                )
            return parsed.set(drivername="sqlite+pysqlite")
        case "postgresql":
            return parsed.set(drivername="postgresql+psycopg")
        case other:
            raise ConfigurationError(
                f"{SETTING} names {other}, which is not supported; use sqlite:///… or postgresql://…",
                setting=SETTING,
            )


def _prepare_file(url: URL) -> None:
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        needed = ".".join(map(str, _OLDEST_SQLITE))
        raise ConfigurationError(
            f"this Python has SQLite {sqlite3.sqlite_version}, {needed} is needed", setting=SETTING
        )
    folder = Path(url.database or "").parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"{SETTING}: the folder {folder} cannot be made: {error.strerror}", setting=SETTING
        ) from error


def _engine(url: URL, *, foreign_keys: bool = True, **options: Any) -> Engine:
    # Parameters hold prompts and answers: they are kept out of error messages.
    options["hide_parameters"] = True
    if "poolclass" not in options:
        options |= {"pool_size": _POOL_SIZE, "max_overflow": _POOL_SIZE}
    if url.get_backend_name() == "postgresql":
        arguments = {**_POSTGRES_ARGUMENTS, **url.query}
        return create_engine(url, connect_args=arguments, pool_pre_ping=True, **options)
    engine = create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S}, **options)
    _take_over_sqlite(engine, foreign_keys=foreign_keys)
    return engine


def _take_over_sqlite(engine: Engine, *, foreign_keys: bool) -> None:
    """Begin transactions ourselves: the driver would begin them late and deferred."""

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN_OPTION, "BEGIN"))


def _will_pass(error: DBAPIError) -> bool:
    """True when the same act may succeed later."""
    if error.connection_invalidated:
        return True
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", None)  # absent when the error is the driver's own
        return code is not None and code & _PRIMARY_CODE in _PASSING_SQLITE_CODES
    state = getattr(cause, "sqlstate", None)
    if state is None:  # no server said anything: it is the connection
        return type(cause).__name__ in {"OperationalError", "ConnectionTimeout"}
    return str(state).startswith(_PASSING_SQLSTATES)


def _shown(url: URL) -> str:
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]
