"""`promptmill results`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

import producers
from producers.cli.options import BatchNameOrNewest, Output
from producers.cli.printing import say


def results(
    batch: BatchNameOrNewest = None,
    output: Output = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="jsonl|anthropic|csv|parquet",
            help="How; by default jsonl, or what the ending of OUT says.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="STATE", help="Only jobs in this state; may be repeated."),
    ] = None,
) -> None:
    """Write the answers of a batch in the order in which they were submitted."""
    from producers.export import Format  # noqa: PLC0415  # the database layer takes 0.5 s

    _check_states(only)
    if format_ is not None and format_ not in list(Format):
        raise typer.BadParameter(f"{format_} is none of {', '.join(Format)}", param_hint="--format")
    path = None if output is None or str(output) == "-" else output
    chosen = Format(format_) if format_ else format_by_name(path, or_say="; or say --format")
    if path is not None:
        check_place(path)
    write(producers.batch(batch), path, chosen, only)


def format_by_name(path: Path | None, *, or_say: str = "") -> "producers.Format":
    """What the ending of a file name asks for; JSON lines for standard output.

    Raises:
        BadParameter: no format has that ending.
    """
    from producers.export import Format, format_of  # noqa: PLC0415  # likewise
    from promptmill.errors import InvalidInput  # noqa: PLC0415  # likewise

    if path is None:
        return Format.JSONL
    try:
        return format_of(path)
    except InvalidInput as error:
        raise typer.BadParameter(f"{error.why}{or_say}", param_hint="--output") from None


def check_place(path: Path) -> None:
    """Refuse a path at which no file can be made.

    Raises:
        BadParameter: it is a folder, or in none.
    """
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder", param_hint="--output")
    if not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"the folder {path.absolute().parent} does not exist", param_hint="--output")


def write(
    handle: "producers.Batch", path: Path | None, format_: "producers.Format", only: list[str] | None = None
) -> None:
    """Write results to a file, or to standard output when `path` is None, and say what was written."""
    from producers import export  # noqa: PLC0415  # the database layer takes 0.5 s
    from producers.wording import several  # noqa: PLC0415  # likewise

    answers = handle.results(only)
    if path is None:
        try:
            written = export.to_stream(answers, sys.stdout, format_)
            sys.stdout.flush()
        except BrokenPipeError:  # `… | head`: the reader has what it wanted
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
    else:
        written = export.to_file(answers, path, format_)
        say(f"{written.told} in {path}")
    if written.left_out:
        say(f"not ended, and so without a line in this format: {several(written.left_out, 'job')}")
    if written.told_without_text:
        say(written.told_without_text)
    if written.simulated:
        many = (
            "1 of them is an answer"
            if written.simulated == 1
            else f"{written.simulated:,} of them are answers"
        )
        say(f"{many} of the simulated Claude")


def _check_states(only: list[str] | None) -> None:
    from promptmill.states import JobState  # noqa: PLC0415  # as the others, so that help is fast

    for name in only or ():
        if name not in list(JobState):
            raise typer.BadParameter(f"{name} is none of {', '.join(JobState)}", param_hint="--only")
