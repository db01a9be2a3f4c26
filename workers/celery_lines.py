"""What Celery writes past the log: where lines are JSON, all of them are, for whoever reads them is a program.

The idea: its banner, its warnings of the start and its last words go straight to the terminal, which is right where
there is one.
"""

import json
import os
from datetime import UTC, datetime
from typing import Any

from celery.apps import worker as celery_worker
from celery.signals import celeryd_init

from promptmill import logs, settings, unhandled


@celeryd_init.connect
def _log_from_the_start(instance: Any, **_: Any) -> None:
    """Celery sends this before it warns of anything; the log is set up again when it asks for that."""
    config = settings.load()
    logs.configure(level=config.log_level, style=config.log_format)
    unhandled.catch_unhandled()
    if logs.is_for_programs(config.log_format):
        instance.quiet = True
        celery_worker.safe_say = _say  # type: ignore[attr-defined]  # its stubs leave it out


def _say(message: str, file: Any = None) -> None:
    """From a signal's handler, perhaps in the middle of another line being logged: so without the log and its locks."""
    line = {
        "event": message.strip(),
        "level": "info",
        "logger": "celery",
        "timestamp": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
    }
    stream = 2 if file is None else file.fileno()
    os.write(stream, (json.dumps(line, sort_keys=True) + "\n").encode())
