"""A sign of life for whoever watches a worker or beat from outside: a file that is touched with every heartbeat.

The idea: looking at the age of a file costs nothing, while asking a worker how it is costs a second of CPU. The
heartbeat comes from the thread that takes messages, and only while Redis answers; that of beat, while it has its lock.
"""

from typing import Any

from celery.signals import heartbeat_sent

from promptmill.settings import load

_file = load().worker.pulse_file


@heartbeat_sent.connect
def touch(**_: Any) -> None:
    """Touch the file of PROMPTMILL_WORKER__PULSE_FILE, where one is set."""
    if _file is not None:
        _file.touch()
