"""What all rows share, found while they are read: a long system prompt is stored once, not a million times.

A field stays shared as long as every row has it: a row with another value stores its own, and own goes over
shared. At the first row without the field it stops being shared, and `restore` gives it back to the rows
before, which had left it out.
"""

from collections.abc import Mapping
from typing import Any

_OWN_ALWAYS = "messages"
_SMALL = frozenset({"model", "max_tokens"})


class Shared:
    """The shared fields of the bodies seen so far.

    Args:
        usual: the fields of the options: the values that most rows have, unless the first row knows better,
            which it is trusted with for what is small.
    """

    def __init__(self, usual: Mapping[str, Any]) -> None:
        self._usual = {name: value for name, value in usual.items() if name not in _SMALL}
        self._fields: dict[str, Any] = {}
        self._dropped: dict[str, tuple[int, Any]] = {}
        self._rows = 0

    @property
    def fields(self) -> dict[str, Any]:
        """What all rows share, once all were split."""
        return self._fields

    def split(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of the next row's body that differ from the shared ones."""
        if self._rows == 0:
            names = [name for name in body if name != _OWN_ALWAYS]
            self._fields = {name: self._usual.get(name, body[name]) for name in names}
        shared = self._fields
        for name in [name for name in shared if name not in body]:
            self._dropped[name] = (self._rows, shared.pop(name))
        self._rows += 1
        return {name: value for name, value in body.items() if name not in shared or shared[name] != value}

    @property
    def is_whole(self) -> bool:
        """True when no field stopped being shared: the own fields of every row are as they were split off."""
        return not self._dropped

    def restore(self, place: int, own: Mapping[str, Any]) -> Mapping[str, Any]:
        """The own fields of the row at `place` (from 0), after all rows were split."""
        if not self._dropped:
            return own
        missing = {
            name: value
            for name, (first_without, value) in self._dropped.items()
            if place < first_without and name not in own
        }
        return {**missing, **own}
