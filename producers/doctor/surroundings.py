"""Names that nothing reads: a setting that was misspelt changes nothing, and says nothing."""

from collections.abc import Iterable

from producers.doctor.checks import Check, note
from promptmill.settings import Settings
from promptmill.settings.unread import UnreadName, unread_names


def names(_settings: Settings) -> list[Check]:
    """Of the environment and of `.env` in the working directory; promptmill.toml refuses them by itself."""
    return judge_names(unread_names())


def judge_names(found: Iterable[UnreadName]) -> list[Check]:
    """The names of ours that nothing reads, with the one that is most likely meant."""
    return [
        note(
            each.name,
            f"in {each.where}: nothing reads this name",
            f"{each.nearest} is the nearest" if each.nearest else "docs/settings.md lists them all",
        )
        for each in found
    ]
