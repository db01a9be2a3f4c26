"""Errors that nobody handles become lines like all others: of threads, finalizers, the event loop, the whole process.

The idea: without this Python prints them itself, over many lines and with their texts, which may quote a prompt.
"""

import asyncio
import logging
import sys
import threading
from typing import Any

from promptmill.logs import first_line, get_logger

log = get_logger(__name__)


def catch_unhandled() -> None:
    """Have warnings and errors that nobody handles logged: of threads, finalizers, the whole process."""
    logging.captureWarnings(capture=True)
    sys.excepthook = _of_process
    threading.excepthook = _of_thread
    sys.unraisablehook = lambda told: log.critical("error_in_finalizer", exc_info=told.exc_value)


def catch_on_loop(loop: asyncio.AbstractEventLoop) -> None:
    """The same for an event loop: errors of callbacks, and of tasks that nobody waited for."""
    loop.set_exception_handler(_of_loop)


def _of_process(kind: type[BaseException], error: BaseException, _trace: Any) -> None:
    if issubclass(kind, Exception):
        log.critical("process_broke", exc_info=error)


def _of_thread(told: threading.ExceptHookArgs) -> None:
    if told.exc_type is not SystemExit:
        log.critical("thread_broke", exc_info=told.exc_value, thread=getattr(told.thread, "name", None))


def _of_loop(_loop: asyncio.AbstractEventLoop, told: dict[str, Any]) -> None:
    # Its message is asyncio's own; the other fields show what tasks were given.
    log.error("loop_broke", what=first_line(told["message"]), exc_info=told.get("exception"))
