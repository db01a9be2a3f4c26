"""Values that JSON can hold, from rows that came from Python, a frame or a lenient file."""

import math
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from promptmill.errors import InvalidInput


def plain(value: Any) -> Any:
    """`value` as JSON types: dates as ISO text, decimals as text, numpy scalars as numbers.

    Raises:
        InvalidInput: NaN, an infinity, or a type that JSON cannot hold; `field` is where it stands.
    """
    return value if value.__class__ in _PLAIN else _plain(value, "")


# What nearly all values are, told without a call.
_PLAIN = frozenset({str, int, bool, type(None)})


def _plain(value: Any, path: str) -> Any:  # noqa: PLR0911  # one line per kind of value
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise InvalidInput(f"{value} is not a value that JSON can hold", field=path or None)
    if isinstance(value, Mapping):
        return {
            str(name): item if item.__class__ in _PLAIN else _plain(item, _join(path, str(name)))
            for name, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, f"{path}[{place}]") for place, item in enumerate(value)]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    if callable(
        convert := getattr(value, "tolist", None)
    ):  # numpy scalars and arrays, without importing numpy
        return _plain(convert(), path)
    raise InvalidInput(f"a value of type {type(value).__name__} is not JSON", field=path or None)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
