"""`promptmill schedule`: add, list, show, remove, pause, resume and run."""

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from producers.cli import options as opt
from producers.cli.asking import Asked, options_from, with_options
from producers.cli.printing import log_to_stderr, put, put_json, say

if TYPE_CHECKING:
    from producers.schedules import Schedule

app = typer.Typer(
    help="Submit a file or prompts again and again, at the times of a timetable.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name or id of the schedule.")]
NewName = Annotated[str, typer.Argument(metavar="NAME", help="What to call the schedule.")]
File = Annotated[
    str | None,
    typer.Argument(
        metavar="FILE",
        help="The prompts, read by a worker when it is due; may hold {{ date }}, {{ due }}, {{ run }}, {{ schedule }}.",
    ),
]
Prompts = Annotated[
    list[str] | None,
    typer.Option("--prompt", metavar="TEXT", help="A prompt in the place of a file; may be repeated."),
]
Cron = Annotated[
    str | None,
    typer.Option("--cron", metavar='"M H D M W"', help="Minute, hour, day, month, day of the week."),
]
Every = Annotated[
    str | None, typer.Option("--every", metavar="15m", help="An interval: 30s, 15m, 6h, 1d, 1w.")
]
Timezone = Annotated[
    str, typer.Option("--timezone", metavar="ZONE", help="Where the times of --cron are read.")
]
MissedRuns = Annotated[
    str,
    typer.Option(
        "--missed",
        metavar="latest|all|skip",
        help="Due times at which nothing ran: one run for the latest, one for each, or none.",
    ),
]
OverlapRuns = Annotated[
    str,
    typer.Option(
        "--overlap", metavar="allow|skip", help="A due time at which the former batch has not ended."
    ),
]
BatchNames = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="N",
        help='What to call each batch, such as "news-{{ date }}"; by default the schedule\'s name and the due time.',
    ),
]
Deadline = Annotated[
    str | None,
    typer.Option("--deadline", metavar="6h", help="Begin no call of a batch so long after its due time."),
]


@app.command()
@with_options("deadline", "new", name=BatchNames)
def add(
    schedule: NewName,
    source: File = None,
    *,
    cron: Cron = None,
    every: Every = None,
    timezone: Timezone = "UTC",
    missed: MissedRuns = "latest",
    overlap: OverlapRuns = "allow",
    prompts: Prompts = None,
    deadline: Deadline = None,
    asked: Asked,
    as_json: opt.AsJson = False,
) -> None:
    """Have FILE, or prompts, submitted at every due time.

    Prints the id of the schedule. Give --cron or --every.
    """
    from producers.schedules import add_with  # noqa: PLC0415  # the database layer takes 0.5 s
    from producers.scheduling import timing  # noqa: PLC0415  # likewise
    from promptmill import settings  # noqa: PLC0415  # likewise
    from promptmill.errors import InvalidInput  # noqa: PLC0415  # likewise

    log_to_stderr()
    if (cron is None) == (every is None):
        raise typer.BadParameter(
            "give either a cron expression or an interval", param_hint="--cron or --every"
        )
    try:
        added = add_with(
            schedule,
            timing(cron, every, timezone),
            source,
            options_from(asked),
            missed=missed,
            overlap=overlap,
            prompts=prompts or (),
            deadline=deadline,
            settings=settings.load(),
        )
    except InvalidInput as error:
        if error.field is None or error.file is not None or error.line is not None:
            raise
        raise typer.BadParameter(error.why, param_hint=_HINTS.get(error.field, f"--{error.field}")) from error
    _report(added, "is added", as_json=as_json)
    if not as_json:
        put(added.row.id)


@app.command("list")
def list_schedules(as_json: opt.AsJson = False) -> None:
    """List the schedules with their next and last runs.

    What the last run has cost stands beside it.
    """
    from producers.place import HOW_TO_ADD, where  # noqa: PLC0415  # the database layer takes 0.5 s
    from producers.schedules import overview  # noqa: PLC0415  # likewise
    from producers.schedules_shown import document, table  # noqa: PLC0415  # likewise
    from promptmill import settings  # noqa: PLC0415  # likewise

    told = settings.load()
    found = overview(settings=told)
    if as_json:
        put_json([document(each) for each in found])
    elif found:
        put(table(found))
        for hint in sorted({each.hint for each in found if each.hint}):
            say(hint)
    else:
        say(f"There is no schedule yet{where(told)}; {HOW_TO_ADD}")


@app.command()
def show(
    name: Name,
    runs: Annotated[int, typer.Option("--runs", metavar="N", min=1, help="How many of the last runs.")] = 10,
    as_json: opt.AsJson = False,
) -> None:
    """Show one schedule, its next and last runs.

    The last ones with their batches and what they have cost.
    """
    from producers.schedules import schedule  # noqa: PLC0415  # the database layer takes 0.5 s
    from producers.schedules_shown import document, page  # noqa: PLC0415  # likewise

    found = schedule(name, runs=runs)
    if as_json:
        put_json(document(found))
    else:
        put(page(found))


@app.command()
def remove(name: Name) -> None:
    """Remove a schedule; its batches stay.

    What became of its due times is forgotten.
    """
    from producers import schedules  # noqa: PLC0415  # the database layer takes 0.5 s

    schedules.remove(name)
    say(f"{name} is removed; its batches stay")


@app.command()
def pause(name: Name, as_json: opt.AsJson = False) -> None:
    """Submit nothing from now on; its batches go on."""
    from producers import schedules  # noqa: PLC0415  # the database layer takes 0.5 s

    way_on = f"promptmill schedule resume {shlex.quote(name)}"
    _report(schedules.pause(name), f"is paused; go on with: {way_on}", as_json=as_json)


@app.command()
def resume(name: Name, as_json: opt.AsJson = False) -> None:
    """Go on with the next due time.

    Those that passed meanwhile are not made up for.
    """
    from producers import schedules  # noqa: PLC0415  # the database layer takes 0.5 s

    _report(schedules.resume(name), "goes on", as_json=as_json)


@app.command()
def run(name: Name, as_json: opt.AsJson = False) -> None:
    """Submit once more now.

    A worker does it within about two seconds, also while the schedule is paused.
    """
    from producers import schedules  # noqa: PLC0415  # the database layer takes 0.5 s

    way_on = f"promptmill schedule show {shlex.quote(name)}"
    _report(schedules.run(name), f"is told to run now; see: {way_on}", as_json=as_json)


def _report(schedule: "Schedule", sentence: str, *, as_json: bool) -> None:
    from producers.schedules_shown import document, local  # noqa: PLC0415  # the database layer takes 0.5 s

    if as_json:
        put_json(document(schedule))
        return
    say(f"{schedule.name} {sentence}")
    if schedule.next_due:
        say("next: " + ", ".join(local(schedule.row, due) for due in schedule.next_due))
    for each in (schedule.note, schedule.hint):
        if each:
            say(f"note: {each}")


_HINTS = {"file": "FILE", "schedule": "NAME"}
