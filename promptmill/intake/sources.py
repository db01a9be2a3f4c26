"""Where rows come from: a path, standard input, a frame, or any iterable. Lazy: memory is flat in its size.

Every source is the same afterwards: (number, row), where the number is the line of a text file and the
count of the row elsewhere, and the row is a dict, a string, a Prompt, or the InvalidInput of that line.
"""

import gzip
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from promptmill.errors import InvalidInput
from promptmill.intake.delimited import read_delimited
from promptmill.intake.frames import frame_rows, is_frame, parquet_rows
from promptmill.intake.jsonlines import Row, read_json_lines

STANDARD_INPUT = "-"
_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}


def label_of(source: object) -> str | Path | None:
    """What a fault calls the source: the path as it was given; None for rows from Python."""
    if _is_standard_input(source):
        return "standard input"
    return Path(source) if isinstance(source, str | os.PathLike) else None


def stem_of(source: object) -> str:
    """A short name for a batch: the file's name without its endings."""
    if _is_standard_input(source):
        return "stdin"
    if isinstance(source, str | os.PathLike):
        return Path(source).name.split(".")[0] or "file"
    return "rows"


def rows_of(source: object, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The numbered rows of any source.

    Args:
        source: a path (`.jsonl`, `.csv`, `.tsv`, each also with `.gz`, or `.parquet`; another ending is read
            as JSON lines), `-` for JSON lines from standard input, a data frame, or an iterable.
        columns: names of the fields of a CSV or TSV file without a header row.

    Raises:
        InvalidInput: the source cannot be read at all, or not further.
    """
    if _is_standard_input(source):
        return read_json_lines(sys.stdin.buffer, "standard input")
    if isinstance(source, str | os.PathLike):
        return _file_rows(Path(source), columns)
    if is_frame(source):
        return enumerate(frame_rows(source), 1)
    if isinstance(source, Mapping | bytes) or not isinstance(source, Iterable):
        raise InvalidInput(f"a {type(source).__name__} is no iterable of rows; give a path or a list of rows")
    return enumerate(source, 1)


def _is_standard_input(source: object) -> bool:
    return isinstance(source, str) and source == STANDARD_INPUT  # a frame answers == with a frame


def _file_rows(path: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    if path.is_dir():
        raise InvalidInput("a folder, not a file", file=path)
    endings = [ending.lower() for ending in path.suffixes]
    zipped = endings[-1:] == [".gz"]
    kind = (endings[:-1] if zipped else endings)[-1:]

    def open_file() -> BinaryIO:
        return cast("BinaryIO", gzip.open(path)) if zipped else path.open("rb")

    try:
        if kind == [".parquet"]:
            path.open("rb").close()
            yield from enumerate(parquet_rows(path), 1)
        elif kind and (delimiter := _DELIMITERS.get(kind[0])):
            yield from read_delimited(open_file, path, delimiter=delimiter, columns=columns)
        else:
            with open_file() as file:
                yield from read_json_lines(file, path)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InvalidInput(f"not a whole gzip file: {error}", file=path) from None
    except FileNotFoundError:
        raise InvalidInput("there is no such file", file=path) from None
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", file=path) from None
