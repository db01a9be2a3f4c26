"""JSON of plain values, read and written by pydantic's Rust in a third of the time that the standard library takes.

What that refuses (a lone surrogate, deep nesting) is left to the standard library, so both together take and give
what it alone would. Meant for values that come from JSON: others, a date or a set, would be written without a word.
"""

import json
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json


def read(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none.
        RecursionError: it is nested too deeply.
    """
    try:
        return from_json(text)
    except ValueError:
        return json.loads(text)


def written(value: Any) -> bytes:
    """A compact JSON text, its fields in the order given; characters as they are, where UTF-8 can hold them.

    Raises:
        TypeError: there is no JSON of it.
    """
    try:
        return to_json(value)
    except PydanticSerializationError:
        return json.dumps(value, separators=(",", ":")).encode()
