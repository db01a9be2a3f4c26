"""The doctor: tries everything Promptmill needs, and says what to do about what does not work.

Each check is a function from the settings to Checks; nothing is changed and nothing is paid for. What is asked of a
server and what is judged of its answer are two functions, where the fault is hard to make.
"""

from collections.abc import Callable, Sequence

from producers.doctor import words
from producers.doctor.checks import Check, Verdict, healthy
from producers.doctor.database import database
from producers.doctor.endpoint import endpoint
from producers.doctor.keys import keys, keys_at_work
from producers.doctor.limits import groups, limits
from producers.doctor.machine import file_descriptors, home
from producers.doctor.redis_server import broker, redis
from producers.doctor.surroundings import names
from producers.doctor.values import Value, values
from promptmill.settings import Settings

__all__ = ["Check", "Value", "Verdict", "examine", "healthy", "shown", "values"]

CHECKS: tuple[Callable[[Settings], list[Check]], ...] = (
    names,
    home,
    redis,
    broker,
    database,
    keys,
    keys_at_work,
    limits,
    groups,
    endpoint,
    file_descriptors,
)
"""In the order in which one fault explains the next."""


def examine(settings: Settings) -> list[Check]:
    """Run every check."""
    return [check for look in CHECKS for check in look(settings)]


def shown(held: Sequence[Value], found: Sequence[Check]) -> str:
    """All of it, for people."""
    return f"{words.settings(held)}\n\n{words.checks(found)}"
