"""What a command says of names that nothing reads: `PROMPTMILL_RMP=5` changes nothing, and its writer should know."""

import os
import textwrap
from typing import TYPE_CHECKING

from producers.cli.printing import say
from producers.wrapping import WIDTH

if TYPE_CHECKING:
    from promptmill.settings.unread import UnreadName

TELLING = frozenset({"dashboard", "doctor", "simulate"})
"""Commands that tell of them in a way of their own: in their log, or with all else that was checked."""


def tell_unread(command: str | None) -> None:
    """One note on standard error, before the command begins."""
    if command not in TELLING and (found := unread()):
        say(_note(found))


def unread() -> "list[UnreadName]":
    """The names; none in a process that one of ours started, which has told of them."""
    from promptmill.settings.unread import CHILD, unread_names  # noqa: PLC0415  # 0.2 s that --help need not take

    return [] if os.environ.get(CHILD) else unread_names()


def _note(found: "list[UnreadName]") -> str:
    told = ", ".join(
        f"{each.name} in {each.where}" + (f" (did you mean {each.nearest}?)" if each.nearest else "")
        for each in found
    )
    return textwrap.fill(
        f"note: nothing reads {told}",
        WIDTH,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
