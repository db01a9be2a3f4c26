"""The stack that stays: what `up` runs until it is told to stop."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from producers.dashboard.access import Access
from producers.running import Crew
from producers.stack import Say, Stack, celery, local_stack
from producers.wording import several
from promptmill.embedded.process import LOOPBACK
from promptmill.errors import ConfigurationError
from promptmill.logs import scrub
from promptmill.runtime import open_database
from promptmill.settings import Settings


@contextmanager
def standing_stack(
    settings: Settings, *, workers: int, flower_port: int, dashboard_port: int, say: Say
) -> Iterator[Stack]:
    """Redis where none is set, workers, beat, Flower and the dashboard, for the length of the block.

    Args:
        settings: as they were read.
        workers: how many worker processes.
        flower_port: where Flower listens on the loopback address; 0 starts none.
        dashboard_port: where the dashboard listens there; 0 starts none.
        say: told what runs where.

    Raises:
        ConfigurationError: a setting is wrong, a port is taken, or the database cannot be used.
    """
    if flower_port:
        _check_port(flower_port, "--flower-port", "Flower")
    if dashboard_port:
        _check_port(dashboard_port, "--dashboard-port", "dashboard")
        token = settings.dashboard.read_token()
        Access(LOOPBACK, token.get_secret_value() if token else None)
    with open_database(settings):  # the tables are there before a worker asks for them
        pass
    with local_stack(settings, say) as stack:
        Crew(stack, workers).start()
        stack.start_other("beat", celery("beat", "--schedule", str(stack.settings.home / "beat-schedule")))
        if flower_port:
            _start_flower(stack, flower_port)
        if dashboard_port:
            _start_dashboard(stack, dashboard_port)
        say(f"{several(workers, 'worker process', 'worker processes')}, beat; logs in {stack.logs}")
        redis = "embedded" if settings.redis_url is None else scrub(settings.redis_url)
        say(f"database {scrub(stack.settings.effective_database_url)}, Redis {redis}")
        if stack.simulator:
            say(
                f"simulated Claude at {stack.simulator.url}; its book and ours: "
                f"promptmill audit BATCH --ledger {stack.simulator.url}"
            )
        say("submit with: promptmill submit FILE; Ctrl-C stops when the calls in flight have finished")
        yield stack


def _check_port(port: int, option: str, what: str) -> None:
    """They would say the same in their logs, after everything else has started."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise ConfigurationError(
                f"{option}: {LOOPBACK}:{port} cannot be had ({error.strerror}); name another, or 0 for no {what}",
                setting=option,
            ) from error


def _start_flower(stack: Stack, port: int) -> None:
    command = celery("flower", f"--address={LOOPBACK}", f"--port={port}", "--purge_offline_workers=300")
    stack.start_other("flower", command)
    stack.say(f"Flower at http://{LOOPBACK}:{port}")


def _start_dashboard(stack: Stack, port: int) -> None:
    """The token goes to it alone."""
    token = stack.settings.dashboard.read_token()
    extra = {"PROMPTMILL_DASHBOARD_TOKEN": token.get_secret_value()} if token else {}
    command = [sys.executable, "-P", "-m", "producers.cli", "dashboard", "--port", str(port)]
    stack.start_other("dashboard", command, **extra)
    stack.say(f"dashboard at http://{LOOPBACK}:{port}")
