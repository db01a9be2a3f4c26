"""The environment a child process gets: our own, with the settings that hold now under their first names.

A key travels this way and no other: never on a command line, where every user of the machine could read it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from promptmill.settings import (
    ADMIN_KEY_PATHS,
    DASHBOARD_TOKEN_PATHS,
    VARIABLES,
    WEBHOOK_SECRET_PATHS,
    Settings,
)
from promptmill.settings.unread import CHILD

_NOT_HANDED_DOWN = frozenset({*ADMIN_KEY_PATHS, *DASHBOARD_TOKEN_PATHS})


def environment_for(
    settings: Settings, surroundings: Mapping[str, str], *, is_worker: bool = False
) -> dict[str, str]:
    """`surroundings` with every setting that somebody set, and without any other name it could come from.

    What notices are signed with is for workers alone.

    Paths are made absolute. What is set in `promptmill.toml` alone and has no variable is read there again,
    because a child has our working directory.
    """
    held_back = _NOT_HANDED_DOWN if is_worker else _NOT_HANDED_DOWN.union(WEBHOOK_SECRET_PATHS)
    ours = {name for names in VARIABLES.values() for name in names}
    environment = {name: value for name, value in surroundings.items() if name not in ours} | {CHILD: "1"}
    for path, names in VARIABLES.items():
        value = _value(settings, path)
        told = path in settings.origins or path == "home"
        if value is not None and told and path not in held_back:
            environment[names[0]] = _text(value)
    return environment


def with_values(settings: Settings, origin: str, **values: Any) -> Settings:
    """A copy of `settings` with other values, by path with `__` for the dot; `origin` says where they are from."""
    changed = settings.model_dump()
    origins = dict(settings.origins)
    for name, value in values.items():
        *groups, field = name.split("__")
        target = changed
        for group in groups:
            target = target[group]
        target[field] = value
        origins[".".join((*groups, field))] = origin
    return Settings.model_validate({**changed, "origins": origins})


def _value(settings: Settings, path: str) -> Any:
    value: Any = settings
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value.absolute()) if isinstance(value, Path) else str(value)
