"""Names in the environment and in `.env` that nothing reads: a setting that was misspelt changes nothing.

The idea to keep in mind: this only says what is odd. It is told to people, and stops nothing; a name may be somebody
else's.
"""

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from promptmill.settings.variables import VARIABLES

OURS = "PROMPTMILL_"
OTHERS = ("ANTHROPIC_", "CLAUDE_", "FLOWER_")
"""Where a name may be somebody else's, only one that is nearly ours is told of."""
CHILD = "PROMPTMILL_CHILD"
"""Set in the environment of a process that one of ours starts: what is odd there was told before."""
READ_ELSEWHERE = frozenset({
    "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_MODEL", CHILD, "FLOWER_BASIC_AUTH", "FLOWER_BASIC_AUTH_FILE",
    "PROMPTMILL_DEBUG", "PROMPTMILL_SCREENSHOTS", "PROMPTMILL_TEST_COMPOSE", "PROMPTMILL_TEST_DATABASE_URL",
    "PROMPTMILL_TEST_IMAGE", "PROMPTMILL_TEST_REDIS_URL", "PROMPTMILL_VERSION",
})  # fmt: skip
ALIKE = 0.86


@dataclass(frozen=True, slots=True)
class UnreadName:
    """A name that nothing reads, where it stands, and the one that was most likely meant."""

    name: str
    where: str
    nearest: str | None


def unread_names(*, environ: Mapping[str, str] | None = None, folder: Path | None = None) -> list[UnreadName]:
    """Those of the environment (the process's own when None), and of `.env` in the working directory (or `folder`)."""
    dotenv = (folder or Path.cwd()) / ".env"
    sources = {"the environment": list(os.environ if environ is None else environ)}
    if dotenv.is_file():
        sources[".env"] = list(dotenv_values(dotenv))
    return [each for where, found in sources.items() for each in unread_among(where, found)]


def unread_among(where: str, found: Iterable[str]) -> Iterator[UnreadName]:
    """Of some names those that nothing reads, though they look like ours."""
    known = {name for each in VARIABLES.values() for name in each} | READ_ELSEWHERE
    for name in sorted(set(found) - known):
        rest = _behind_our_name(name)
        meant = name if rest is None else OURS + rest
        near = difflib.get_close_matches(meant, sorted(known - {CHILD}), n=1, cutoff=ALIKE)
        if rest is not None or (near and name.startswith(OTHERS)):
            yield UnreadName(name, where, near[0] if near else None)


def _behind_our_name(name: str) -> str | None:
    """What follows `PROMPTMILL_`, also where that is misspelt as `PROMTMILL_` or `PROMPT_MILL_`; None elsewhere."""
    for end in (at for at, letter in enumerate(name) if letter == "_"):
        word = name[:end].replace("_", "")
        if difflib.SequenceMatcher(None, word, OURS.removesuffix("_")).ratio() >= ALIKE:
            return name[end + 1 :]
    return None
