"""What other workers tell of their keys: a worker without a usable one leaves its work to those that have one.

The idea: a pause stops every worker, and a key that is missing or stale here may be in order everywhere else, by a fault
of this machine or because a new one arrives here last. So the others are heard before anything is paused. This worker
tells its own standing first: of two that lose their keys at once, the second to ask knows of both.
"""

import asyncio
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError

from promptmill.claude.keys import KeyStanding, KeyState
from promptmill.logs import get_logger
from promptmill.routes import KEY_STATES
from workers.key_report import KeyReport

log = get_logger(__name__)

HEARD_S: Final = 15.0
"""So old may be what another worker told; each tells every few seconds."""
ASK_AGAIN_S: Final = 0.5
"""Between two looks on behalf of many jobs that have no key."""
FIRST_REST_S: Final = 3.0
LONGEST_REST_S: Final = 30.0


@dataclass(slots=True)
class OtherKeys:
    """Knows whether another worker of the same endpoint can call; belongs to the worker's loop.

    Args:
        states: how the keys stand here.
        report: what tells them.
    """

    redis: "Redis"
    worker_id: str
    endpoint: str
    states: Callable[[], Sequence[KeyState]]
    report: KeyReport
    _heard: Sequence[Mapping[str, Any]] = ()
    _asked_at: float = float("-inf")
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def can_call(self, group: str, *, but: Collection[str] = (), anew: bool = False) -> bool:
        """Whether another worker has a usable key for a model group, of an account that is not among `but`.

        False where Redis cannot say. `anew` asks even if it was asked a moment ago.
        """
        return any(
            key["standing"] == KeyStanding.USABLE
            and group not in key["refused_for"]
            and key["account"] not in but
            for said in await self._hear(anew=anew)
            for key in said["keys"]
        )

    async def can_open(self, key_id: str | None) -> bool:
        """Whether another worker has that key for texts at rest; False where Redis cannot say."""
        return any(key_id in said.get("opens", ()) for said in await self._hear())

    async def _hear(self, *, anew: bool = False) -> Sequence[Mapping[str, Any]]:
        async with self._asking:
            if anew or time.monotonic() - self._asked_at > ASK_AGAIN_S:
                self._heard = await asyncio.to_thread(self._tell_and_hear, self.states())
                self._asked_at = time.monotonic()
            return self._heard

    def _tell_and_hear(self, states: Sequence[KeyState]) -> list[Mapping[str, Any]]:
        try:
            self.report.tell(states)
            seconds, _ = self.redis.time()
            told: Any = self.redis.hgetall(KEY_STATES)
        except RedisError as error:
            log.warning("other_keys_unknown", error=type(error).__name__)
            return []
        others = [json.loads(said) for worker, said in told.items() if worker.decode() != self.worker_id]
        return [
            said
            for said in others
            if said["at"] > seconds - HEARD_S and said.get("endpoint") == self.endpoint
        ]


@dataclass(slots=True)
class StandingBack:
    """Takes no jobs for a while, ever longer, and one at a time between: others can answer them. From any thread."""

    in_vain: int = 0
    _until: float = float("-inf")

    def begin(self) -> bool:
        """There is no key here, to call with or to read by, and there is one elsewhere. False where it is on already."""
        now = time.monotonic()
        if now < self._until:
            return False
        self._until = now + min(FIRST_REST_S * 2 ** min(self.in_vain, 10), LONGEST_REST_S)
        self.in_vain += 1
        return True

    def over(self) -> None:
        """There is a key again."""
        self.in_vain, self._until = 0, float("-inf")

    @property
    def is_on(self) -> bool:
        """Whether no job is to be taken now."""
        return bool(self.in_vain) and time.monotonic() < self._until

    def room(self, free: int) -> int:
        """How many jobs to take where so many could be begun."""
        if not self.in_vain:
            return free
        return 0 if self.is_on else min(1, free)
