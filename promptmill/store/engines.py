"""Engines: how each of the two databases is reached and begun, and which of its troubles pass."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.pool import NullPool, QueuePool

from promptmill.errors import ConfigurationError

SETTING = "PROMPTMILL_DATABASE_URL"

_CONNECT_TIMEOUT_S = 5
_BUSY_TIMEOUT_S = 10.0
_POOL_SIZE = 5
_OLDEST_SQLITE = (3, 35, 0)  # RETURNING
_WRITES = "promptmill_writes"

# A peer that vanished without a word is noticed in about 20 seconds.
_POSTGRES_ARGUMENTS = {
    "connect_timeout": _CONNECT_TIMEOUT_S,
    "application_name": "promptmill",
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
# Connection lost, a standby that is being promoted, deadlock or conflict, out of disk or memory, lock not to
# be had, shutdown, system error.
_PASSING_SQLSTATES = ("08", "25006", "40", "53", "55P03", "57", "58")
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
_DUPLICATE_SQLSTATE = "23505"
_DUPLICATE_SQLITE_CODES = frozenset({sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY})
_PRIMARY_CODE = 0xFF  # the low byte of SQLite's extended result codes


def parse(url: str) -> URL:
    """The URL with the driver we use; the folder of a SQLite file is made.

    Raises:
        ConfigurationError: it is no URL, names another database, or the folder cannot be made.
    """
    try:
        # Hosting services still hand out the old scheme.
        parsed = make_url(url.replace("postgres://", "postgresql://", 1))
    except ArgumentError as error:
        raise _wrong(
            "is not a database URL; it looks like sqlite:///path or postgresql://user@host/name"
        ) from error
    match parsed.get_backend_name():
        case "sqlite":
            _prepare_file(parsed.database)
            return parsed.set(drivername="sqlite+pysqlite")
        case "postgresql":
            return parsed.set(drivername="postgresql+psycopg")
        case other:
            raise _wrong(f"names {other}, which is not supported; use sqlite:///… or postgresql://…")


def engine_for(url: URL, *, pooled: bool = True, foreign_keys: bool = True) -> Engine:
    """An engine for a parsed URL.

    Raises:
        ConfigurationError: the driver for Postgres is not installed.
    """
    options: dict[str, Any] = {
        # Parameters hold prompts and answers: they are kept out of error messages.
        "hide_parameters": True,
        "poolclass": QueuePool if pooled else NullPool,
    }
    if pooled:
        options |= {"pool_size": _POOL_SIZE, "max_overflow": _POOL_SIZE}
    if url.get_backend_name() == "postgresql":
        arguments = {**_POSTGRES_ARGUMENTS, **url.query}
        try:
            return create_engine(url, connect_args=arguments, pool_pre_ping=pooled, **options)
        except ModuleNotFoundError as error:
            raise _wrong(
                "names Postgres, whose driver is not installed: pip install 'promptmill[postgres]'"
            ) from error
    engine = create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S}, **options)
    _take_over_sqlite(engine, foreign_keys=foreign_keys)
    return engine


def reach(engine: Engine) -> None:
    """Connect once.

    Raises:
        ConfigurationError: nobody answers, or not as a database does.
    """
    try:
        connection = engine.raw_connection()
        try:
            if engine.dialect.name == "sqlite":
                # It stays with the file. A reader then neither waits for the writer nor holds it up.
                connection.cursor().execute("PRAGMA journal_mode = WAL")
        finally:
            connection.close()
    except (DBAPIError, engine.dialect.loaded_dbapi.Error) as error:
        raise _wrong(f"leads to no database, at {shown(engine.url)}: {first_line(error)}") from error


def empty_log(cursor: Any) -> bool:
    """Bring SQLite's write-ahead log into the file and cut it off; False, at once, where somebody is in the way."""
    cursor.execute("PRAGMA busy_timeout = 0")
    try:
        # It says whether somebody was reading; one who is writing is an error.
        is_busy, *_ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & _PRIMARY_CODE != sqlite3.SQLITE_BUSY:
            raise
        return False
    finally:
        cursor.execute(f"PRAGMA busy_timeout = {int(1_000 * _BUSY_TIMEOUT_S)}")
    return not is_busy


def writing(engine: Engine) -> Engine:
    """The same pool, for transactions that write; on SQLite each waits for the write lock when it begins."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(**{_WRITES: True})
    # Said outright, because a server may have another default: after a lock was waited for, what is read next
    # must be what the holder left.
    return engine.execution_options(isolation_level="READ COMMITTED")


def reading(engine: Engine) -> Engine:
    """The same pool, for transactions that only read and see one moment of the database."""
    if engine.dialect.name == "sqlite":
        return engine
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def will_pass(error: DBAPIError) -> bool:
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


def is_duplicate(error: IntegrityError) -> bool:
    """True when a row is in the way of another, and not some other rule of the table."""
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        return cause.sqlite_errorcode in _DUPLICATE_SQLITE_CODES
    return getattr(cause, "sqlstate", None) == _DUPLICATE_SQLSTATE


def hush(error: DBAPIError) -> None:
    """Cut the message down to its first line: Postgres quotes the row, with prompt and answer, in the others."""
    line = first_line(error)
    error.args = (line,)
    if error.orig is not None:
        error.orig.args = (line,)


def shown(url: URL) -> str:
    """The URL for a message, without the name of our driver and its passwords: the query may hold one too."""
    hidden = {name: "hidden" for name in url.query if "password" in name}
    url = url.set(drivername=url.get_backend_name()).update_query_dict(hidden)
    return url.render_as_string(hide_password=True)


def first_line(error: Exception) -> str:
    """What the driver said, in one line."""
    return str(getattr(error, "orig", error)).strip().partition("\n")[0]


def _wrong(why: str) -> ConfigurationError:
    return ConfigurationError(f"{SETTING} {why}", setting=SETTING)


def _prepare_file(path: str | None) -> None:
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        needed = ".".join(map(str, _OLDEST_SQLITE))
        raise _wrong(f"names SQLite, and this Python has {sqlite3.sqlite_version}; {needed} is needed")
    if not path or path == ":memory:":
        raise _wrong("names no file: sqlite:///relative/path or sqlite:////absolute/path")
    folder = Path(path).parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _wrong(f"needs the folder {folder}, which cannot be made: {error.strerror}") from error
    if not path.startswith("file:") and not Path(path).exists():
        with contextlib.suppress(OSError):  # whoever opens it says what is wrong
            Path(path).touch(mode=0o600)  # SQLite gives its journal files the same mode


def _take_over_sqlite(engine: Engine, *, foreign_keys: bool) -> None:
    """Begin transactions ourselves: the driver would begin them late, and never for reading."""

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        # FULL: a committed outcome outlives a power cut too. Commits are grouped, so it costs little.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        # Deleted text is overwritten, and text that is replaced: not only by a purge, which finds no trace of it.
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql(f"PRAGMA query_only = {'OFF' if writes else 'ON'}")
        # A transaction that begins as a reader may not get the write lock half-way.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
