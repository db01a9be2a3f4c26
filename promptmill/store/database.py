"""One database: opened by URL, with transactions to write and snapshots to read."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Connection, Engine


class Database:
    """A small pool of connections to SQLite or Postgres."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str) -> "Database":
        """Connect to `sqlite:///path` or `postgresql://…`.

        Raises:
            ConfigurationError: the URL is wrong, the driver is missing, or nobody answers (within seconds).
        """
        raise NotImplementedError

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction that writes; committed at the end of the block, rolled back by an exception.

        Raises:
            Unavailable: the database is away, locked, or undid the transaction; do it again later.
        """
        raise NotImplementedError

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads.

        Raises:
            Unavailable: as in `begin`.
        """
        raise NotImplementedError

    def migrate(self) -> None:
        """Bring the schema to this version; several processes at once are fine."""
        raise NotImplementedError

    def check_schema(self) -> None:
        """Raise ConfigurationError unless the schema is the one this version needs."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the pool."""
        self._engine.dispose()


def database_now(conn: Connection) -> datetime:
    """The database's clock, aware and in UTC."""
    raise NotImplementedError
