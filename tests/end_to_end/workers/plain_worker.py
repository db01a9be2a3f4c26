"""`celery -A plain_worker worker`: the product's app, which streams no call only for its headers."""

from workers.app import app
from workers.scouts import Scouts

__all__ = ["app"]

Scouts.send = lambda _self, _pool: False  # type: ignore[method-assign]
