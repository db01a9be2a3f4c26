"""`python -m tests.warm.server FD`: has imported what our programs import, and forks one of them for each request.

The idea: nine tenths of what a short command costs are imports. They are done once here, before anything runs. A child
goes back to the top of this module and runs its program from there, so that it begins and ends as any other.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
from typing import Any, NamedTuple

# Nothing that reads settings or connects to Celery's signals when it is imported: that is each program's own.
IMPORTED = (
    "celery.app.amqp",
    "celery.app.control",
    "celery.app.events",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.worker.components",
    "celery.worker.strategy",
    "genai_prices",
    "httpcore",
    "kombu.pidbox",
    "kombu.transport.redis",
    "producers.auditing",
    "producers.cli.app",
    "producers.doctor",
    "producers.documents",
    "producers.export",
    "producers.forecast",
    "producers.limits_live",
    "producers.running",
    "producers.submission",
    "promptmill.simulator.app",
    "promptmill.simulator.server",
    "workers.consumer",
    "workers.pool",
    "workers.process",
)

LARGEST_REQUEST = 2**18  # bytes
NUMBER = struct.Struct("i")


class Request(NamedTuple):
    """A program to be run: `python -m module arguments`."""

    module: str
    arguments: list[str]
    folder: str
    environment: dict[str, str]
    sees_folder: bool
    new_session: bool


class _Child(NamedTuple):
    pid: int
    told: socket.socket  # who started it hears its pid, and then how it ended


def serve(control: socket.socket) -> Request | None:
    """Fork a child for each request, until nobody can make any; returns the request in the child, else None."""
    with selectors.DefaultSelector() as selector, control:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if isinstance(child := key.data, _Child):
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    _tell_end(child)
                    continue
                message, fds, _, _ = socket.recv_fds(control, LARGEST_REQUEST, 4)
                if not message:
                    return None
                *streams, told = fds
                if not (pid := os.fork()):
                    _leave(selector)
                    _take(streams)
                    request = Request(*json.loads(message))
                    _set_out(request, told)
                    return request
                child = _Child(pid, socket.socket(fileno=told))
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, child)
                for fd in streams:
                    os.close(fd)


def become(request: Request) -> None:
    """Run the program, in this process."""
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    named = [part for part in request.environment.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.path[:] = [*([request.folder] if request.sees_folder else []), *named, *sys.path]
    sys.argv[:] = ["", *request.arguments]
    runpy.run_module(request.module, run_name="__main__", alter_sys=True)


def _tell_end(child: _Child) -> None:
    _, status = os.waitpid(child.pid, 0)
    with child.told, contextlib.suppress(BrokenPipeError):  # perhaps nobody waits for it any more
        child.told.sendall(NUMBER.pack(status))


def _set_out(request: Request, told: int) -> None:
    """Say our process id, once a signal sent to it, or to its session, finds what it would in one that began cold."""
    if request.new_session:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.write(told, NUMBER.pack(os.getpid()))
    os.close(told)


def _leave(selector: selectors.BaseSelector) -> None:
    """Let go of what belongs to the server; the selector and the control are closed by `serve`."""
    for key in list(selector.get_map().values()):
        if isinstance(child := key.data, _Child):
            os.close(key.fd)
            child.told.close()


def _take(streams: list[int]) -> None:
    """Standard input, output and errors. Their objects stay, and are what Python makes for pipes and files."""
    for target, fd in enumerate(streams):
        os.dup2(fd, target)
        os.close(fd)


def _prepare() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in a terminal is for the tests, which end us
    del sys.path[0]  # our folder, put there by -m; each program has its own
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that no collection in a child writes to the pages it shares with us


if __name__ == "__main__":
    _prepare()
    _request: Any = serve(socket.socket(fileno=int(sys.argv[1])))
    if _request:
        become(_request)
