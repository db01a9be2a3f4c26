"""JSON Lines: one value a line, read as bytes so that a fault can name its byte or column."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from promptmill.errors import InvalidInput
from promptmill.intake.values import plain

# The API refuses bodies over 32 MB (claude-api.md, 2.2); escapes may double the text of a line.
LONGEST_LINE = 64 * 1024 * 1024
_BLANKS = b" \t\r\n"  # those that JSON knows
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

Row = tuple[int, Any]
"""Line number from 1, and the row; an InvalidInput in the row's place when that line is at fault."""


def read_json_lines(file: BinaryIO, label: str | Path) -> Iterator[Row]:
    """The rows of a file of JSON objects, blank lines left out.

    Raises:
        InvalidInput: the file is no text of lines at all.
    """
    number = 0
    while raw := file.readline(LONGEST_LINE):
        number += 1
        if len(raw) == LONGEST_LINE:
            raise InvalidInput(f"longer than {LONGEST_LINE >> 20} MB", file=label, line=number)
        if number == 1:
            raw = _without_mark(raw, label)
        if not raw.isspace():
            yield number, parse_line(raw)


def parse_line(raw: bytes) -> Any:
    """The value of one line, or the InvalidInput that says why there is none."""
    try:
        # Without its line break: what a line lacks is missed at its end, not in column 1 of the next.
        return _STRICT.decode(raw.rstrip(_BLANKS).decode())
    except UnicodeDecodeError as error:
        return not_utf8(error.object, error.start)
    except json.JSONDecodeError as error:
        return InvalidInput(f"not JSON: {error.msg} (column {error.colno})")
    except _NotFinite:
        return _name_the_field(raw)
    except RecursionError:
        return InvalidInput("not usable: nested too deeply")
    except ValueError as error:  # a number of thousands of digits
        return InvalidInput(f"not usable: {error}")


def not_utf8(data: bytes, place: int) -> InvalidInput:
    """The fault of a byte that is not UTF-8; `place` counts from 0 within its line."""
    return InvalidInput(f"not UTF-8: byte {place + 1} of the line is 0x{data[place]:02x}")


class _NotFinite(ValueError):
    pass


def _refuse(_: str) -> NoReturn:
    raise _NotFinite


_STRICT = json.JSONDecoder(parse_constant=_refuse)


def _name_the_field(raw: bytes) -> InvalidInput:
    try:
        plain(json.loads(raw))
    except InvalidInput as fault:
        return fault
    raise AssertionError("a constant was refused and cannot be found")


def _without_mark(raw: bytes, label: str | Path) -> bytes:
    if raw.startswith(_UTF16_MARKS):
        raise InvalidInput("not UTF-8 but UTF-16; save it as UTF-8", file=label, line=1)
    raw = raw.removeprefix(_UTF8_MARK) or b"\n"
    if raw.lstrip().startswith(b"["):
        raise InvalidInput("a JSON array; write one object a line (jq -c '.[]')", file=label, line=1)
    return raw
