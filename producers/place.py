"""Which data folder a question was about: whoever asks in the wrong one must see so, and leave no folder behind."""

from pathlib import Path

from promptmill.errors import NotFound
from promptmill.settings import Settings

HOW_TO_ADD = 'make one with: promptmill schedule add NAME FILE --cron "0 2 * * *"'


def is_untouched(settings: Settings) -> bool:
    """Whether nothing was ever submitted here: no database need be made to answer that there is nothing."""
    return settings.database_url is None and not Path(settings.home, "promptmill.db").exists()


def where(settings: Settings) -> str:
    """` in /path/.promptmill`, for a sentence; nothing where the database is a server's."""
    return f" in {settings.home.absolute()}" if settings.database_url is None else ""


def no_batch(settings: Settings) -> NotFound:
    """That there is none at all, and how to get one."""
    return NotFound(f"there is no batch yet{where(settings)}; make one with: promptmill submit FILE")


def no_schedule(settings: Settings) -> NotFound:
    """That there is none at all, and how to get one."""
    return NotFound(f"there is no schedule yet{where(settings)}; {HOW_TO_ADD}")
