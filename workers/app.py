"""What Celery is pointed at: `celery -A workers.app worker`, and likewise `beat` and `flower`."""

import sys
from typing import Any

from celery.signals import celeryd_init

from promptmill import logs, settings, unhandled
from promptmill.broker import celery_app
from promptmill.errors import ConfigurationError
from promptmill.settings import Settings

_PROGRAMS = ("beat", "flower")
"""Of Celery's commands, those that are no worker."""


def _told() -> tuple[Settings, str]:
    found = settings.load()
    if "flower" in sys.argv:
        # Before Flower would set up a log of its own, which it leaves where there is one.
        logs.configure(level=found.log_level, style=found.log_format)
        unhandled.catch_unhandled()
        from workers import flower  # noqa: PLC0415  # a web server that no worker needs

        flower.set_up(found.home)
    if found.redis_url is None:
        program = next((word for word in _PROGRAMS if word in sys.argv), "a worker")
        raise ConfigurationError(
            f"PROMPTMILL_REDIS_URL: {program} started by hand must be told where Redis is "
            "(`promptmill up` starts a Redis, and what needs it, by itself)",
            setting="PROMPTMILL_REDIS_URL",
        )
    return found, found.redis_url


try:
    _settings, _redis_url = _told()
except ConfigurationError as error:
    # Celery shows any other exception with the whole of its traceback.
    raise SystemExit(f"promptmill: {logs.scrub(str(error))}") from None

app = celery_app(_redis_url, _settings.broker_url)


@celeryd_init.connect
def _forget_the_schedule(**_: Any) -> None:
    """Flower shows a worker's settings and would show this address with its password; only beat needs it."""
    app.conf.redbeat_redis_url = None
