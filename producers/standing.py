"""The stack that stays: what `up` runs until it is told to stop."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from producers.running import Crew
from producers.stack import Say, Stack, celery, local_stack
from producers.wording import several
from promptmill.embedded.process import LOOPBACK
from promptmill.errors import ConfigurationError
from promptmill.logs import scrub
from promptmill.runtime import open_database
from promptmill.settings import Settings


@contextmanager
def standing_stack(settings: Settings, *, workers: int, flower_port: int, say: Say) -> Iterator[Stack]:
    """Redis where none is set, workers, beat and Flower, for the length of the block.

    Args:
        settings: as they were read.
        workers: how many worker processes.
        flower_port: where Flower listens on the loopback address; 0 starts none.
        say: told what runs where.

    Raises:
        ConfigurationError: a setting is wrong, a port is taken, or the database cannot be used.
    """
    if flower_port:
        _check_port(flower_port)
    with open_database(settings):  # the tables are there before a worker asks for them
        pass
    with local_stack(settings, say) as stack:
        Crew(stack, workers).start()
        stack.start_other("beat", celery("beat", "--schedule", str(stack.settings.home / "beat-schedule")))
        if flower_port:
            _start_flower(stack, flower_port)
        say(f"{several(workers, 'worker process', 'worker processes')}, beat; logs in {stack.logs}")
        redis = "embedded" if settings.redis_url is None else scrub(settings.redis_url)
        say(f"database {scrub(stack.settings.effective_database_url)}, Redis {redis}")
        say("submit with: promptmill submit FILE; Ctrl-C stops when the calls in flight have finished")
        yield stack


def _check_port(port: int) -> None:
    """Flower would say the same in a traceback, after everything else has started."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise ConfigurationError(
                f"--flower-port: {LOOPBACK}:{port} cannot be had ({error.strerror}); name another, or 0 for no Flower",
                setting="--flower-port",
            ) from error


def _start_flower(stack: Stack, port: int) -> None:
    command = celery("flower", f"--address={LOOPBACK}", f"--port={port}", "--purge_offline_workers=300")
    stack.start_other("flower", command)
    stack.say(f"Flower at http://{LOOPBACK}:{port}")
