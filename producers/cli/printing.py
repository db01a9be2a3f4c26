"""Where words go: answers to standard output, everything else to standard error."""

import json
import sys
from typing import Any

from producers.words import silence, tell


def say(message: str) -> None:
    """A message for the person; never on standard output."""
    tell(sys.stderr, message)


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


def put_json(document: Any) -> None:
    """The answer as one JSON document."""
    put(json.dumps(document, ensure_ascii=False, indent=2))
