"""What this process knows of its keys, told in Redis every few seconds: how each stands, and when it was last used.

The idea: only who calls learns whether a key works. By label and account, never a value. And which keys for texts at
rest it has, by their ids.
"""

import contextlib
import json
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError

from promptmill.claude.keys import KeyState
from promptmill.logs import scrub
from promptmill.routes import KEY_STATES, KEYS_USED, key_field

NAME: Final = f"{socket.gethostname()}:{os.getpid()}"
"""By which a person finds this worker."""
FORGOTTEN_AFTER_S: Final = 86_400.0
"""What a worker that is gone told last is left for so long; who reads looks at its age."""


@dataclass(slots=True)
class KeyReport:
    """Tells the keys of one worker; `opens` are the ids of those for texts at rest."""

    redis: "Redis"
    worker_id: str
    endpoint: str = ""
    opens: Sequence[str] = ()
    _used: Mapping[Any, Any] = field(default_factory=dict)
    _tidied: bool = False

    def tell(self, states: Iterable[KeyState]) -> None:
        """As they stand now.

        Raises:
            RedisError: Redis is away.
        """
        told = list(states)
        used: dict[Any, Any] = {
            key_field(state.account, state.label): state.used_at.isoformat()
            for state in told
            if state.used_at is not None
        }
        seconds, micros = self.redis.time()
        at = seconds + micros / 1e6
        self._tidy(at)
        document = {
            "at": at,
            "endpoint": self.endpoint,
            "name": NAME,
            "keys": [_document(state) for state in told],
            "opens": list(self.opens),
        }
        with self.redis.pipeline(transaction=False) as pipe:
            pipe.hset(KEY_STATES, self.worker_id, json.dumps(document))
            if used != self._used:
                pipe.hset(KEYS_USED, mapping=used)
            pipe.execute()
        self._used = used

    def leave(self) -> None:
        """The process ends; what it told is over."""
        with contextlib.suppress(RedisError):
            self.redis.hdel(KEY_STATES, self.worker_id)

    def _tidy(self, now: float) -> None:
        """Once: a worker that was killed has left its words behind."""
        if self._tidied:
            return
        self._tidied = True
        told: Any = self.redis.hgetall(KEY_STATES)
        if old := [
            worker for worker, said in told.items() if json.loads(said)["at"] < now - FORGOTTEN_AFTER_S
        ]:
            self.redis.hdel(KEY_STATES, *old)


def _document(state: KeyState) -> dict[str, Any]:
    return {
        "label": state.label,
        "account": state.account,
        "kind": state.kind,
        "standing": state.standing,
        "why": state.why and scrub(state.why),
        "until": _moment(state.until),
        "refused_for": {group: scrub(why) for group, why in state.refused_for.items()},
        "expires_at": _moment(state.expires_at),
        "calls": state.calls,
    }


def _moment(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
