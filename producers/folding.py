"""Which batches a list shows: a schedule that runs every few seconds must not push out all others. Pure.

The one idea: of the runs of a schedule that have ended only the newest has a line, and says how many more there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from promptmill.recurrence import TAG_DUE, TAG_SCHEDULE
from promptmill.states import BatchState
from promptmill.store.batches import Head


@dataclass(frozen=True, slots=True)
class Fold:
    """What one line stands for.

    Attributes:
        schedule: whose run it is; None for a batch that no schedule made.
        more: how many older runs that have ended are not listed.
    """

    schedule: str | None = None
    more: int = 0


def fold(newest: Sequence[Head], most: int) -> Mapping[str, Fold]:
    """The ids of the batches to be listed and what each stands for, `most` at most, in the order of `newest`."""
    found: dict[str, Fold] = {}
    line_of: dict[str, str] = {}
    for head in newest:
        schedule = head.tags.get(TAG_SCHEDULE) if TAG_DUE in head.tags else None
        is_folded = schedule is not None and head.state is BatchState.ENDED
        if schedule is not None and is_folded and schedule in line_of:
            line = line_of[schedule]
            found[line] = Fold(schedule, found[line].more + 1)
        elif len(found) < most:
            found[head.id] = Fold(schedule)
            if schedule is not None and is_folded:
                line_of[schedule] = head.id
    return found
