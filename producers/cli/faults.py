"""What becomes of an error: one clear line on standard error and an exit code, never a traceback by default."""

import errno
import io
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import typer

from producers.cli.exits import Exit
from producers.cli.printing import say
from producers.words import silence
from promptmill.errors import PromptmillError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def report(error: Exception) -> Exit:
    """Say what went wrong; the exit code that goes with it."""
    from promptmill.logs import scrub  # noqa: PLC0415  # 0.2 s that commands without a fault need not take

    if isinstance(error, PromptmillError):
        say(f"promptmill: {scrub(str(error))}")
    elif isinstance(error, OSError) and error.filename:
        say(f"promptmill: {error.filename}: {error.strerror}")
    elif isinstance(error, OSError) and error.errno in _NO_ROOM:
        # A file has a name, so this is what we print to.
        silence(sys.stdout)
        say(f"promptmill: standard output: {error.strerror}; make room, or write elsewhere")
    else:
        _report_unexpected(error, scrub)
    return Exit.FAILURE


def report_usage(error: typer.TyperException) -> int:
    """Say what was typed wrong, as Typer words it; its exit code."""
    words = io.StringIO()
    error.show(words)  # type: ignore[attr-defined]  # every one that Typer raises has it, with its usage line
    say(words.getvalue().rstrip("\n"))
    return error.exit_code


def _report_unexpected(error: Exception, scrub: Callable[[str], str]) -> None:
    text = scrub("".join(traceback.format_exception(error)))
    if os.environ.get("PROMPTMILL_DEBUG"):
        say(text)
        return
    say(f"promptmill: unexpected {type(error).__name__}: {scrub(str(error))}")
    say(f"  the traceback is in {_keep(text)}; PROMPTMILL_DEBUG=1 prints it")


def _keep(text: str) -> str:
    folder = Path(os.environ.get("PROMPTMILL_HOME") or ".promptmill") / "logs"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = folder / "errors.log"
        with file.open("a", encoding="utf-8", errors="backslashreplace") as log:
            log.write(f"$ {' '.join(sys.argv)}\n{text}\n")
    except OSError:
        return "no log, because the data folder cannot be written"
    return str(file)
