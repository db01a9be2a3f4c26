"""What pause, resume and cancel mean for a batch as it stands: to be done, done already, or impossible. Pure.

The one idea: whoever asks for what is so already has it; whoever asks for what cannot be reads what can.
"""

import shlex
from enum import StrEnum

from promptmill.errors import InvalidTransition
from promptmill.states import BatchState, PausedBy
from promptmill.store.batches import BatchRow


class Wish(StrEnum):
    """What a person wants of a batch."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


def is_to_be_done(wish: Wish, row: BatchRow) -> bool:
    """Whether anything is to be changed; False where it is so already.

    Raises:
        InvalidTransition: it cannot be; says what can.
    """
    match wish, row.state:
        case Wish.PAUSE, BatchState.PAUSED:
            return row.paused_by is not PausedBy.PERSON  # then it waits for them
        case (Wish.RESUME, BatchState.ACTIVE) | (Wish.CANCEL, BatchState.CANCELING):
            return False
        case Wish.CANCEL, BatchState.ENDED if row.canceled:
            return False
        case Wish.PAUSE | Wish.RESUME, BatchState.ADMITTING:
            raise InvalidTransition(f"{row.name} is not whole yet: submit its file again first")
    if over := why_over(row):
        raise InvalidTransition(over)
    return True


def why_over(row: BatchRow) -> str | None:
    """Why no call of a batch begins any more, and what to do about it; None where some may."""
    match row.state:
        case BatchState.CANCELING:
            return f"{row.name} is being canceled: no call of it begins any more"
        case BatchState.ENDED:
            return f"{row.name} has ended: {_what_is_left(row)}"
    return None


def _what_is_left(row: BatchRow) -> str:
    if row.was_cut:
        return f"it was canceled half-way, with {row.total:,} prompts and not all: submit with --new"
    if row.succeeded == row.total:
        return "all of it is answered"
    only = "" if row.errored or row.expired else " --only canceled"
    return f"try again what has no answer with: promptmill retry {shlex.quote(row.name)}{only}"
