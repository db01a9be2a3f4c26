"""One log pipeline for structlog and the standard library: constant event names, data in fields.

The idea to keep in mind: identifiers go in, objects do not. Prompts, answers and keys are never logged;
as a net under that rule, anything that looks like a secret is replaced before a line is written.
"""

import logging
import re
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

_SECRET = re.compile(
    r"sk-ant-[A-Za-z0-9_-]{4,}"  # Anthropic keys and tokens
    r"|(?<=[Bb]earer )[A-Za-z0-9._~+/-]{8,}=*"
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"  # user:password in a URL; Redis has no user
)
_SCRUBBED = "[secret]"

_TALKATIVE = (
    *("httpx", "httpcore", "aiohttp", "alembic", "kombu", "redbeat"),
    *("celery.redirected", "celery.app.trace", "celery.worker.strategy"),
)
"""Libraries whose INFO lines are about every call they make, or every job."""

Event = MutableMapping[str, Any]


def scrub(text: str) -> str:
    """`text` with everything that looks like a credential replaced."""
    return _SECRET.sub(_SCRUBBED, text)


def configure(*, level: str = "WARNING", style: str = "auto", stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's records through one formatter.

    Args:
        level: the least severe level that is written.
        style: `json`, `console`, or `auto` (console on a terminal).
        stream: where lines go; standard error when None.
    """
    stream = stream or sys.stderr
    console = style == "console" or (style == "auto" and stream.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _scrub_event,
    ]
    renderer = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty())
        if console
        else structlog.processors.JSONRenderer(sort_keys=True)
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            # By name, because the extras of other libraries may hold anything.
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(allow=["model"])],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _scrub_event, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for a module; events are constant strings, data goes into fields.

    It ends in the standard library's logger of that name, so a program that uses a part of Promptmill and
    configures nothing finds its warnings on standard error, not among its own output.
    """
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name), wrapper_class=structlog.stdlib.BoundLogger
    )
    return logger


def where(error: BaseException) -> dict[str, Any]:
    """Fields for an unexpected error: its type and place, never its text, which may quote a prompt."""
    return {"error": type(error).__name__, "where": traceback.format_tb(error.__traceback__)}


def _scrub_event(_logger: Any, _method: str, event: Event) -> Event:
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = scrub(value)
    return event
