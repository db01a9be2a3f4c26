"""Fixtures of the tests that run on both databases, or on both limiters."""

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from promptmill.limits import Ceilings, Limiter, LocalLimiter, LocalPools, Pacing, RedisLimiter
from promptmill.store.database import Database


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An open, migrated database, once SQLite and once Postgres."""
    database = Database.open(database_url)
    yield database
    database.close()


@pytest.fixture(params=["local", "redis"])
async def make_limiter(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Limiter]]:
    """`make_limiter(ceilings)`: each one made is a process of its own at the same pools.

    By default requests are limited alone, to 100 a second, and there is no gentle start.
    """
    pools, made = LocalPools(), []
    url = request.getfixturevalue("clean_redis") if request.param == "redis" else ""
    fast, at_once = Ceilings(6000, 0, 0), Pacing(ramp_start=1.0)

    def make(ceilings: Ceilings = fast, pacing: Pacing = at_once) -> Limiter:
        limiter: Limiter
        if url:
            limiter = RedisLimiter(url, ceilings=lambda _: ceilings, pacing=pacing)
        else:
            limiter = LocalLimiter(ceilings=lambda _: ceilings, pacing=pacing, pools=pools)
        made.append(limiter)
        return limiter

    yield make
    for limiter in made:
        await limiter.aclose()
