"""The command that goes on with what another began: the same words again, but never a second batch.

With `--new` the batch of a command has a name of its own, so the same words would find the one before it.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptmill.store.batches import BatchRow


@dataclass(slots=True)
class Begun:
    """What a command has begun.

    Attributes:
        at: when it was typed.
        batch: the name of its batch, once it is told.
    """

    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    batch: str | None = None

    def made(self) -> "BatchRow | None":
        """The batch it has made, which may be there before anybody is told of it."""
        from producers.batches import newest_since  # noqa: PLC0415  # the database layer takes 0.5 s

        return newest_since(self.at)

    def command_to_go_on(self, *, budget: str | None = None) -> str:
        """What is to be typed to go on, with another budget if one is given."""
        words = sys.argv[1:]
        if budget is not None:
            words = [*_without("--budget", words), "--budget", budget]
        if "--new" in words and (name := self._name()):
            words = [*_without("--name", [word for word in words if word != "--new"]), "--name", name]
        return shlex.join(["promptmill", *words])

    def _name(self) -> str | None:
        if self.batch is None and (made := self.made()):
            return made.name
        return self.batch


def _without(option: str, words: Sequence[str]) -> list[str]:
    """The words without an option and its value."""
    kept: list[str] = []
    is_value = False
    for word in words:
        if not is_value and word != option and not word.startswith(f"{option}="):
            kept.append(word)
        is_value = not is_value and word == option
    return kept
