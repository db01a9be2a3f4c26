"""Where words go: answers to standard output, everything else to standard error."""

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from producers.words import silence, tell
from producers.wrapping import fitted

if TYPE_CHECKING:
    from promptmill.settings import Settings


def say(message: str) -> None:
    """A message for the person; never on standard output. On a terminal too narrow for it, it is folded."""
    tell(sys.stderr, fitted(message, sys.stderr))


def put(line: str) -> None:
    """A line of the answer, at once: a program may be waiting for it at the other end of a pipe."""
    try:
        print(line, flush=True)  # noqa: T201  # this is where printing is done
    except BrokenPipeError:  # `… | head`: the reader has what it wanted
        silence(sys.stdout)


def log_to_stderr(level: str = "WARNING") -> None:
    """Warnings of what is below go to standard error; unless told, structlog writes to standard output."""
    from promptmill import logs  # noqa: PLC0415  # 0.2 s that --help need not take

    logs.configure(level=level)


def log_as_a_server(settings: "Settings") -> None:
    """What goes on goes to standard error as workers write it, and so does what nobody handles."""
    from producers.cli.unread import unread  # noqa: PLC0415  # it says what it says through here
    from promptmill import logs, unhandled  # noqa: PLC0415  # likewise

    logs.configure(level=settings.log_level, style=settings.log_format)
    unhandled.catch_unhandled()
    for each in unread():
        logs.get_logger(__name__).warning(
            "setting_unread", variable=each.name, found_in=each.where, nearest=each.nearest
        )


def say_serving(settings: "Settings", sentence: str, url: str) -> None:
    """Where it is; on its loop, whose errors are logged from then on. A line of JSON where every line is to be one."""
    import asyncio  # noqa: PLC0415  # likewise

    from promptmill import unhandled  # noqa: PLC0415  # likewise

    unhandled.catch_on_loop(asyncio.get_running_loop())
    if settings.log_format != "json":
        say(sentence)
        return
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    line = {"event": "serving", "level": "info", "logger": __name__, "timestamp": now, "url": url}
    tell(sys.stderr, json.dumps(line, sort_keys=True))


def put_json(document: Any) -> None:
    """The answer as one JSON document."""
    put(json.dumps(document, ensure_ascii=False, indent=2))
