"""Postgres databases for tests: each test has one of its own, empty and migrated, and most of them were another's.

The idea: to copy and to drop a database costs the server 150 ms of CPU, to empty its tables 30. So one that was given
back is renamed, which keeps out whoever still has its address, emptied, and taken again. One in which more has changed
than rows (a table, a trigger, a setting, what ANALYZE found, the version of the schema) is dropped.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import psycopg
from psycopg.sql import SQL, Identifier

_MADE_BY_US = 16_384  # the first OID that is not Postgres's own
_SHAPE = f"""
SELECT (SELECT string_agg(concat_ws(' ', oid, relname, relnatts, relhastriggers), ',' ORDER BY oid)
          FROM pg_class WHERE oid >= {_MADE_BY_US} AND relkind <> 't'),
       (SELECT string_agg(concat_ws(' ', oid, tgenabled), ',' ORDER BY oid) FROM pg_trigger),
       (SELECT string_agg(oid::text, ',' ORDER BY oid) FROM pg_constraint WHERE oid >= {_MADE_BY_US}),
       (SELECT count(*) FROM pg_proc WHERE oid >= {_MADE_BY_US}),
       (SELECT count(*) FROM pg_namespace WHERE nspname !~ '^pg_'),
       (SELECT count(*) FROM pg_statistic WHERE starelid >= {_MADE_BY_US}),
       (SELECT count(*) FROM pg_db_role_setting JOIN pg_database ON pg_database.oid = setdatabase
         WHERE datname = current_database()),
       (SELECT string_agg(version_num, ',') FROM alembic_version)
"""
_WRITTEN_TO = """
SELECT relname FROM pg_class
 WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'
   AND pg_relation_size(oid) > 0
"""
_SEND_AWAY = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
_LOCK_PATIENCE = "5s"


class Copies:
    """Copies of the migrated database `template` in the server that has the database `server`, a URL."""

    def __init__(self, server: str, template: str) -> None:
        self._server = server
        self._template = template
        self._ready: list[str] = []
        with psycopg.connect(self.url(template)) as connection:
            self._shape = connection.execute(_SHAPE.encode()).fetchone()

    def url(self, name: str) -> str:
        """The address of the database `name`."""
        return self._server.rpartition("/")[0] + f"/{name}"

    @contextmanager
    def one(self) -> Iterator[str]:
        """The URL of an empty one, which nobody has had by this name."""
        name = self._ready.pop() if self._ready else self._copy()
        try:
            yield self.url(name)
        finally:
            self._take_back(name)

    def drop_all(self) -> None:
        """Those that nobody has."""
        while self._ready:
            self._drop(self._ready.pop())

    def _copy(self) -> str:
        name = _new_name()
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(
                SQL("CREATE DATABASE {} TEMPLATE {}").format(Identifier(name), Identifier(self._template))
            )
        return name

    def _take_back(self, name: str) -> None:
        fresh = _new_name()
        try:
            with psycopg.connect(self._server, autocommit=True) as connection:
                connection.execute(_SEND_AWAY, [name])
                connection.execute(
                    SQL("ALTER DATABASE {} RENAME TO {}").format(Identifier(name), Identifier(fresh))
                )
            is_empty = self._empty(fresh)
        except psycopg.Error:
            is_empty = False
        if is_empty:
            self._ready.append(fresh)
        else:
            self._drop(name)
            self._drop(fresh)

    def _empty(self, name: str) -> bool:
        """Whether it could be emptied: it has the template's shape still."""
        with psycopg.connect(self.url(name)) as connection:
            if connection.execute(_SHAPE.encode()).fetchone() != self._shape:
                return False
            connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_PATIENCE}'".encode())
            tables = [Identifier(row[0]) for row in connection.execute(_WRITTEN_TO.encode())]
            if tables:
                connection.execute(SQL("TRUNCATE {} CASCADE").format(SQL(", ").join(tables)))
            # Else changes add up from test to test, until autovacuum gathers statistics in the middle of one.
            connection.execute("SELECT pg_stat_reset()")
        return True

    def _drop(self, name: str) -> None:
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))


def _new_name() -> str:
    return f"promptmill_test_{uuid4().hex}"
