"""A database that is wrong is said at once; one that is away for a while is `Unavailable`."""

import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from promptmill.errors import ConfigurationError, Unavailable
from promptmill.store import batches, control, jobs, terms
from promptmill.store.database import Database


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("nonsense", "not a database URL"),
        ("mysql://host/name", "names mysql"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("postgresql://joe:hush@127.0.0.1:1/name", "refused"),
    ],
)
def test_a_wrong_url_is_said_with_the_setting_to_change(url: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as caught:
        Database.open(url)
    assert caught.value.setting == "PROMPTMILL_DATABASE_URL"
    assert "PROMPTMILL_DATABASE_URL" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_server_that_never_answers_is_given_up_within_seconds() -> None:
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ConfigurationError):
        Database.open(f"postgresql://joe:hush@127.0.0.1:{silent.getsockname()[1]}/name")
    assert time.monotonic() - began < 15


def test_the_old_scheme_of_postgres_is_understood(postgres_url: str) -> None:
    database = Database.open(postgres_url.replace("postgresql://", "postgres://"))
    database.check_schema()
    database.close()


def test_the_folder_of_a_sqlite_file_is_made(tmp_path: Path) -> None:
    Database.open(f"sqlite:///{tmp_path}/not/yet/there.db").close()
    assert (tmp_path / "not" / "yet").is_dir()


def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are not the rows you are looking for" * 50)
    with pytest.raises(ConfigurationError, match="not a database"):
        Database.open(f"sqlite:///{path}")


def test_a_transaction_that_fails_leaves_nothing(world: Any) -> None:
    def fail() -> None:
        with world.database.begin() as conn:
            batches.create(conn, world.new_batch(name="half"), world.now)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError):
        fail()
    with world.database.read() as conn:
        assert batches.find_by_name(conn, "half") is None


def test_a_reader_cannot_write(world: Any) -> None:
    with pytest.raises(Unavailable, match=r"read-?only"), world.database.read() as conn:
        batches.create(conn, world.new_batch(), world.now)


def test_a_reader_sees_one_moment(world: Any) -> None:
    made = world.batch(2)
    [lease] = world.running(made, 1)
    with world.database.read() as conn:
        before = batches.get(conn, made.id)
        world.complete(lease)
        assert batches.get(conn, made.id) == before
    assert world.row(made).succeeded == 1


def test_a_sqlite_file_locked_by_another_program_is_waited_for(sqlite_url: str, world_of: Any) -> None:
    world = world_of(sqlite_url)
    made = world.batch(1)
    other = sqlite3.connect(
        sqlite_url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False
    )
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.3, other.rollback)
    timer.start()
    assert len(world.dispatch(made)) == 1
    timer.join()
    other.close()


def test_a_sqlite_file_locked_for_long_is_unavailable(
    sqlite_url: str, world_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("promptmill.store.engines._BUSY_TIMEOUT_S", 0.05)
    world = world_of(sqlite_url)
    made = world.batch(1)
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"):
        world.dispatch(made)
    assert world.row(made).total == 1  # readers go on
    other.close()
    assert len(world.dispatch(made)) == 1


def test_a_full_disk_is_unavailable_and_loses_nothing(sqlite_url: str, world_of: Any) -> None:
    world = world_of(sqlite_url)
    made = world.admitting(1)
    with world.database.begin() as conn:
        conn.exec_driver_sql("PRAGMA max_page_count = 60")
        rows = [world.new_job(seq, body={"text": "x" * 5_000}) for seq in range(1, 60)]
        with pytest.raises(DBAPIError, match="full"):
            jobs.insert_many(conn, made.id, rows, world.now)
    with pytest.raises(Unavailable, match="full"):
        _insert(world, made, rows)
    assert world.row(made).total == 1


def _insert(world: Any, made: Any, rows: Any) -> None:
    with world.database.begin() as conn:
        jobs.insert_many(conn, made.id, rows, world.now)


def test_a_cut_connection_is_unavailable_and_the_next_one_works(postgres_url: str, world_of: Any) -> None:
    world = world_of(postgres_url)
    made = world.batch(3)

    def write(act: Callable[[Any], object]) -> None:
        with world.database.begin() as conn:
            terms.change(conn, made.id, terms.NewTerms(priority=7.0), world.now)
            _cut(postgres_url, conn.execute(text("SELECT pg_backend_pid()")).scalar_one())
            act(conn)

    acts: list[Callable[[Any], object]] = [
        lambda conn: batches.get(conn, made.id),
        lambda conn: jobs.insert_many(conn, made.id, [world.new_job(9)], world.now),
        lambda conn: None,
    ]
    for act in acts:
        with pytest.raises(Unavailable, match="PROMPTMILL_DATABASE_URL"):
            write(act)
        assert world.row(made).priority == 1.0


def test_idle_connections_that_were_cut_are_replaced_unnoticed(postgres_url: str, world_of: Any) -> None:
    world = world_of(postgres_url)
    made = world.batch(3)
    with world.database.begin() as conn:
        pid = conn.execute(text("SELECT pg_backend_pid()")).scalar_one()
    _cut(postgres_url, pid)
    assert len(world.dispatch(made)) == 3


def test_a_deadlock_is_unavailable_for_the_one_that_was_undone(postgres_url: str, world_of: Any) -> None:
    world = world_of(postgres_url)
    several = [world.batch(1), world.batch(1)]
    both_hold = threading.Barrier(2)
    outcomes: list[str] = []

    def lock(first: Any, second: Any) -> None:
        try:
            with world.database.begin() as conn:
                control.lock(conn, first.id)
                both_hold.wait()
                control.lock(conn, second.id)
            outcomes.append("done")
        except Unavailable:
            outcomes.append("undone")

    threads = [threading.Thread(target=lock, args=pair) for pair in (several, several[::-1])]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(outcomes) == ["done", "undone"]


def test_an_error_message_does_not_quote_a_prompt(world: Any) -> None:
    made = world.admitting(0)
    job = world.new_job(0, body={"text": "my secret"}, model_group=None)
    with pytest.raises(DBAPIError) as caught, world.database.begin() as conn:
        jobs.insert_many(conn, made.id, [job], world.now)
    assert "my secret" not in str(caught.value)


def _cut(url: str, pid: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
