"""Fixtures of the tests that run on both databases."""

from collections.abc import Iterator

import pytest

from promptmill.store.database import Database


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An open, migrated database, once SQLite and once Postgres."""
    database = Database.open(database_url)
    yield database
    database.close()
