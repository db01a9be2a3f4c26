"""Names that nothing reads: a setting that was misspelt changes nothing, and says nothing."""

import difflib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from dotenv import dotenv_values

from producers.doctor.checks import Check, note
from promptmill.settings import VARIABLES, Settings

OURS = "PROMPTMILL_"
OTHERS = ("ANTHROPIC_", "CLAUDE_", "FLOWER_")
"""Where a name may be somebody else's, only one that is nearly ours is told of."""
READ_ELSEWHERE = frozenset({
    "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_MODEL", "FLOWER_BASIC_AUTH", "FLOWER_BASIC_AUTH_FILE", "PROMPTMILL_DEBUG",
    "PROMPTMILL_SCREENSHOTS", "PROMPTMILL_TEST_DATABASE_URL", "PROMPTMILL_VERSION",
})  # fmt: skip
ALIKE = 0.86


def names(_settings: Settings) -> list[Check]:
    """Of the environment and of `.env` in the working directory; promptmill.toml refuses them by itself."""
    dotenv = Path(".env")
    sources = {"environment": list(os.environ)}
    if dotenv.is_file():
        sources[".env"] = list(dotenv_values(dotenv))
    return [check for where, found in sources.items() for check in judge_names(where, found)]


def judge_names(where: str, found: Iterable[str]) -> Iterator[Check]:
    """The names of ours that nothing reads, with the one that is most likely meant."""
    known = {name for each in VARIABLES.values() for name in each} | READ_ELSEWHERE
    for name in sorted(set(found) - known):
        rest = _behind_our_name(name)
        meant = name if rest is None else OURS + rest
        near = difflib.get_close_matches(meant, sorted(known), n=1, cutoff=ALIKE)
        if rest is not None or (near and name.startswith(OTHERS)):
            advice = f"{near[0]} is the nearest" if near else "docs/settings.md lists them all"
            yield note(name, f"in {where}: nothing reads this name", advice)


def _behind_our_name(name: str) -> str | None:
    """What follows `PROMPTMILL_`, also where that is misspelt as `PROMTMILL_` or `PROMPT_MILL_`; None elsewhere."""
    for end in (at for at, letter in enumerate(name) if letter == "_"):
        word = name[:end].replace("_", "")
        if difflib.SequenceMatcher(None, word, OURS.removesuffix("_")).ratio() >= ALIKE:
            return name[end + 1 :]
    return None
