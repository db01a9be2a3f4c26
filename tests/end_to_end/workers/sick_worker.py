"""`celery -A sick_worker worker`: the product's worker, which falls ill when a file tells it to.

What Celery did to people in its own ways (see `workers.watchdog`) is done here on purpose, from outside.
"""

import os
import time
from pathlib import Path
from typing import Any

from celery.signals import heartbeat_sent, worker_ready
from kombu.transport.virtual import QoS

from workers.app import app

__all__ = ["app"]

FOLDER = Path(os.environ["SICK_FOLDER"])
_consumers: list[Any] = []


@worker_ready.connect
def _remember(sender: Any, **_: Any) -> None:
    _consumers.append(sender)


@heartbeat_sent.connect
def _fall_ill(**_: Any) -> None:
    """In the main thread, every two seconds."""
    if (FOLDER / "deaf").exists():
        (FOLDER / "deaf").rename(FOLDER / "was-deaf")
        _deafen()
    if (FOLDER / "stone-deaf").exists():
        (FOLDER / "stone-deaf").rename(FOLDER / "stays-deaf")
        _deafen()
        QoS.can_consume = lambda _self: False  # for every connection to come
    if (FOLDER / "hang").exists():
        (FOLDER / "hang").rename(FOLDER / "hangs")
        time.sleep(600)


def _deafen() -> None:
    """The connection stands, and nobody asks for messages on it."""
    _consumers[0].task_consumer.channel.qos.can_consume = lambda: False
