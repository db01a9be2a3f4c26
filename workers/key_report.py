"""What this process knows of its keys, told in Redis every few seconds: how each stands, and when it was last used.

The idea: only who calls learns whether a key works. By label and account, never a value.
"""

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError

from promptmill.claude.keys import KeyState
from promptmill.logs import scrub
from promptmill.routes import KEY_STATES, KEYS_USED, key_field

KEPT_S: Final = 30


@dataclass(slots=True)
class KeyReport:
    """Tells the keys of one worker."""

    redis: "Redis"
    worker_id: str
    _used: dict[str, str] = field(default_factory=dict)

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
        with self.redis.pipeline(transaction=False) as pipe:
            pipe.set(KEY_STATES + self.worker_id, json.dumps([_document(state) for state in told]), ex=KEPT_S)
            if used != self._used:
                pipe.hset(KEYS_USED, mapping=used)
            pipe.execute()
        self._used = used

    def leave(self) -> None:
        """The process ends; what it told is over."""
        with contextlib.suppress(RedisError):
            self.redis.delete(KEY_STATES + self.worker_id)


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
