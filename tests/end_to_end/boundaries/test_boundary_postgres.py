"""Postgres is restarted, cuts connections, loses the answer of a commit, has a full disk, or another time.

One worker lives through all of it. It reaches the server through a wire that the tests can cut.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from promptmill.embedded import throwaway_postgres
from promptmill.states import JobState
from promptmill.store import ledger
from promptmill.store.database import Database
from promptmill.testing import a_batch, simulated_claude

SHIFTED = """
CREATE SCHEMA shifted;
CREATE TABLE shifted.clock AS SELECT interval '0 s' AS ahead;
CREATE FUNCTION shifted.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    'SELECT pg_catalog.clock_timestamp() + ahead FROM shifted.clock';
ALTER DATABASE postgres SET search_path = shifted, pg_catalog, public;
ALTER DATABASE postgres SET synchronous_commit = on;
CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN RAISE 'could not extend file: No space left on device' USING ERRCODE = '53100'; END$$;
"""
"""Another clock for this database, found before the server's own; and what a full disk says."""


@dataclass
class Wire:
    """Passes on what goes between clients and a server; `lose` drops the answers of so many commits, and the lines.

    While `flows` is not set nothing passes, and nobody is told.
    """

    server_port: int
    lose: int = 0
    lost: int = 0
    flows: threading.Event = field(default_factory=threading.Event)
    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    def start(self) -> None:
        self.flows.set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def url_of(self, database_url: str) -> str:
        """The same database, by this wire."""
        direct = make_url(database_url)
        by_wire = direct.set(port=self.port, query={"sslmode": "disable", "gssencmode": "disable"})
        return by_wire.render_as_string(hide_password=False)

    def close(self) -> None:
        self.flows.set()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.server_port))
                except OSError:  # it is being restarted
                    client.close()
                    continue
                line = _Line(self, client, server)
                for pump in (line.to_server, line.to_client):
                    threading.Thread(target=pump, daemon=True).start()


@dataclass
class _Line:
    wire: Wire
    client: socket.socket
    server: socket.socket
    doomed: bool = False

    def to_server(self) -> None:
        while data := _received(self.client):
            if b"COMMIT\0" in data and self.wire.lose > self.wire.lost:
                self.doomed = True
            self.wire.flows.wait()
            if not _sent(self.server, data):
                break
        self._end()

    def to_client(self) -> None:
        while data := _received(self.server):
            if self.doomed:  # the server has committed, and nobody will know
                self.wire.lost += 1
                break
            self.wire.flows.wait()
            if not _sent(self.client, data):
                break
        self._end()

    def _end(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _received(end: socket.socket) -> bytes:
    with suppress(OSError):
        return end.recv(65536)
    return b""


def _sent(end: socket.socket, data: bytes) -> bool:
    with suppress(OSError):
        end.sendall(data)
        return True
    return False


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A server of the tests' own, migrated; its keeper starts it again at the same port."""
    with throwaway_postgres() as url:
        with closing(Database.open(url)) as database:
            database.migrate()
        execute(url, SHIFTED)
        yield url


@pytest.fixture(scope="module")
def wire(postgres: str) -> Iterator[Wire]:
    wire = Wire(int(make_url(postgres).port or 0))
    wire.start()
    yield wire
    wire.close()


@pytest.fixture(scope="module")
def standing_mill(postgres: str, wire: Wire, stand_up: Callable[..., Any]) -> Any:
    return stand_up(postgres, PROMPTMILL_DATABASE_URL=wire.url_of(postgres))


def execute(url: str, statement: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        done = connection.execute(statement.encode())
        return done.fetchall() if done.description else None


def up_since(url: str) -> Any:
    with suppress(psycopg.OperationalError):
        return execute(url, "SELECT pg_postmaster_start_time()")[0][0]
    return None


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.chaos), signal.SIGKILL])
def test_a_restart_in_the_middle(
    postgres: str, standing_mill: Any, at_work: Any, number: signal.Signals
) -> None:
    def act() -> None:
        before = up_since(postgres)
        [(pid,)] = execute(postgres, "SELECT split_part(pg_read_file('postmaster.pid'), chr(10), 1)::int")
        os.kill(pid, number)
        standing_mill.wait_until(lambda: up_since(postgres) not in (None, before), timeout=30)

    at_work(act)


def test_all_connections_are_cut_again_and_again(postgres: str, standing_mill: Any, at_work: Any) -> None:
    others = "datname = 'postgres' AND pid <> pg_backend_pid()"

    def act() -> None:
        cut = 0
        while cut < 10:
            cut += len(
                execute(postgres, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
            )

    at_work(act)


def test_the_answers_of_commits_are_lost(wire: Wire, standing_mill: Any, at_work: Any) -> None:
    def act() -> None:
        wire.lost, wire.lose = 0, 4
        standing_mill.wait_until(lambda: wire.lost >= wire.lose, timeout=30)

    at_work(act, jobs=120)


def test_its_disk_is_full_for_a_while(postgres: str, standing_mill: Any, at_work: Any) -> None:
    met = standing_mill.logs().count("database_unavailable")

    def act() -> None:
        for table in ("attempt", "reply"):
            execute(
                postgres,
                f"CREATE TRIGGER disk_full BEFORE INSERT ON {table} EXECUTE FUNCTION public.no_room()",
            )
        standing_mill.claude.set_scenario()  # now calls end, whose answers are to be written
        standing_mill.wait_until(lambda: standing_mill.logs().count("database_unavailable") > met + 1)
        for table in ("attempt", "reply"):
            execute(postgres, f"DROP TRIGGER disk_full ON {table}")

    at_work(act)


def test_its_clock_jumps_forward_and_back(postgres: str, standing_mill: Any, at_work: Any) -> None:
    def act() -> None:
        for ahead in ("1 hour", "0 s"):
            before = standing_mill.logs().count("database_clock_jumped")
            execute(postgres, f"UPDATE shifted.clock SET ahead = '{ahead}'")
            standing_mill.wait_until(
                lambda before=before: standing_mill.logs().count("database_clock_jumped") > before
            )

    at_work(act)


@pytest.mark.chaos
def test_it_answers_nothing_for_a_while_and_workers_find_it_again_one_after_the_other(
    postgres_url: str, start_mill: Callable[..., Any]
) -> None:
    wires = [Wire(int(make_url(postgres_url).port or 0)) for _ in range(2)]
    with simulated_claude(first_token_s=25) as claude:
        mill = start_mill(postgres_url, claude, PROMPTMILL_CONCURRENCY="10")
        for wire in wires:
            wire.start()
            mill.start_worker(PROMPTMILL_DATABASE_URL=wire.url_of(postgres_url))
        first, second = mill.workers
        mill.wait_until(lambda: mill.ask("SELECT count(*) FROM worker") == 2 and mill.is_led(), timeout=30)
        batch = a_batch(mill.database, 20)
        mill.wait_until(lambda: mill.count(batch.id, JobState.RUNNING) == 20, timeout=30)
        for wire in wires:
            wire.flows.clear()
        mill.wait_until(lambda: mill.silent_for(first) > 5)
        mill.let_the_lock_run_out()
        wires[0].flows.set()
        mill.wait_until(lambda: mill.silent_for(first) < 1)
        mill.wait_until(lambda: mill.silent_for(second) > 8)  # and the first beats, leads, and takes nothing
        assert mill.silent_for(first) < 1
        wires[1].flows.set()
        mill.settle(batch, succeeded=20)
        assert {each.outcome for each in mill.attempts(batch.id)} == {ledger.SUCCEEDED}
    for wire in wires:
        wire.close()
