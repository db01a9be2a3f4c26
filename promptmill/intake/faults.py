"""All faults of an input at once: the first twenty with their places, and how many there are."""

import bisect
from collections.abc import Sequence
from pathlib import Path

from promptmill.errors import InvalidInput

SHOWN = 20


class InvalidRows(InvalidInput):
    """An input with faults; nothing of it was submitted, or what else was asked (`not_done`).

    Attributes:
        faults: the first twenty, in the order of their lines.
        count: how many rows are at fault.
    """

    def __init__(self, faults: Sequence[InvalidInput], count: int, *, not_done: str = "submitted") -> None:
        first = faults[0]
        lines = _folded(faults)
        if count > len(faults):
            lines.append(f"… and {count - len(faults):,} more")
        found = "1 fault" if count == 1 else f"{count:,} faults"
        super().__init__("\n  ".join([f"{found}, so nothing was {not_done}:", *lines]))
        self.file, self.line, self.field = first.file, first.line, first.field
        self.faults = tuple(faults)
        self.count = count


def _folded(faults: Sequence[InvalidInput]) -> list[str]:
    """One line for faults that differ by their line alone: what was forgotten for all is said once."""
    alike: dict[tuple[object, ...], list[InvalidInput]] = {}
    for fault in faults:
        alike.setdefault((fault.file, fault.field, fault.why), []).append(fault)
    return [
        str(first) + (f" (and {len(others)} more, the last in line {others[-1].line})" if others else "")
        for first, *others in alike.values()
    ]


class Faults:
    """Counts every fault and keeps the first twenty by line."""

    def __init__(self, file: str | Path | None) -> None:
        self._file = file
        self.first: list[InvalidInput] = []
        self.count = 0

    def add(self, fault: InvalidInput, line: int) -> None:
        """Take in a fault of a row; its place is completed with the file and the line."""
        self.count += 1
        if len(self.first) == SHOWN:
            if line >= (self.first[-1].line or 0):
                return
            self.first.pop()
        placed = InvalidInput(fault.why, file=self._file, line=line, field=fault.field)
        bisect.insort_right(self.first, placed, key=lambda kept: kept.line or 0)

    def raise_if_any(self) -> None:
        """Raise InvalidRows when there was a fault."""
        if self.count:
            raise InvalidRows(self.first, self.count)
