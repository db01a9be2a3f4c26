"""`promptmill submit`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from producers.cli import options as opt
from producers.cli.asking import Asked, options_from, tell, with_options
from producers.cli.estimate import show
from producers.cli.exits import Exit, exit_for
from producers.cli.going_on import Begun
from producers.cli.printing import put, put_json, say
from producers.cli.status import follow

if TYPE_CHECKING:
    from producers.admitting import Admitting
    from producers.submission import Submission
    from promptmill.intake.admit import Admission


@with_options()
def submit(
    source: opt.Source,
    *,
    asked: Asked,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Submit nothing; say what `promptmill estimate` says.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show progress until the batch has ended.")] = False,
    as_json: opt.AsJson = False,
) -> None:
    """Admit the prompts of FILE as a batch, for workers that run or will run.

    Prints the id of the batch; with --json {"batch_id", "jobs", "estimate"}. The same file under the same options
    is the same batch: submitting it again changes nothing.
    """
    from producers.submission import why_it_rests  # noqa: PLC0415  # the database layer takes 0.5 s

    if dry_run:
        show(source, asked, as_json=as_json)
        return
    submission = _submit(source, asked)
    admission, batch = submission.admission, submission.batch
    moment = batch.look()
    rests = why_it_rests(moment)
    tell(admission, goes_on=rests is None)
    if why := rests or moment.what_to_do:
        say(why)
    if as_json:
        put_json(_document(admission))
    else:
        put(batch.id)
    if watch and (code := exit_for(follow(batch))) is not Exit.DONE:
        raise typer.Exit(code)


def _submit(source: str, asked: Asked) -> "Submission":
    """Submit; at Ctrl-C say how far it is and how to go on."""
    from producers.admitting import admission_view  # noqa: PLC0415  # the database layer takes 0.5 s
    from producers.submission import submit_with  # noqa: PLC0415  # likewise
    from promptmill import settings  # noqa: PLC0415  # likewise

    view, begun = None, Begun()
    try:
        with admission_view() as view:
            return submit_with(source, options_from(asked), settings=settings.load(), progress=view)
    except KeyboardInterrupt:
        say(_interrupted(view, begun))
        raise typer.Exit(Exit.INTERRUPTED) from None


def _interrupted(view: "Admitting | None", begun: Begun) -> str:
    """What is told may be behind what is stored, so the database is asked whether there is a batch already."""
    doing, rows, of = (view and view.last) or ("reading", 0, None)
    made = begun.made()
    if doing == "reading" and made is None:
        so_far = "before a row was stored"
    else:
        so_far = (
            f"{made.total if made else rows:,} of {of:,} rows are stored, and no call begins before all are"
        )
    return f"interrupted; {so_far}. Go on with:\n  {begun.command_to_go_on()}"


def _document(admission: "Admission") -> dict[str, Any]:
    from producers.forecast_shown import forecast_document  # noqa: PLC0415  # the price list takes 0.1 s

    return {
        "batch_id": admission.batch_id,
        "jobs": admission.jobs,
        "estimate": forecast_document(admission.forecast),
    }
