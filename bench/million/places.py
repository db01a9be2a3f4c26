"""Where a bench has its databases: a SQLite file in a folder that is removed, the Postgres that tests use."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from promptmill.embedded import throwaway_postgres
from promptmill.store.database import Database


@contextmanager
def database_of(kind: str) -> Iterator[Database]:
    """An empty database, `sqlite` or `postgres`, with its tables."""
    with _url_of(kind) as url:
        database = Database.open(url)
        try:
            database.migrate()
            yield database
        finally:
            database.close()


@contextmanager
def _url_of(kind: str) -> Iterator[str]:
    if kind == "postgres":
        with throwaway_postgres() as url:
            yield url
    else:
        with tempfile.TemporaryDirectory(prefix="promptmill-bench-") as folder:
            yield f"sqlite:///{folder}/bench.db"
