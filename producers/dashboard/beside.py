"""Keys and schedules, which are asked for now and then only: they change seldom, and cost files and rows to read."""

from typing import Any

from promptmill.errors import NotFound
from promptmill.settings import Settings


def keys(_settings: Settings) -> list[dict[str, Any]] | None:
    """What `promptmill keys --json` prints; None where it cannot be had."""
    return None


def schedules(_settings: Settings) -> list[dict[str, Any]] | None:
    """What `promptmill schedule list --json` prints; None where it cannot be had."""
    return None


def run_schedule(name: str, _settings: Settings) -> str:
    """Run a schedule now; what is said about it."""
    raise NotFound(f"there is no schedule {name!r}")
