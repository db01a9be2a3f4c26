"""Runs the page: binds, says where, serves until told to stop, and stops at once."""

import asyncio
import os
import signal
from collections.abc import Callable

from aiohttp import web

from producers.dashboard.access import Access
from producers.dashboard.app import make_app
from producers.dashboard.figures import Figures
from producers.metrics import MetricsReader
from promptmill.errors import ConfigurationError
from promptmill.settings import Settings

_STOP_S = 2.0
"""Seconds an answer that is being written may still take."""


def serve(settings: Settings, access: Access, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. Call it from the main thread.

    Args:
        settings: whose database, Redis and files are looked at.
        access: where to listen, and who may do what.
        port: 0 for any that is free.
        on_ready: told the address (`http://127.0.0.1:8788`) once connections are accepted.

    Raises:
        ConfigurationError: the address cannot be bound, or the database cannot be used.
    """
    with Figures(settings) as figures, MetricsReader(settings) as metrics:
        app = make_app(access, figures, metrics.exposition)
        asyncio.run(_serve(app, access.host, port, on_ready))


async def _serve(app: web.Application, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await _start(site, host, port)
        bound = runner.addresses[0][1]
        on_ready(f"http://{f'[{host}]' if ':' in host else host}:{bound}")
        await stop.wait()
    finally:
        await runner.cleanup()


async def _start(site: web.TCPSite, host: str, port: int) -> None:
    try:
        await site.start()
    except OSError as error:
        # The loop's own message names addresses as tuples; the system's words are enough.
        if error.errno is None or error.errno <= 0:  # as a name that leads nowhere has it
            raise ConfigurationError(f"--host: there is no {host}", setting="--host") from error
        raise ConfigurationError(
            f"--port: {host}:{port} cannot be had ({os.strerror(error.errno)}); name another",
            setting="--port",
        ) from error
