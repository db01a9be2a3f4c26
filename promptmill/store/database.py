"""One database: opened by URL, with transactions to write and snapshots to read.

Both databases behave alike from outside: a transaction is committed at the end of a block, and what may
succeed when done again later is `Unavailable`, whatever the driver calls it.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy import URL, Connection, func, select
from sqlalchemy.exc import DBAPIError

from promptmill.encryption import Vault
from promptmill.errors import Unavailable
from promptmill.store import engines, schema, sealing


class Database:
    """A small pool of connections to SQLite or Postgres; safe to share between threads."""

    def __init__(self, url: URL, vault: Vault | None = None) -> None:
        self._url = url
        self._engine = engines.engine_for(url)
        sealing.give_keys(self._engine, vault)
        self._writing = engines.writing(self._engine)
        self._reading = engines.reading(self._engine)

    @classmethod
    def open(cls, url: str, vault: Vault | None = None) -> "Database":
        """Connect to `sqlite:///path` or `postgresql://…`; the folder of a SQLite file is made.

        With a vault, texts are sealed on their way in; without one, nothing is, and what is sealed cannot be read.

        Raises:
            ConfigurationError: the URL is wrong, the driver is missing, or nobody answers (within seconds).
        """
        database = cls(engines.parse(url), vault)
        try:
            engines.reach(database._engine)
        except BaseException:
            database.close()
            raise
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
        """A transaction that only reads and sees one moment of the database; it waits for no writer.

        Raises:
            Unavailable: as in `begin`.
        """
        with self._passing_troubles(), self._reading.begin() as connection:
            yield connection

    def migrate(self) -> None:
        """Bring the schema to this version; several processes at once are fine.

        Raises:
            ConfigurationError: the schema was made by a newer version, or workers of an older one run.
            Unavailable: as in `begin`, or tables are in use.
        """
        schema.load_alembic()
        # Making a table anew, SQLite's way of changing one, must not cascade to the rows that refer to it.
        engine = engines.writing(engines.engine_for(self._url, pooled=False, foreign_keys=False))
        with self._passing_troubles(), engine.connect() as connection:
            if self.dialect == "sqlite":
                with connection.begin():
                    schema.upgrade(connection, database_now)
            else:
                schema.upgrade(connection, database_now)

    def check_schema(self) -> None:
        """Raise ConfigurationError unless the schema is the one this version needs."""
        with self.read() as connection:
            schema.check(connection)

    def forget_log(self) -> bool:
        """Empty SQLite's write-ahead log, in which deleted text would stay a while; False where somebody reads from it.

        It does not wait for readers: it would hold the write lock meanwhile. So what is False is to be tried later.

        Raises:
            Unavailable: as in `begin`.
        """
        if self.dialect != "sqlite":
            return True
        with self._passing_troubles():
            connection = self._engine.raw_connection()
            try:
                return engines.empty_log(connection.cursor())
            except sqlite3.OperationalError as error:  # this way around SQLAlchemy nobody wraps it
                raise self._away(error) from error
            finally:
                connection.close()

    def check_keys(self) -> bool:
        """Raise ConfigurationError where the newest batch is encrypted and cannot be read; False: an old one cannot."""
        with self.read() as connection:
            return sealing.check_keys(connection)

    @property
    def key_ids(self) -> Sequence[str]:
        """The ids of the keys that open texts here; none where there are no keys."""
        vault = sealing.vault_of(self._engine.dialect)
        return vault.ids if vault else ()

    def close(self) -> None:
        """Close the pool; connections in use are closed when they come back."""
        self._engine.dispose()

    @contextmanager
    def _passing_troubles(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            engines.hush(error)
            if not engines.will_pass(error):
                raise
            raise self._away(error) from error

    def _away(self, error: Exception) -> Unavailable:
        place = f"{engines.shown(self._url)} ({engines.SETTING})"
        return Unavailable(f"the database at {place}: {engines.first_line(error)}")


def database_now(conn: Connection) -> datetime:
    """The database's clock, aware and in UTC; it does not stand still during a transaction."""
    if conn.dialect.name == "sqlite":
        moment = datetime.fromisoformat(
            conn.exec_driver_sql("SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')").scalar_one()
        )
    else:
        moment = conn.execute(select(func.clock_timestamp())).scalar_one()
    return moment.astimezone(UTC)
