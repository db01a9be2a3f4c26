"""CSV and TSV: rows of named fields, with the line on which each row begins."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from promptmill.errors import InvalidInput
from promptmill.intake.jsonlines import LONGEST_LINE, Row, not_utf8


def read_delimited(
    open_file: Callable[[], BinaryIO], label: str | Path, *, delimiter: str, columns: Sequence[str] | None
) -> Iterator[Row]:
    """The rows as dicts; the first row names the fields unless `columns` does.

    Quotes as in CSV: a field that begins with one ends with one, and may hold line breaks.

    Raises:
        InvalidInput: the header is wrong, a quote is never closed, or the file is not UTF-8.
    """
    # Process-wide, as the csv module has it: prompts are longer than its default of 131,072.
    csv.field_size_limit(LONGEST_LINE)
    with open_file() as binary, io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        line = 1
        try:
            names = list(columns) if columns else next(filter(None, reader), [])
            _check_names(names, label, max(1, reader.line_num))
            line = reader.line_num + 1
            for fields in reader:
                if fields:
                    yield line, _row(names, fields)
                line = reader.line_num + 1
        except csv.Error as error:
            raise InvalidInput(f"not {_KIND[delimiter]}: {error}", file=label, line=line) from None
        except UnicodeDecodeError:
            raise _find_bad_byte(open_file, label) from None


_KIND = {",": "CSV", "\t": "TSV (a field that begins with a quote must end with one)"}


def _row(names: list[str], fields: list[str]) -> dict[str, str] | InvalidInput:
    if len(fields) != len(names):
        return InvalidInput(f"{_fields(len(fields))} where {len(names)} are named")
    return dict(zip(names, fields, strict=True))


def _fields(count: int) -> str:
    return "1 field" if count == 1 else f"{count} fields"


def _check_names(names: list[str], label: str | Path, line: int) -> None:
    for place, name in enumerate(names, 1):
        if not name.strip():
            raise InvalidInput(f"column {place} has no name", file=label, line=line)
        if name in names[: place - 1]:
            raise InvalidInput(f"column {place} has the name of another", file=label, line=line)


def _find_bad_byte(open_file: Callable[[], BinaryIO], label: str | Path) -> InvalidInput:
    with open_file() as binary:
        for number, raw in enumerate(binary, 1):
            try:
                raw.decode()
            except UnicodeDecodeError as error:
                return InvalidInput(not_utf8(raw, error.start).why, file=label, line=number)
    return InvalidInput("not UTF-8", file=label)
