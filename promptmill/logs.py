"""One log pipeline for structlog and the standard library: constant event names, data in fields, one line a record.

The idea to keep in mind: identifiers go in, objects do not. Prompts, answers and keys are never logged;
as a net under that rule, anything that looks like a secret is replaced before a line is written, and of an error
there is its type and place, and its text only where the error is one of the network's.
"""

import json
import logging
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, MutableMapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import UTC, date, datetime, time
from typing import Any, TextIO

import structlog
from structlog.contextvars import bind_contextvars

from promptmill.errors import ConfigurationError, Unavailable

_SECRET = re.compile(
    r"sk-ant-[A-Za-z0-9_-]{4,}"  # Anthropic keys and tokens
    r"|(?<=[Bb]earer )[A-Za-z0-9._~+/-]{8,}=*"
    r"|(?<=[Xx]-[Aa][Pp][Ii]-[Kk][Ee][Yy]: )[^\s\"',]+"
    # user:password in a URL, up to the last @: people do not always escape it; Redis has no user
    r"|(?<=://)[^/\s:@]*:[^\s\"'<>]{1,300}(?=@)"
    r"|(?i:(?<=password=)|(?<=passwd=)|(?<=passphrase=)|(?<=api_key=)|(?<=[?&]token=)|(?<=_token=)|(?<=[?&]secret=))"
    r"[^\s\"'<>&]+"  # and in its query
)
_SCRUBBED = "[secret]"

_TALKATIVE = (
    *("httpx", "httpcore", "aiohttp", "alembic", "kombu", "redbeat"),
    *("celery.redirected", "celery.app.trace", "celery.worker.strategy"),
)
"""Libraries whose INFO lines are about every call they make, or every job."""

_SPEAK_OF_SERVERS = (OSError, ConfigurationError, Unavailable)
_FOREIGN_SPEAK_OF_SERVERS = ("redis.", "amqp.", "kombu.exceptions.OperationalError")
"""Errors whose text is about servers and settings. What others say may quote what they were given."""
_DEEPEST = 5
"""Causes of an error that are named."""
_CONTROLS = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160))} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}

_PLAIN = (str, int, float, bool, type(None))

Event = MutableMapping[str, Any]
ExcInfo = tuple[type[BaseException], BaseException, Any]


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
    handler = _Handler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            # By name, because the extras of other libraries may hold anything.
            foreign_pre_chain=[*_SHARED, structlog.stdlib.ExtraAdder(allow=["model"])],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _make_plain,
                *_rendering(style, stream),
                _scrub_line,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _rendering(style: str, stream: TextIO) -> list[Any]:
    if is_for_programs(style, stream):
        return [structlog.processors.JSONRenderer(sort_keys=True)]  # which escapes what ends a line
    return [_on_one_line, structlog.dev.ConsoleRenderer(colors=stream.isatty())]


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines; of a record that cannot be written, who made it, and nothing of what it says."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the library's name
        """The library would print its arguments as they are, over many lines."""
        kind = sys.exc_info()[0]
        line = {
            "error": kind.__name__ if kind else None,
            "event": "line_not_written",
            "level": "error",
            "logger": record.name,
            "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        }
        with suppress(OSError, ValueError):  # nobody reads any more
            self.stream.write(json.dumps(line) + self.terminator)
            self.flush()


def is_for_programs(style: str, stream: TextIO | None = None) -> bool:
    """Whether lines of that style are JSON: asked for, or `auto` where there is no terminal."""
    return style == "json" or (style != "console" and not (stream or sys.stderr).isatty())


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for a module; events are constant strings, data goes into fields.

    It ends in the standard library's logger of that name, so a program that uses a part of Promptmill and
    configures nothing finds its warnings on standard error, not among its own output.
    """
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name), wrapper_class=structlog.stdlib.BoundLogger
    )
    return logger


def concern(**ids: Any) -> None:
    """Have these ids on every line from here on: in this task or thread, and in what it begins from now on."""
    bind_contextvars(**ids)


def where(error: BaseException) -> dict[str, Any]:
    """Fields for an unexpected error: its type and place, never its text, which may quote a prompt."""
    return {"error": type(error).__name__, "where": traceback.format_tb(error.__traceback__)}


def _name_error(_logger: Any, _method: str, event: Event) -> Event:
    """Fields in the place of a traceback, whose last line and causes are texts of errors."""
    error = _error_of(event.pop("exc_info", None))
    if event.get("logger") == "asyncio":
        event["event"] = first_line(event["event"])
    if error is not None:
        event.update(where(error))
        if said := list(_said(error)):
            event["said"] = said
    event.pop("stack_info", None)
    return event


def _error_of(exc_info: Any) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        found: BaseException | None = exc_info[1]
        return found
    return sys.exc_info()[1] if exc_info else None


def _said(error: BaseException) -> Iterator[str]:
    """The error and its causes, each with its text where that can only speak of servers."""
    cause: BaseException | None = error
    for _ in range(_DEEPEST):
        if cause is None:
            return
        full_name = f"{type(cause).__module__}.{type(cause).__qualname__}"
        speaks = isinstance(cause, _SPEAK_OF_SERVERS) or full_name.startswith(_FOREIGN_SPEAK_OF_SERVERS)
        yield f"{type(cause).__name__}: {scrub(str(cause))}" if speaks else type(cause).__name__
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def first_line(text: Any) -> str:
    """Of a message that goes on to show what somebody was given."""
    return str(text).partition("\n")[0]


def _on_one_line(_logger: Any, _method: str, event: Event) -> Event:
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = value.translate(_CONTROLS)
    return event


def _make_plain(_logger: Any, _method: str, event: Event) -> Event:
    for name, value in event.items():
        if not isinstance(value, _PLAIN):
            event[name] = _plain(value)
    return event


def _plain(value: Any) -> Any:
    """A field in words that JSON has: an error by its type alone, a time as ISO 8601 writes it."""
    if isinstance(value, Mapping):
        return {str(_plain(name)): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple | AbstractSet):
        return [_plain(each) for each in value]
    if isinstance(value, BaseException):
        return type(value).__name__
    if isinstance(value, date | time):
        return value.isoformat()
    return value if isinstance(value, _PLAIN) else str(value)


def _scrub_line(_logger: Any, _method: str, line: Any) -> str:
    return scrub(line)


_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    _name_error,
]
