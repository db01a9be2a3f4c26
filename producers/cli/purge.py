"""`promptmill purge`."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from producers.cli.exits import Exit
from producers.cli.options import AsJson
from producers.cli.printing import log_to_stderr, put_json, say

if TYPE_CHECKING:
    from producers.purge import Purge
    from promptmill.store.batches import BatchRow

_MOST_SHOWN = 20
_MANY_JOBS = 100_000
"""A batch of so many takes long enough to say how far it is."""


def purge(
    batch: Annotated[
        str | None, typer.Argument(metavar="BATCH", help="Name or id of a batch that has ended.")
    ] = None,
    *,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="30d", help="Instead: every batch that ended so long ago."),
    ] = None,
    what: Annotated[
        str,
        typer.Option(
            "--what",
            metavar="PARTS",
            help="prompts, answers or both, whose figures and costs stay; or everything, batch and ledger too.",
        ),
    ] = "prompts,answers",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing; say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete prompts and answers of batches that have ended. There is no way back.

    Interrupted, it is typed again and goes on. With --json: {"dry_run", "purged": [{"batch_id", "name", "parts",
    "jobs", …}]}.
    """
    from producers.purge import carry_out, find  # noqa: PLC0415  # the database layer takes 0.5 s
    from promptmill import settings as told  # noqa: PLC0415  # likewise
    from promptmill.errors import InvalidInput  # noqa: PLC0415  # likewise

    log_to_stderr()
    settings = told.load()
    try:
        found = find(batch, older_than=older_than, what=what, settings=settings)
    except InvalidInput as error:
        hint = f"--{error.field}" if error.field else None
        raise typer.BadParameter(error.why, param_hint=hint) from error
    to_do = [each for each in found if each.parts]
    if not as_json or not (dry_run or yes):  # whoever is asked must see what about
        _show(found, verb="would go" if dry_run else "go")
    if to_do and not dry_run:
        if not (yes or _agrees()):
            raise typer.Exit(1)
        carry_out(to_do, settings=settings, progress=_Progress())
    if as_json:
        put_json({"dry_run": dry_run, "purged": [_document(each) for each in to_do]})
    elif to_do and not dry_run:
        say(f"purged {_counted(to_do)}")


def _agrees() -> bool:
    if not sys.stdin.isatty():
        say("promptmill: nothing was deleted: say --yes where nobody can be asked")
        return False
    try:
        agrees = typer.confirm("Delete it? There is no way back", err=True)
    except typer.Abort:  # Ctrl-C, or the end of the input
        say("\nnothing was deleted")
        raise typer.Exit(Exit.INTERRUPTED) from None
    if not agrees:
        say("nothing was deleted")
    return agrees


class _Progress:
    """A line for each batch of many jobs, every tenth of it."""

    def __init__(self) -> None:
        self._said: tuple[str, int] = ("", 0)

    def __call__(self, row: "BatchRow", jobs: int) -> None:
        tenth = 10 * jobs // max(1, row.total)
        if row.total >= _MANY_JOBS and (row.id, tenth) != self._said:
            self._said = (row.id, tenth)
            say(f"{row.name}: {jobs:,} of {row.total:,} jobs")


def _show(found: "Sequence[Purge]", *, verb: str) -> None:
    from producers.wording import several  # noqa: PLC0415  # the database layer takes 0.5 s
    from promptmill.store.purging import Part  # noqa: PLC0415  # likewise

    if not found:
        say("nothing to purge: no batch ended so long ago, or all of it is gone already")
    for each in found[:_MOST_SHOWN]:
        row = each.batch
        if not each.parts:
            say(f"{row.name}: that is gone already")
            continue
        what = " and ".join(sorted(each.parts, reverse=True))
        jobs = several(row.total, "job")
        if Part.EVERYTHING in each.parts:
            say(
                f"{row.name}: everything {'goes' if verb == 'go' else verb}: {jobs}, and the record of their cost"
            )
        else:
            say(f"{row.name}: {what} of {jobs} {verb}")
    if len(found) > _MOST_SHOWN:
        say(f"and of {len(found) - _MOST_SHOWN:,} more batches")


def _counted(purges: "Sequence[Purge]") -> str:
    from producers.wording import several  # noqa: PLC0415  # the database layer takes 0.5 s

    jobs = sum(each.batch.total for each in purges)
    return f"{several(len(purges), 'batch', 'batches')} with {several(jobs, 'job')}"


def _document(purge: "Purge") -> dict[str, Any]:
    from producers.documents import stamp  # noqa: PLC0415  # the database layer takes 0.5 s

    row = purge.batch
    return {
        "batch_id": row.id,
        "name": row.name,
        "parts": sorted(purge.parts),
        "jobs": row.total,
        "ended_at": stamp(row.ended_at),
    }
