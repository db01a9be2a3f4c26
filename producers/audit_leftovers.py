"""What may be left over in Redis: permits that no call holds, ids that no job waits for. Notes, never a fault.

And what workers put right there and elsewhere, over all batches.
Redis is not the truth, so the audit works without it; what is left there costs a little pace or one message that is
refused, and the workers put it right by themselves.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from producers.audit_checks import Note
from producers.limits_reader import LimitsReader
from producers.redis_address import with_running_redis
from promptmill.broker import is_redis, queued_ids
from promptmill.errors import Unavailable
from promptmill.settings import Settings
from promptmill.store import audit, stats
from promptmill.store.database import Database, database_now

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

_PATIENCE_S = 2.0


def leftovers(settings: Settings, database: Database) -> tuple[Note, ...]:
    """What is left over, over all batches; nothing where no Redis answers."""
    try:
        held, put_right = _from_the_limiter(settings)
        ids = _ids(settings)
    except Unavailable:
        return ()
    with database.read() as connection:
        counts = stats.window_counts(connection, database_now(connection)).values()
        waited_for = audit.queued_among(connection, ids)
    out = sum(count.queued + count.running for count in counts)
    return tuple(_notes(held - out, len(ids) - waited_for, put_right))


def _notes(permits: int, ids: int, put_right: Mapping[str, int]) -> Iterator[Note]:
    if permits > 0:
        yield Note("permits_left", "permits in Redis that no call holds; they lapse by themselves", permits)
    if ids > 0:
        yield Note("ids_left", "ids in Redis's queue that no job waits for; a worker drops them", ids)
    for fault, count in sorted(put_right.items()):
        what = f"{fault.replace('_', ' ')}, found by workers and put right since Redis was last empty"
        yield Note(f"put_right_{fault}", what, count)


def _from_the_limiter(settings: Settings) -> tuple[int, dict[str, int]]:
    """The permits that are out, and what was put right."""
    with LimitsReader(settings) as reader:
        return sum(state.in_flight for state in reader.states()), reader.put_right()


def _ids(settings: Settings) -> "AbstractSet[str]":
    """The ids at the broker.

    Raises:
        Unavailable: no Redis answers, or another broker carries the ids: it would have to give them out to show them.
    """
    from redis import Redis  # noqa: PLC0415  # 0.25 s that most commands do not need
    from redis.exceptions import RedisError  # noqa: PLC0415  # likewise

    if settings.broker_url and not is_redis(settings.broker_url):
        raise Unavailable("PROMPTMILL_BROKER_URL names a broker that does not show its messages")
    url = settings.broker_url or with_running_redis(settings).redis_url
    if url is None:
        raise Unavailable("no Redis runs")
    try:
        with Redis.from_url(url, socket_timeout=_PATIENCE_S, socket_connect_timeout=_PATIENCE_S) as client:
            return queued_ids(client)
    except (RedisError, OSError) as error:
        raise Unavailable("Redis does not answer") from error
