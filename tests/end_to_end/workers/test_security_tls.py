"""TLS to Redis and to Postgres: everything works through it, and nothing works with somebody who cannot be trusted."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from redbeat.schedulers import get_redis  # type: ignore[import-untyped]  # it ships no types

from promptmill.broker import Ticket, celery_app, nudge, publish, put_right
from promptmill.broker import reach as reach_broker
from promptmill.errors import ConfigurationError, PromptmillError, Unavailable
from promptmill.states import JobState
from promptmill.store.database import Database
from promptmill.testing import a_batch, simulated_claude
from tests.tls_proxy import Authority, Party, listening, tls_in_front_of

pytestmark = pytest.mark.timeout(120)
TICKET = Ticket("job_1", 1, "nightly", "claude-sonnet-5", 1)


@dataclass(frozen=True)
class Trust:
    """An authority, a server it has signed and a client it has signed."""

    authority: Authority
    server: Party
    client: Party

    def words(self, authority: Authority | None = None) -> str:
        """What an address of Redis says, of a client that trusts one authority."""
        trusted = (authority or self.authority).certificate
        return f"?ssl_ca_certs={trusted}&ssl_certfile={self.client.certificate}&ssl_keyfile={self.client.key}"

    def words_for_postgres(self, authority: Authority | None = None) -> str:
        """The same of an address of Postgres."""
        trusted = (authority or self.authority).certificate
        own = f"sslcert={self.client.certificate}&sslkey={self.client.key}"
        return f"?sslmode=verify-full&sslrootcert={trusted}&{own}"


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    ours = Authority(tmp_path_factory.mktemp("ours"), "ours")
    return Trust(ours, ours.sign("server", "127.0.0.1"), ours.sign("client", "client.test"))


@contextmanager
def redis_behind(redis_url: str, party: Party, authority: Authority) -> Iterator[str]:
    port = urlsplit(redis_url).port
    assert port is not None
    with tls_in_front_of(port, party, authority) as own:
        yield f"rediss://127.0.0.1:{own}/0"


def test_a_stack_works_with_all_it_says_encrypted(
    start_mill: Callable[..., Any],
    postgres_url: str,
    clean_redis: str,
    trust: Trust,
) -> None:
    database_port = urlsplit(postgres_url).port
    assert database_port is not None
    with (
        simulated_claude() as claude,
        redis_behind(clean_redis, trust.server, trust.authority) as redis,
        tls_in_front_of(database_port, trust.server, trust.authority, postgres=True) as port,
    ):
        database = postgres_url.replace(f":{database_port}/", f":{port}/") + trust.words_for_postgres()
        url = redis + trust.words()
        mill = start_mill(database, claude, PROMPTMILL_REDIS_URL=url, PROMPTMILL_RPM="6000")
        batch = a_batch(mill.database, 20)
        mill.start_worker()
        status = mill.wait_for_end(batch.id)
        assert status.jobs[JobState.SUCCEEDED] == 20
        beats_client(url).ping()
        nudge(url)
        assert put_right(url) == {}


@pytest.mark.parametrize("whom", ["another_host", "another_authority", "nothing_said"])
def test_a_redis_that_cannot_be_trusted_is_not_spoken_to(
    whom: str, clean_redis: str, tmp_path: Path, trust: Trust
) -> None:
    another = Authority(tmp_path / "another", "another")
    elsewhere = trust.authority.sign("elsewhere", "redis.elsewhere.test")
    shown, words = {
        "another_host": (elsewhere, trust.words()),
        "another_authority": (trust.server, trust.words(another)),
        "nothing_said": (trust.server, ""),  # then who is trusted is up to the system
    }[whom]
    with redis_behind(clean_redis, shown, trust.authority) as redis:
        nothing_reaches(redis + words)


def test_a_client_without_a_certificate_is_not_let_in_where_one_is_wanted(
    clean_redis: str, trust: Trust
) -> None:
    with redis_behind(clean_redis, trust.server, trust.authority) as redis:
        nothing_reaches(f"{redis}?ssl_ca_certs={trust.authority.certificate}")


def beats_client(url: str) -> Any:
    """RedBeat's, which does not try for a minute."""
    app = celery_app(url)
    app.conf.redbeat_redis_options = {"retry_period": 0.1}
    return get_redis(app)


def nothing_reaches(url: str) -> None:
    """Not the broker's client, not the limiter's, not the plain one, not beat's."""
    app = celery_app(url)
    with pytest.raises(Unavailable):
        publish(app, [TICKET])
    app.close()
    with pytest.raises(Unavailable):
        put_right(url)
    with pytest.raises(Exception, match=r"(?i)certificate|ssl|tls|closed|reset|eof"):
        reach_broker(url, patience_s=2)
    with pytest.raises(Exception, match=r"(?i)certificate|ssl|tls|closed|reset|eof"):
        beats_client(url).ping()


def test_no_password_is_said_before_there_is_tls() -> None:
    heard: list[bytes] = []

    def listen(client: socket.socket) -> None:
        with client, suppress(OSError):
            client.settimeout(2)
            heard.append(client.recv(64))

    with listening(listen) as port:
        url = f"rediss://somebody:the-password@127.0.0.1:{port}/0"
        with suppress(PromptmillError):
            publish(celery_app(url), [TICKET])
        with suppress(PromptmillError):
            put_right(url)
        with suppress(Exception):
            reach_broker(url, patience_s=1)
        with suppress(Exception):
            beats_client(url).ping()
    assert len(heard) >= 4
    assert {first[:2] for first in heard} == {b"\x16\x03"}  # how TLS begins


@pytest.mark.parametrize("whom", ["another_host", "another_authority"])
def test_a_postgres_that_cannot_be_trusted_is_not_spoken_to(
    whom: str, postgres_url: str, tmp_path: Path, trust: Trust
) -> None:
    port = urlsplit(postgres_url).port
    assert port is not None
    elsewhere = trust.authority.sign("elsewhere", "postgres.elsewhere.test")
    shown, trusted = {
        "another_host": (elsewhere, trust.authority),
        "another_authority": (trust.server, Authority(tmp_path / "another", "another")),
    }[whom]
    with tls_in_front_of(port, shown, trust.authority, postgres=True) as own:
        url = postgres_url.replace(f":{port}/", f":{own}/") + trust.words_for_postgres(trusted)
        with pytest.raises(ConfigurationError, match=r"(?i)certificate"):
            Database.open(url)
