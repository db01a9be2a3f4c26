"""The settings as they hold, each with where it came from; of a secret only whether there is one."""

from dataclasses import dataclass
from typing import Any

from promptmill.logs import scrub
from promptmill.settings import VARIABLES, Settings


@dataclass(frozen=True, slots=True)
class Value:
    """A setting as it holds: secrets only as present or not."""

    name: str
    value: str
    origin: str


def values(settings: Settings) -> list[Value]:
    """Every setting that has a variable, with what holds and where it came from."""
    return [
        Value(names[0], _shown(path, settings), settings.origins.get(path, "default"))
        for path, names in VARIABLES.items()
    ]


def _shown(path: str, settings: Settings) -> str:
    value: Any = settings
    for name in path.split("."):
        value = getattr(value, name)
    if hasattr(value, "get_secret_value"):
        return "set (not shown)"
    if path == "database_url":
        value = settings.effective_database_url
    if path == "redis_url" and value is None:
        return "embedded"
    if path in ("claude.api_key", "claude.admin_key"):
        return "not set"
    return "not set" if value is None else scrub(str(value))
