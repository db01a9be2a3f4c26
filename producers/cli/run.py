"""`promptmill run`."""

import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from producers.cli import options as opt
from producers.cli.asking import Asked, options_from, tell, with_options
from producers.cli.exits import Exit, exit_for
from producers.cli.going_on import Begun
from producers.cli.printing import log_to_stderr, put_json, say

if TYPE_CHECKING:
    from producers.batches import Batch
    from producers.watch import Moment

DEFAULT_MODEL = "claude-haiku-5-5"
"""For rows that name no model, when the person named none either: the least expensive of today."""


@with_options("notify")
def run(
    source: opt.Source,
    *,
    output: opt.Output = None,
    workers: opt.Workers = 1,
    asked: Asked,
    as_json: opt.AsJson = False,
) -> None:
    """Answer the prompts of FILE on this machine, from start to end.

    Starts what is not running (an embedded Redis, workers; without a key a simulated Claude), submits, shows
    progress, writes the results, prints a summary and stops what it started. Run again it goes on where it was,
    and asks nothing twice. Ctrl-C once lets the calls in flight finish, twice leaves at once.
    """
    _check_output(source, output, as_json=as_json)
    begun = Begun()
    with _interruptible(begun):
        batch, moment = _work(source, asked, workers, begun)
        _finish(batch, moment, output, begun, as_json=as_json)
    if (code := exit_for(moment.status)) is not Exit.DONE:
        raise typer.Exit(code)


def _work(source: str, asked: Asked, workers: int, begun: Begun) -> "tuple[Batch, Moment]":
    from producers.admitting import admission_view  # noqa: PLC0415  # the database layer takes 0.5 s
    from producers.progress import view_for_terminal  # noqa: PLC0415  # likewise
    from producers.running import finish, submit_for_here  # noqa: PLC0415  # likewise
    from promptmill import settings  # noqa: PLC0415  # likewise

    log_to_stderr()
    chosen = replace(asked, model=asked.model or DEFAULT_MODEL)
    with admission_view() as progress:
        submission = submit_for_here(
            source, options_from(chosen), settings=settings.load(), progress=progress
        )
    batch = submission.batch
    begun.batch = batch.name
    has_ended = submission.admission.resumed and batch.look().has_ended
    tell(submission.admission, has_ended=has_ended)
    if asked.model is None and not has_ended:
        say(f"model: {chosen.model} for rows that name none; choose another with --model")
    with view_for_terminal() as view:
        try:
            moment = finish(batch, workers=workers, say=view.say, show=view.show)
        except KeyboardInterrupt:
            moment = batch.look()
            if not moment.has_ended:
                raise
            view.show(moment)  # the calls that were in flight were its last: a run like any other
    return batch, moment


def _finish(batch: "Batch", moment: "Moment", output: Path | None, begun: Begun, *, as_json: bool) -> None:
    from producers import documents, summary  # noqa: PLC0415  # the database layer takes 0.5 s
    from producers.cli.results import format_by_name, write  # noqa: PLC0415  # likewise

    if output is not None:
        path = None if str(output) == "-" else output
        write(batch, path, format_by_name(path))
    for line in summary.summary_lines(moment.status, batch.failures()):
        say(line)
    if moment.lacks_a_price:
        say(f"stopped: {moment.status.batch.reason}; {moment.what_to_do}")
    elif moment.stopped_by_budget:
        go_on = begun.command_to_go_on(budget=moment.larger_budget)
        say(f"stopped: {moment.status.batch.reason}. Go on with a larger one:\n  {go_on}")
    if moment.is_held:
        say(
            f"stopped: {moment.status.batch.reason}. Put that right: {moment.remedy}. Then go on with:\n  {begun.command_to_go_on()}"
        )
    if output is None:
        say(f"the answers: promptmill results {shlex.quote(batch.name)} -o OUT.jsonl")
    if as_json:
        put_json(documents.status_document(batch.look()))


def _check_output(source: str, output: Path | None, *, as_json: bool) -> None:
    """Better now than after an hour of answers."""
    from producers.cli.results import check_place, format_by_name  # noqa: PLC0415  # the database layer takes 0.5 s

    if output is None:
        return
    if str(output) == "-":
        if as_json:
            raise typer.BadParameter("--json needs standard output for itself", param_hint="--output")
        return
    if output.exists() and Path(source).exists() and output.samefile(source):
        raise typer.BadParameter(f"{output} is the input: it would be replaced", param_hint="--output")
    format_by_name(output)
    check_place(output)


@contextmanager
def _interruptible(begun: Begun) -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal end the block, with the words how to go on, and exit code 130."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted; no answer is lost. Go on with:\n  {begun.command_to_go_on()}")
        raise typer.Exit(Exit.INTERRUPTED) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
