"""`promptmill limits`, `limits show`, `limits probe` and `limits forget`."""

import os
import sys
from typing import Annotated

import typer

import producers
from producers.cli.exits import Exit
from producers.cli.options import AsJson
from producers.cli.printing import log_to_stderr, put, put_json, say

app = typer.Typer(
    help="Show the limits per account and model group: how high, from where, how much is used, who waits and why.",
    invoke_without_command=True,
    rich_markup_mode=None,
)

Watch = Annotated[bool, typer.Option("--watch", help="Look again every second, until Ctrl-C.")]
AsMetrics = Annotated[bool, typer.Option("--prometheus", help="Print Prometheus' text format.")]


@app.callback()
def default(
    context: typer.Context, as_json: AsJson = False, watch: Watch = False, prometheus: AsMetrics = False
) -> None:
    """Show the limits: how high, from where, how much is used, who waits and why."""
    if context.invoked_subcommand is None:
        show(as_json=as_json, watch=watch, prometheus=prometheus)
    elif as_json or watch or prometheus:
        raise typer.BadParameter(f"options go behind the word {context.invoked_subcommand}")


@app.command()
def show(as_json: AsJson = False, watch: Watch = False, prometheus: AsMetrics = False) -> None:
    """Show the limits as they stand now; the same as without a word."""
    if as_json + watch + prometheus > 1:
        raise typer.BadParameter("take one of --json, --watch and --prometheus")
    from producers.limits_reader import START_REDIS, is_fault  # noqa: PLC0415  # the database layer takes 0.5 s
    from promptmill import settings  # noqa: PLC0415  # likewise
    from promptmill.errors import Unavailable  # noqa: PLC0415  # likewise

    log_to_stderr("ERROR")
    if watch:
        _watch()
        return
    found = settings.load()
    now = producers.limits(settings=found)
    if as_json:
        from producers.limits_document import limits_document  # noqa: PLC0415  # the database layer takes 0.5 s

        put_json(limits_document(now))
    elif prometheus:
        from producers.limits_metrics import exposition  # noqa: PLC0415  # 0.1 s of imports

        put(exposition(now).rstrip())
    else:
        from producers.limits_tables import page  # noqa: PLC0415  # the database layer takes 0.5 s

        put(page(now))
    if is_fault(now.silence, found):
        raise Unavailable(f"{now.silence}; {START_REDIS}")


@app.command()
def probe(
    account: Annotated[
        str | None,
        typer.Option("--account", metavar="NAME", help="Whose limits they are; the first by default."),
    ] = None,
    workspace: Annotated[
        str | None,
        typer.Option("--workspace", metavar="ID", help="Ask for a workspace's limits (wrkspc_...)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read the limits with an admin key, and tell the workers."""
    from producers.limits_document import probe_document  # noqa: PLC0415  # the database layer takes 0.5 s
    from producers.limits_reader import START_REDIS, is_fault  # noqa: PLC0415  # likewise
    from producers.limits_tables import probe_table  # noqa: PLC0415  # likewise
    from promptmill import settings  # noqa: PLC0415  # likewise
    from promptmill.errors import Unavailable  # noqa: PLC0415  # likewise

    log_to_stderr("ERROR")
    found = settings.load(with_admin_key=True)
    probed = producers.probe_limits(account=account, workspace=workspace, settings=found)
    if as_json:
        put_json(probe_document(probed))
    else:
        put(probe_table(probed))
    if is_fault(probed.silence, found):
        raise Unavailable(f"nobody was told: {probed.silence}; {START_REDIS}")
    if probed.silence is None:
        say(f"Calls of account {probed.account} go by these limits from now on.")
    else:
        say(f"Nobody was told: {probed.silence}. Run this again while workers run.")


@app.command()
def forget(
    account: Annotated[
        str | None,
        typer.Option("--account", metavar="NAME", help="Whose limits; every account's by default."),
    ] = None,
    group: Annotated[
        str | None, typer.Option("--group", metavar="GROUP", help="Which model group; every one by default.")
    ] = None,
) -> None:
    """Forget what was learned about limits; the next call begins gently."""
    from producers.limits_reader import START_REDIS, is_fault  # noqa: PLC0415  # the database layer takes 0.5 s
    from promptmill import settings  # noqa: PLC0415  # likewise
    from promptmill.errors import Unavailable  # noqa: PLC0415  # likewise

    log_to_stderr("ERROR")
    found = settings.load()
    try:
        forgotten = producers.forget_limits(account=account, group=group, settings=found)
    except Unavailable as error:
        if is_fault(str(error), found):
            raise Unavailable(f"{error}; {START_REDIS}") from error
        raise
    for pool in forgotten:
        put(f"Forgotten: {pool.group}, account {pool.account}. Its next call begins gently.")


def _watch() -> None:
    from producers.limits_live import show_live  # noqa: PLC0415  # the database layer takes 0.5 s

    try:
        show_live(producers.watch_limits(), sys.stdout)
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    except BrokenPipeError:
        # Whoever read has read enough. What Python would still write at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
