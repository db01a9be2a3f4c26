"""Servers for a machine that has none: Redis for one computer's work, Redis and Postgres for tests.

The idea: a server belongs to a folder, and lives exactly as long as somebody holds that folder's lock. The
kernel frees a lock when its holder dies, so nothing is left behind, not even after kill -9. Only the standard
library is used. How it is held together stands in `keeper`.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from promptmill.embedded import postgres, redis
from promptmill.embedded.sharing import in_use, url_if_running

__all__ = ["redis_server", "running_redis", "throwaway_postgres", "throwaway_redis"]


@contextmanager
def redis_server(home: Path) -> Iterator[str]:
    """The URL of the Redis of the data folder `home`, started when nobody else has.

    Everybody who asks for the same folder gets the same server, and the last to leave stops it. What it holds
    is written to `home/redis` and is there again next time, and so are its port and password: a program that
    kept the URL finds its server again.

    Raises:
        ConfigurationError: there is no server program, or it does not start.
    """
    with in_use(home / "redis", "redis", redis.find_server()) as url:
        yield url


def running_redis(home: Path) -> str | None:
    """The URL of the Redis of the data folder `home` while somebody else keeps it running, else None."""
    return url_if_running(home / "redis", "redis")


@contextmanager
def throwaway_redis() -> Iterator[str]:
    """The URL of a Redis that keeps nothing, has no password and ends with the block. For tests and benches."""
    with (
        _throwaway_folder() as folder,
        in_use(folder, "throwaway-redis", redis.find_server()) as url,
    ):
        yield url


@contextmanager
def throwaway_postgres() -> Iterator[str]:
    """The URL of an empty Postgres that never syncs to disk and ends with the block. For tests and benches.

    It lets anybody on this machine in, as the superuser `postgres`. When the caller is root, the server runs as
    `nobody`, because Postgres refuses root.

    Raises:
        ConfigurationError: there is no Postgres program, or it does not start.
    """
    with (
        _throwaway_folder() as folder,
        in_use(folder, "throwaway-postgres", postgres.find_programs()) as url,
    ):
        yield url


@contextmanager
def _throwaway_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix="promptmill-", dir=postgres.reachable_temporary_folder(), ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)
