"""Writing results to a file: whole or not at all, in the order of submission, without holding them in memory."""

import csv
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TextIO

from producers import formats, parquet
from producers.answers import Result
from producers.wording import several
from promptmill.errors import ConfigurationError, InvalidInput
from promptmill.states import JobState


class Format(StrEnum):
    """How results are written."""

    JSONL = "jsonl"
    ANTHROPIC = "anthropic"
    CSV = "csv"
    PARQUET = "parquet"


_BY_ENDING = {
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".csv": Format.CSV,
    ".parquet": Format.PARQUET,
    "": Format.JSONL,
}


@dataclass(slots=True)
class Written:
    """What an export wrote: results, how many of them are answers and how many simulated, and how many it left out.

    `without_text` are the answers that have none, by their stop reason; those that call a tool need none.
    """

    results: int = 0
    answers: int = 0
    simulated: int = 0
    left_out: int = 0
    without_text: Counter[str] = field(default_factory=Counter)

    @property
    def told(self) -> str:
        """The subject and the verb of a sentence about what was written."""
        if self.answers == self.results:
            return f"{several(self.answers, 'answer')} {'is' if self.answers == 1 else 'are'}"
        others = f"{self.results - self.answers:,} without one"
        verb = "is" if self.results == 1 else "are"
        return f"{several(self.results, 'line')} ({several(self.answers, 'answer')}, {others}) {verb}"

    @property
    def told_without_text(self) -> str | None:
        """A sentence about answers that have no text; None where all have."""
        number = self.without_text.total()
        if not number:
            return None
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in self.without_text.most_common())
        return f"{number:,} of them {'has' if number == 1 else 'have'} no text (stop reason {reasons})"


def format_of(path: Path) -> Format:
    """The format that the ending of a file name asks for; JSON lines where it has none.

    Raises:
        InvalidInput: it is the ending of something else.
    """
    ending = path.suffix.lower()
    if ending not in _BY_ENDING:
        *others, last = filter(None, _BY_ENDING)
        raise InvalidInput(
            f"{path.name}: results are not written as {ending}; the known endings are "
            f"{', '.join(others)} and {last}",
            field="output",
        )
    return _BY_ENDING[ending]


def to_file(results: Iterable[Result], path: Path, format_: Format) -> Written:
    """Write results to `path`; a file that is there already is replaced when the new one is whole.

    Raises:
        ConfigurationError: Parquet is asked for and pyarrow is not installed.
        OSError: the file cannot be written; it names `path`.
    """
    with _by_its_name(path), _replacing(path) as temporary:
        if format_ is Format.PARQUET:
            return _write_parquet(results, temporary)
        with temporary.open("w", encoding="utf-8", newline="") as file:
            written = to_stream(results, file, format_)
            file.flush()
            _to_disk(file)
            return written


def to_stream(results: Iterable[Result], stream: TextIO, format_: Format) -> Written:
    """Write results to an open text stream.

    Raises:
        ConfigurationError: Parquet, which needs a file.
    """
    if format_ is Format.PARQUET:
        raise ConfigurationError("parquet is not text: name a file with -o")
    written = Written()
    if format_ is Format.CSV:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(formats.COLUMNS)
        writer.writerows(formats.cells(result) for result in _counted(results, written))
        return written
    line_of: Callable[[Result], str | None] = (
        formats.anthropic_line if format_ is Format.ANTHROPIC else formats.json_line
    )
    for result in _counted(results, written):
        line = line_of(result)
        if line is None:
            written.results -= 1
            written.left_out += 1
        else:
            stream.write(f"{line}\n")
    return written


def _counted(results: Iterable[Result], written: Written) -> Iterator[Result]:
    for result in results:
        written.results += 1
        is_answer = result.state is JobState.SUCCEEDED
        written.answers += is_answer
        written.simulated += result.simulated and is_answer
        if is_answer and not result.text:
            _count_without_text(result, written)
        yield result


def _count_without_text(result: Result, written: Written) -> None:
    reason = (result.message or {}).get("stop_reason")
    if reason != "tool_use":
        written.without_text[str(reason)] += 1


def _write_parquet(results: Iterable[Result], path: Path) -> Written:
    written = Written()
    parquet.write((formats.row(result) for result in _counted(results, written)), path)
    return written


@contextmanager
def _by_its_name(path: Path) -> Iterator[None]:
    """An error of the disk names what was asked for: a full one names nothing, others the temporary file."""
    try:
        yield
    except ConnectionError:  # not of a disk: a reader that has gone
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place at the end of the block, unless an error ends it."""
    target = path.resolve()
    if target.exists() and not target.is_file():  # a pipe or a device, which cannot be replaced
        yield target
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield temporary
        if target.exists():
            temporary.chmod(target.stat().st_mode)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _to_disk(file: TextIO) -> None:
    if sys.platform != "win32" and file.seekable():
        os.fsync(file.fileno())
