"""What Celery is pointed at: `celery -A workers.app worker`, and likewise `beat` and `flower`."""

from typing import Any

from celery.signals import celeryd_init

from promptmill import settings
from promptmill.broker import celery_app
from promptmill.errors import ConfigurationError

_settings = settings.load()
_redis_url = _settings.redis_url
if _redis_url is None:
    raise ConfigurationError(
        "PROMPTMILL_REDIS_URL: a worker started by hand must be told where Redis is "
        "(`promptmill up` and `promptmill run` start one by themselves)",
        setting="PROMPTMILL_REDIS_URL",
    )

app = celery_app(_redis_url, _settings.broker_url)


@celeryd_init.connect
def _forget_the_schedule(**_: Any) -> None:
    """Flower shows a worker's settings and would show this address with its password; only beat needs it."""
    app.conf.redbeat_redis_url = None
