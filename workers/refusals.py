"""Which messages a worker refuses before Celery looks at them, and how many of each kind that were.

The idea: a message is a wake-up that says an id and a number. Whoever can write to the broker can write anything else
there: another task, another content type, a time limit, a callback, a body that grows when it is unpacked. Such a
message is counted and dropped, and of what it holds nothing is logged: it may be somebody's prompt.
"""

import threading
from collections import Counter
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, Final

from kombu import compression

from promptmill import jsontext
from promptmill.routes import ANSWER_TASK, RUN_DUE_TASK

LARGEST_ENTRY: Final = 64 * 1024
"""Bytes of an entry of the queue. Ours have about 800; Celery's own control messages do not come this way."""
LARGEST_BODY: Final = 32 * 1024
"""Characters of a message's body."""
LONGEST_ID: Final = 200

SHAPES: Final[Mapping[str, tuple[type, ...]]] = {ANSWER_TASK: (str, int), RUN_DUE_TASK: (str,)}
"""The arguments of each task of ours, by its name; there are no others, and none by keyword."""

_OF_CELERY: Final = "celery."
"""Tasks that every Celery program has: they map, chain and clean up. None of them is ever sent here."""
_INSTRUCTIONS: Final = ("eta", "expires", "timelimit", "group", "chord")
"""Headers by which a message would decide how a task runs; ours leave them out, and Celery writes them as null."""


class Refusal(StrEnum):
    """Why a message was refused."""

    UNREADABLE = "unreadable"
    TOO_LARGE = "too_large"
    CONTENT_TYPE = "content_type"
    UNKNOWN_TASK = "unknown_task"
    WRONG_ARGUMENTS = "wrong_arguments"
    INSTRUCTIONS = "instructions"


def fault_of(message: Any, known: Collection[str]) -> Refusal | None:
    """Why a message must not reach its task; None when it may.

    Args:
        message: kombu's message, as the transport made it.
        known: the names of the tasks that this worker has.
    """
    headers, body = message.headers, message.body
    if not isinstance(headers, Mapping) or not isinstance(body, str | bytes):
        return Refusal.UNREADABLE
    if len(body) > LARGEST_BODY:
        return Refusal.TOO_LARGE
    if message.content_type != "application/json":
        return Refusal.CONTENT_TYPE
    name = headers.get("task")
    if not isinstance(name, str) or name.startswith(_OF_CELERY) or name not in known:
        return Refusal.UNKNOWN_TASK
    task_id = headers.get("id")
    if not isinstance(task_id, str) or not 0 < len(task_id) <= LONGEST_ID:
        return Refusal.UNREADABLE
    return _fault_of_ours(headers, body, SHAPES[name]) if name in SHAPES else None


def _fault_of_ours(headers: Mapping[str, Any], body: str | bytes, shape: tuple[type, ...]) -> Refusal | None:
    if any(_says_something(headers.get(name)) for name in _INSTRUCTIONS):
        return Refusal.INSTRUCTIONS
    try:
        arguments, by_keyword, options = jsontext.read(body)
    except (TypeError, ValueError, RecursionError):
        return Refusal.UNREADABLE
    if by_keyword != {} or not _has_shape(arguments, shape):
        return Refusal.WRONG_ARGUMENTS
    if isinstance(options, Mapping) and any(options.values()):
        return Refusal.INSTRUCTIONS
    return None


def _has_shape(arguments: Any, shape: tuple[type, ...]) -> bool:
    return (
        isinstance(arguments, list)
        and tuple(map(type, arguments)) == shape
        and all(len(value) <= LONGEST_ID for value in arguments if isinstance(value, str))
    )


def _says_something(value: Any) -> bool:
    """Celery itself writes nulls, and a 0 for the nesting of what was replaced."""
    return any(value) if isinstance(value, list) else bool(value)


class Refused:
    """How many messages were refused, by reason; added to in one thread and taken away in another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, why: Refusal) -> None:
        """Count one more."""
        with self._lock:
            self._counts[why.value] += 1

    def take(self) -> Mapping[str, int]:
        """What came since the last time this was asked."""
        with self._lock:
            taken, self._counts = self._counts, Counter()
        return taken


refused: Final = Refused()
"""Of this process: the transport and the consumer count here, and `PutRight` tells it."""


def _refuse_to_unpack(packed: bytes) -> bytes:
    raise ValueError(f"{len(packed)} bytes of a compressed message are not unpacked")


def unpack_nothing() -> None:
    """Messages are never compressed here, and a few bytes can unpack to all the memory there is: kombu forgets how."""
    for content_type in compression.encoders():
        compression.register(_refuse_to_unpack, _refuse_to_unpack, content_type)
