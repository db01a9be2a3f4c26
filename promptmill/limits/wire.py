"""Scripts to Redis and replies back: many in one round trip, loaded when Redis does not know them.

That Redis does not answer, or cannot write, is one thing here: `DeskUnavailable`. Everything sent may then
have been done or not; each script takes being repeated.
"""

import asyncio
import re
from collections.abc import Iterable, Sequence
from typing import Any

import hiredis
from redis.asyncio import BlockingConnectionPool, Connection, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ClusterCrossSlotError, NoScriptError, RedisError, ResponseError

from promptmill.limits.desk import DeskUnavailable
from promptmill.limits.policy import Pacing
from promptmill.limits.scripts import NEWER, Call, script_sha, script_text

MOST_CONNECTIONS = 8
CONNECT_TIMEOUT, ANSWER_TIMEOUT = 2.0, 5.0  # s

_CODE = re.compile(r"(?:^|: -)([A-Z]+) ")  # Redis 6 puts it behind the place in the script
_FAULTS = ("ERR", "WRONGTYPE")


def is_refusal(reply: object) -> bool:
    """Whether Redis did not do what it was asked for a reason of its own, and may do it later.

    It refuses while it has too few replicas, no room, a disk that is full, another leader, a long script, and for
    reasons that newer versions invent. Only what says that our own script is at fault will never be done.
    """
    if type(reply) is not ResponseError:  # the client has classes for some refusals, and one for a fault
        return isinstance(reply, RedisError) and not isinstance(reply, ClusterCrossSlotError)
    code = _CODE.search(str(reply))  # the client leaves "ERR" out
    return NEWER in str(reply) or (code is not None and code[1] not in _FAULTS)


class _Packed(Connection):
    """A connection whose commands are packed in C: in Python that took a third of the CPU time of a permit."""

    def pack_command(self, *args: Any) -> list[bytes]:
        """One command; its name may be two words."""
        name, *values = args
        return [hiredis.pack_command((*str(name).split(), *values))]

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        """Many, in one piece."""
        return [b"".join(piece for command in commands for piece in self.pack_command(*command))]


class Wire:
    """A client and the scripts of one `Pacing`.

    Args:
        redis: a client to use, which stays the caller's to close; or the URL to connect to.
    """

    def __init__(self, redis: "Redis | str", pacing: Pacing) -> None:
        self._owned = isinstance(redis, str)
        self._redis = _connected(redis) if isinstance(redis, str) else redis
        self._patience = ANSWER_TIMEOUT if self._owned else None
        self._pacing = pacing

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts in order, in one round trip; a script's own failure is in its place.

        Raises:
            DeskUnavailable: Redis did not answer, or cannot write.
        """
        try:
            replies = await self._run(calls)
            unknown = [place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if unknown:
                repeated = [calls[place] for place in unknown]
                loaded = await self._run(repeated, load=True)
                for place, reply in zip(unknown, loaded, strict=True):
                    replies[place] = reply
        except (RedisError, OSError) as error:
            raise DeskUnavailable(f"Redis does not answer: {type(error).__name__}") from error
        refusal = next((reply for reply in replies if is_refusal(reply)), None)
        if refusal is not None:
            raise DeskUnavailable(f"Redis refuses: {refusal}") from refusal
        return replies

    async def _run(self, calls: Sequence[Call], *, load: bool = False) -> list[Any]:
        names = sorted({call.script for call in calls}) if load else []
        # One limit for the round trip: the client's own are a task for what is sent and a timer for every answer.
        async with asyncio.timeout(self._patience), self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.script_load(script_text(name, self._pacing))
            for call in calls:
                sha = script_sha(call.script, self._pacing)
                pipe.evalsha(sha, len(call.keys), *call.keys, *call.arguments)
            replies: list[Any] = await pipe.execute(raise_on_error=False)
        return replies[len(names) :]

    async def aclose(self) -> None:
        """Close the client if it was made here."""
        if self._owned:
            await self._redis.aclose()


def _connected(url: str) -> "Redis":
    """A client that never repeats by itself: what was sent may have been done."""
    pool = BlockingConnectionPool.from_url(
        url,
        connection_class=_Packed,  # what the URL names (TLS, a socket file) stands over it
        max_connections=MOST_CONNECTIONS,
        timeout=ANSWER_TIMEOUT,
        socket_connect_timeout=CONNECT_TIMEOUT,
        socket_timeout=None,  # see `Wire._run`
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(pool)
