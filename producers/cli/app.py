"""The entry point: the list of commands, and what becomes of an error.

Commands import what they need when they run, so that `promptmill --help` answers at once.
"""

import sys
from typing import Annotated

import typer

import promptmill
from producers.cli import (
    audit,
    control,
    dashboard,
    doctor,
    encrypt,
    estimate,
    faults,
    keys,
    limits,
    lists,
    migrate,
    purge,
    results,
    retry,
    run,
    schedule,
    set_terms,
    simulate,
    status,
    submit,
    unread,
    up,
)
from producers.cli.exits import Exit

app = typer.Typer(
    name="promptmill",
    help="Very large batches of prompts against Claude: one rate limit, nothing lost, nothing paid for twice.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command(name="run")(run.run)
app.command(name="up")(up.up)
app.command(name="submit")(submit.submit)
app.command(name="estimate")(estimate.estimate)
app.command(name="status")(status.status)
app.command(name="list")(lists.list_batches)
app.command(name="results")(results.results)
app.command(name="audit")(audit.audit)
app.command(name="pause")(control.pause)
app.command(name="resume")(control.resume)
app.command(name="cancel")(control.cancel)
app.command(name="retry")(retry.retry)
app.command(name="set")(set_terms.set_terms)
app.add_typer(schedule.app, name="schedule")
app.command(name="migrate")(migrate.migrate)
app.command(name="purge")(purge.purge)
app.command(name="encrypt")(encrypt.encrypt)
app.command(name="dashboard")(dashboard.dashboard)
app.command(name="simulate")(simulate.simulate)
app.add_typer(limits.app, name="limits")
app.command(name="keys")(keys.keys)
app.command(name="doctor")(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"promptmill {promptmill.__version__}")  # noqa: T201  # what was asked for
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if not set(context.help_option_names).intersection(sys.argv):
        unread.tell_unread(context.invoked_subcommand)


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        sys.exit(app(prog_name="promptmill", standalone_mode=False))
    except typer.TyperException as error:
        sys.exit(faults.report_usage(error))
    except typer.Abort:  # a question that nobody answered
        sys.exit(Exit.FAILURE)
    except KeyboardInterrupt:  # before or after a command takes it for itself
        sys.exit(Exit.INTERRUPTED)
    except Exception as error:  # noqa: BLE001  # the last line of defence: a sentence, not a traceback
        sys.exit(faults.report(error))
