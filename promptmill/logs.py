"""One log pipeline for structlog and the standard library: constant event names, data in fields, one line a record.

The idea to keep in mind: identifiers go in, objects do not. Prompts, answers and keys are never logged;
as a net under that rule, anything that looks like a secret is replaced before a line is written, and of an error
there is its type and place, and its text only where the error is one of the network's.
"""

import asyncio
import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterator, MutableMapping
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
    console = not is_for_programs(style, stream)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _name_error,
        _scrub_event,
    ]
    rendering: list[Any] = (
        [_on_one_line, structlog.dev.ConsoleRenderer(colors=stream.isatty())]
        if console
        else [structlog.processors.JSONRenderer(sort_keys=True)]  # which escapes what ends a line
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            # By name, because the extras of other libraries may hold anything.
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(allow=["model"])],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _scrub_event, *rendering],
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


def catch_unhandled() -> None:
    """Have warnings and errors that nobody handles logged like others: of threads, finalizers, the whole process."""

    def log_it(event: str, error: BaseException | None, **facts: Any) -> None:
        get_logger("promptmill.unhandled").critical(event, exc_info=error, **facts)

    def of_process(kind: type[BaseException], error: BaseException, _trace: Any) -> None:
        if issubclass(kind, Exception):
            log_it("process_broke", error)

    logging.captureWarnings(capture=True)
    sys.excepthook = of_process
    threading.excepthook = lambda told: (
        None
        if told.exc_type is SystemExit
        else log_it("thread_broke", told.exc_value, thread=getattr(told.thread, "name", None))
    )
    sys.unraisablehook = lambda told: log_it("error_in_finalizer", told.exc_value)


def catch_on_loop(loop: asyncio.AbstractEventLoop) -> None:
    """The same for an event loop: errors of callbacks, and of tasks that nobody waited for."""

    def log_it(_loop: asyncio.AbstractEventLoop, told: dict[str, Any]) -> None:
        # Its message is asyncio's own; the other fields show what tasks were given.
        get_logger("promptmill.unhandled").error(
            "loop_broke", what=_first_line(told["message"]), exc_info=told.get("exception")
        )

    loop.set_exception_handler(log_it)


def _name_error(_logger: Any, _method: str, event: Event) -> Event:
    """Fields in the place of a traceback, whose last line and causes are texts of errors."""
    error = _error_of(event.pop("exc_info", None))
    if event.get("logger") == "asyncio":
        event["event"] = _first_line(event["event"])
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


def _first_line(text: Any) -> str:
    return str(text).partition("\n")[0]


def _on_one_line(_logger: Any, _method: str, event: Event) -> Event:
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = value.translate(_CONTROLS)
    return event


def _scrub_event(_logger: Any, _method: str, event: Event) -> Event:
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = scrub(value)
    return event
