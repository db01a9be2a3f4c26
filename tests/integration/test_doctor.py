"""The doctor before real servers in which something is really wrong."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from redis import Redis

from producers.doctor import Verdict, examine
from producers.doctor.database import database
from producers.doctor.keys import keys
from producers.doctor.machine import home
from producers.doctor.redis_server import beat_is_alive, broker, redis
from producers.doctor.surroundings import names
from promptmill.encryption import read_vault
from promptmill.routes import BEAT_LOCK
from promptmill.settings import Settings, load
from promptmill.store import workers
from promptmill.store.database import Database, database_now
from promptmill.store.workers import NewWorker
from promptmill.testing import a_batch

Make = Callable[..., Settings]


@pytest.fixture
def settings(tmp_path: Path) -> Make:
    """`settings(NAME="value")`: those of a person who set this, in a folder of the test's own."""
    return lambda **environ: load(
        environ={"PROMPTMILL_HOME": str(tmp_path / "data"), **environ}, folder=tmp_path
    )


@pytest.fixture
def redis_config(clean_redis: str) -> Iterator[Callable[[str, str], object]]:
    """`redis_config(name, value)`: changed until the end of the test."""
    with Redis.from_url(clean_redis, decode_responses=True) as client:
        before = client.config_get("maxmemory*")
        yield client.config_set
        for name in ("maxmemory", "maxmemory-policy"):
            client.config_set(name, before[name])


def told(checks: object) -> dict[str, Verdict]:
    return {each.name: each.verdict for each in checks}  # type: ignore[attr-defined]  # a list of checks


def test_a_redis_that_evicts_is_wrong(
    settings: Make, clean_redis: str, redis_config: Callable[[str, str], object]
) -> None:
    redis_config("maxmemory-policy", "allkeys-lru")
    assert told(redis(settings(REDIS_URL=clean_redis)))["redis maxmemory-policy"] is Verdict.WRONG


def test_a_redis_that_is_full_is_wrong(
    settings: Make, clean_redis: str, redis_config: Callable[[str, str], object]
) -> None:
    redis_config("maxmemory", "1mb")
    assert told(redis(settings(REDIS_URL=clean_redis)))["redis memory"] is Verdict.WRONG


def test_a_redis_that_keeps_nothing_is_noted_and_its_version_and_clock_are_well(
    settings: Make, clean_redis: str
) -> None:
    found = told(redis(settings(REDIS_URL=clean_redis)))
    assert found["redis persistence"] is Verdict.NOTE  # the tests' own writes nothing down
    assert (found["redis version"], found["redis clock"]) == (Verdict.OK, Verdict.OK)


def test_our_own_settings_of_celery_give_no_message_out_twice(settings: Make, clean_redis: str) -> None:
    assert broker(settings(REDIS_URL=clean_redis)) == []


def test_a_database_of_an_older_version_says_how_much_it_lacks(settings: Make, database_url: str) -> None:
    with_url = settings(DATABASE_URL=database_url)
    assert told(database(with_url))["schema"] is Verdict.OK
    opened = Database.open(database_url)
    with opened.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0003'")
    opened.close()
    (check,) = (each for each in database(with_url) if each.name == "schema")
    assert check.verdict is Verdict.WRONG
    assert "pending (0004, 0005" in check.found


def test_prompts_that_no_key_here_opens_are_wrong(settings: Make, sqlite_url: str, tmp_path: Path) -> None:
    file = tmp_path / "encryption.keys"
    file.write_text(Fernet.generate_key().decode())
    file.chmod(0o600)
    opened = Database.open(sqlite_url, read_vault(file))
    a_batch(opened, 1)
    opened.close()
    with_key = settings(DATABASE_URL=sqlite_url, PROMPTMILL_ENCRYPTION_KEYS_FILE=str(file))
    assert told(database(with_key))["encryption at rest"] is Verdict.OK
    assert told(database(settings(DATABASE_URL=sqlite_url)))["encryption at rest"] is Verdict.WRONG
    file.write_text("no key")
    assert told(database(with_key)) == {"encryption at rest": Verdict.WRONG}


def test_a_lost_key_of_an_older_batch_is_noted(settings: Make, sqlite_url: str, tmp_path: Path) -> None:
    file = tmp_path / "encryption.keys"
    file.touch(0o600)
    for key in (Fernet.generate_key(), Fernet.generate_key()):
        file.write_text(key.decode())
        with closing(Database.open(sqlite_url, read_vault(file))) as opened:
            a_batch(opened, 1)
    with_newer = settings(DATABASE_URL=sqlite_url, PROMPTMILL_ENCRYPTION_KEYS_FILE=str(file))
    assert told(database(with_newer))["encryption at rest"] is Verdict.NOTE


def test_workers_of_two_versions_are_wrong(settings: Make, database_url: str) -> None:
    opened = Database.open(database_url)
    with opened.begin() as connection:
        for name, version in (("w1", "0.0.1"), ("w2", "0.0.2")):
            new = NewWorker(id=name, host="h", pid=1, version=version, endpoint="simulated", slots=1)
            workers.register(connection, new, database_now(connection))
    opened.close()
    assert told(database(settings(DATABASE_URL=database_url)))["workers' versions"] is Verdict.WRONG


def test_a_beat_is_alive_while_it_holds_its_lock(settings: Make, clean_redis: str) -> None:
    config = settings(REDIS_URL=clean_redis)
    assert beat_is_alive(config) is False
    with Redis.from_url(clean_redis) as client:
        client.set(BEAT_LOCK, "1")
    assert beat_is_alive(config) is True
    assert beat_is_alive(settings(REDIS_URL="redis://127.0.0.1:9")) is None


def test_a_key_that_cannot_be_read_that_ends_and_that_others_may_read(settings: Make, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    ended = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
    file.write_text(
        f'[[key]]\nlabel = "old"\nkey = "sk-very-secret"\nexpires = {ended}\n[[key]]\nlabel = "gone"\nfile = "nowhere"\n'
    )
    file.chmod(0o644)
    checks = keys(settings(PROMPTMILL_KEYS_FILE=str(file)))
    assert told(checks) == {"key": Verdict.WRONG, "key file": Verdict.NOTE, "key old": Verdict.WRONG}
    assert "sk-very-secret" not in str(checks)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_data_folder_that_cannot_be_written_is_wrong(settings: Make) -> None:
    assert told(home(settings(PROMPTMILL_HOME="/proc/x")))["data folder"] is Verdict.WRONG


def test_a_misspelt_name_in_the_dotenv_file_is_noted(
    settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("PROMPTMILL_CONCURENCY=3\n")
    (check,) = (each for each in names(settings()) if each.name == "PROMPTMILL_CONCURENCY")
    assert check.advice == "PROMPTMILL_CONCURRENCY is the nearest"


def test_where_all_is_well_nothing_is_wrong(settings: Make, clean_redis: str, sqlite_url: str) -> None:
    found = examine(settings(REDIS_URL=clean_redis, DATABASE_URL=sqlite_url))
    assert {each.name for each in found if each.verdict is Verdict.WRONG} == set()
