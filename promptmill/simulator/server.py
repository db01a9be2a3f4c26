"""Runs a simulator: binds, announces its address, serves until told to stop, and stops at once."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable

from promptmill.clock import SystemClock
from promptmill.errors import ConfigurationError
from promptmill.pricing import price_of
from promptmill.simulator.app import make_server
from promptmill.simulator.config import SimulatorConfig
from promptmill.simulator.scenario import apply_scenario
from promptmill.simulator.simulation import Simulation
from promptmill.usage import Usage

_SAMPLE_EVERY_S = 1.0
_PARENT_EVERY_S = 0.5
_BACKLOG = 4096


def run(
    config: SimulatorConfig, on_ready: Callable[[str], None] | None = None, *, as_child: bool = False
) -> None:
    """Serve until SIGTERM or SIGINT. Call it from the main thread.

    Args:
        config: how it behaves.
        on_ready: told the address (`http://127.0.0.1:8787`) once connections are accepted.
        as_child: also end when standard input is closed or the parent process is gone.

    Raises:
        InvalidInput: the scenario is at fault.
        ConfigurationError: the address cannot be bound.
    """
    config, scenario = apply_scenario(config)
    simulation = Simulation(config, scenario, SystemClock())
    # Loading the price table takes a while; the first answer should not.
    price_of(Usage(), model=simulation.menu.all()[0].facts.id)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(simulation, on_ready or (lambda _: None), as_child=as_child))


async def _serve(simulation: Simulation, on_ready: Callable[[str], None], *, as_child: bool) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    config = simulation.config
    server = await _listen(simulation)
    beside = [asyncio.create_task(_sample(simulation))]
    if as_child:
        loop.add_reader(sys.stdin.fileno(), _read_parent, loop, stop)
        beside.append(asyncio.create_task(_watch_parent(stop)))
    port = server.sockets[0].getsockname()[1]
    on_ready(f"http://{config.host}:{port}")
    try:
        await stop.wait()
    finally:
        server.close()
        for task in beside:
            task.cancel()


async def _listen(simulation: Simulation) -> asyncio.Server:
    host, port = simulation.config.host, simulation.config.port
    try:
        return await asyncio.get_running_loop().create_server(
            make_server(simulation), host, port, backlog=_BACKLOG, reuse_address=True
        )
    except OSError as error:
        # The loop's own message names addresses as tuples; the system's words are enough.
        if isinstance(error, socket.gaierror):
            raise ConfigurationError(f"--host: there is no {host}", setting="--host") from error
        why = os.strerror(error.errno) if error.errno else str(error)
        option = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        raise ConfigurationError(
            f"{option}: {host}:{port} cannot be had ({why}); name another", setting=option
        ) from error


async def _sample(simulation: Simulation) -> None:
    while True:
        await asyncio.sleep(_SAMPLE_EVERY_S)
        simulation.sample_levels()


def _read_parent(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 1024):
        loop.remove_reader(sys.stdin.fileno())
        stop.set()


async def _watch_parent(stop: asyncio.Event) -> None:
    # A forked sibling may hold the pipe open after the parent died, so the pipe alone is not enough.
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110  the kernel tells nobody of a parent's end
        await asyncio.sleep(_PARENT_EVERY_S)
    stop.set()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415  absent on some systems

        return uvloop.new_event_loop
    return None
