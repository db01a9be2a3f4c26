"""What every test may ask for: real servers of its own, a clean environment, and a way to wait for a condition.

A missing server is a failure, never a skip. `PROMPTMILL_TEST_DATABASE_URL` and `PROMPTMILL_TEST_REDIS_URL` name
servers to use instead of the embedded ones; that Redis is emptied, and databases are made and dropped in that Postgres.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from redis import Redis

from promptmill.embedded import throwaway_postgres, throwaway_redis
from promptmill.simulator import process as simulator_process
from tests.warm.popen import WarmPopen

# Read here because the environment is cleaned before every test.
GIVEN_REDIS = os.environ.get("PROMPTMILL_TEST_REDIS_URL")
GIVEN_POSTGRES = os.environ.get("PROMPTMILL_TEST_DATABASE_URL")

FOREIGN_SETTINGS = (
    "ANTHROPIC_ADMIN_KEY",
    "ANTHROPIC_ADMIN_KEY_FILE",
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_API_KEY_FILE",
    "ANTHROPIC_BASE_URL",
    "CLAUDE_KEY",
    "DATABASE_URL",
    "RATE_LIMIT",
    "REDIS_URL",
)

POLL_S = 0.01

# How long an example takes is the machine's matter, and no test of ours is about it.
ANY_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Every day the same examples, so that red means that a change did it; `./dev chaos tests` looks for others.
settings.register_profile("same", ANY_MACHINE, derandomize=True)
settings.register_profile("random", ANY_MACHINE)
settings.load_profile("same")


def pytest_configure() -> None:
    """A run in the background, or under nohup, hands down ignored signals; the tests send real Ctrl-Cs."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a developer has set, in the environment or in a `.env` of this folder, must not decide what a test sees."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name in FOREIGN_SETTINGS or name.startswith("PROMPTMILL_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """`wait_until(predicate, timeout=30.0)`: returns when the predicate is true, fails when it never is.

    Where others keep the machine busy, what a short sleep took too long is not counted, up to `timeout` once more.
    """

    def wait(predicate: Callable[[], object], timeout: float = 30.0) -> None:
        deadline = time.monotonic() + timeout
        latest = deadline + timeout
        while not predicate():
            if (asleep_at := time.monotonic()) > deadline:
                pytest.fail(f"not true within {timeout} s: {predicate}")
            time.sleep(POLL_S)
            deadline = min(latest, deadline + max(0.0, time.monotonic() - asleep_at - 2 * POLL_S))

    return wait


@pytest.fixture(scope="session", autouse=True)
def warm_simulators() -> Iterator[None]:
    """A simulated Claude is a process; it begins with the imports done, as other programs of the tests do."""
    warm = SimpleNamespace(**{**vars(subprocess), "Popen": WarmPopen})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulator_process, "subprocess", warm)
        yield


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """One Redis for the session. A test that writes asks for `clean_redis` instead."""
    if GIVEN_REDIS:
        yield GIVEN_REDIS
        return
    with throwaway_redis() as url:
        yield url


@pytest.fixture
def clean_redis(redis_url: str) -> str:
    """The session's Redis, with nothing in it."""
    with Redis.from_url(redis_url) as client:
        client.flushall()
    return redis_url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """One Postgres server for the session: the URL of a database from which others can be made."""
    if GIVEN_POSTGRES:
        yield GIVEN_POSTGRES
        return
    with throwaway_postgres() as url:
        # Else it gathers statistics in the middle of whichever test is running; one that wants them says ANALYZE.
        _execute(url, "ALTER SYSTEM SET autovacuum = off")
        _execute(url, "SELECT pg_reload_conf()")
        yield url


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> Iterator[str]:
    """The name of a database that has been migrated once, to be copied for every test."""
    from promptmill.store.database import Database  # noqa: PLC0415  # only tests of the store need it

    name = f"promptmill_template_{uuid4().hex}"
    _execute(postgres_server, f'CREATE DATABASE "{name}"')
    database = Database.open(_url_of(postgres_server, name))
    database.migrate()
    database.close()
    yield name
    _execute(postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def postgres_url(postgres_server: str, postgres_template: str) -> Iterator[str]:
    """A migrated Postgres database of the test's own."""
    name = f"promptmill_test_{uuid4().hex}"
    _execute(postgres_server, f'CREATE DATABASE "{name}" TEMPLATE "{postgres_template}"')
    yield _url_of(postgres_server, name)
    _execute(postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file that has been migrated once, to be copied for every test."""
    from promptmill.store.database import Database  # noqa: PLC0415  # only tests of the store need it

    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    database = Database.open(f"sqlite:///{path}")
    database.migrate()
    database.close()
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A migrated SQLite database of the test's own."""
    path = tmp_path / "promptmill.db"
    path.write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of the test's own, once in SQLite and once in Postgres."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


def _url_of(server: str, name: str) -> str:
    """The URL of the database `name` on the same server."""
    return server.rpartition("/")[0] + f"/{name}"


def _execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())
